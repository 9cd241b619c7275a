"""Reads JSON that others wrote, strictly: one meaning for one text, within bounds.

RFC 8259 leaves open what a name means that stands twice, and how large numbers and
nesting may be; two readers of one signed text must never differ, so that here all
of it is refused, and so are NaN, infinities and lone surrogates.
"""

from __future__ import annotations

import json
from typing import Final, NoReturn

from ..wire.errors import MalformedError

DEFAULT_MAX_DEPTH: Final = 12
MAX_ENTRIES: Final = 20_000
# 2^64 has 20 digits; nothing in a token, a key set or a manifest needs more.
_MAX_DIGITS: Final = 20


def read_json(data: bytes, *, max_bytes: int, max_depth: int = DEFAULT_MAX_DEPTH) -> object:
    """Return what a JSON text in UTF-8 says.

    :param max_bytes: a longer text is refused unread.
    :param max_depth: how deeply objects and arrays may nest; a bare value has depth 0.
    :raises MalformedError: ``TOO_LARGE``, ``TOO_DEEP``, ``DUPLICATE_KEY`` or ``BAD_JSON``.
    """
    if len(data) > max_bytes:
        raise MalformedError("TOO_LARGE", f"the JSON has more than {max_bytes} bytes")
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_int=_integer,
            parse_float=_fraction,
        )
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError:  # not UTF-8, not JSON
        raise MalformedError("BAD_JSON", "a text is not JSON") from None
    _check(value, max_depth)
    return value


def read_json_object(data: bytes, *, max_bytes: int, max_depth: int = DEFAULT_MAX_DEPTH) -> dict[str, object]:
    """Return what a JSON text in UTF-8 says that must be an object.

    :raises MalformedError: as :func:`read_json`; ``BAD_JSON`` where it is no object.
    """
    value = read_json(data, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):
        raise MalformedError("BAD_JSON", "a JSON text is not an object")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("DUPLICATE_KEY", "a JSON object names a field twice")
    return found


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError("out of range")
    return value


def _check(value: object, max_depth: int) -> None:
    """Hold every text and the nesting to the bounds, without recursion."""
    entries = 0
    level: list[object] = [value]
    for _ in range(max_depth + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        entries += len(below)
        if entries > MAX_ENTRIES:
            raise MalformedError("TOO_LARGE", f"a JSON text has more than {MAX_ENTRIES} entries")
        if not any(isinstance(item, dict | list) for item in level):
            return
        level = below
    raise _too_deep(max_depth)


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedError("BAD_JSON", "a JSON text has a lone surrogate") from None


def _too_deep(max_depth: int) -> MalformedError:
    return MalformedError("TOO_DEEP", f"a JSON text nests deeper than {max_depth}")
