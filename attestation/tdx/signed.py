"""Collateral that Intel signs as JSON: the text as it was signed, and readers of its fields.

Intel, "PCS API v4": the signature is ECDSA P-256 with SHA-256 over the inner object exactly as it stands in
the body, r ‖ s in hexadecimal. The text is therefore kept, and nothing is ever written out again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ...wire.errors import MalformedError
from ..strict_json import read_json_object

MAX_JSON_BYTES: Final = 131_072  # recorded TCB infos: 2 to 7 KB
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,128}")
_ADVISORY: Final = re.compile(r"[A-Z0-9-]{1,32}")
MAX_LEVELS: Final = 128


@dataclass(frozen=True, slots=True)
class Signed:
    """A text and who is said to have signed it.

    :param text: the inner object, as signed. :param signature: r ‖ s, 64 bytes.
    :param chain: DER, the signer and the root; empty where no chain came along.
    """

    text: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)


def split_body(data: bytes, name: str, chain: tuple[bytes, ...]) -> Signed:
    """Take the signed text out of a PCS answer, byte for byte.

    :param name: of the inner object, e.g. ``"tcbInfo"``.
    :raises MalformedError: ``BAD_COLLATERAL``, or as :func:`~..strict_json.read_json`.
    """
    form = rb'\s*\{\s*"%s"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*'
    whole = read_json_object(data, max_bytes=MAX_JSON_BYTES)
    parts = re.fullmatch(form % name.encode(), data, re.DOTALL)
    if parts is None or set(whole) != {name, "signature"}:
        raise bad_collateral()
    # The inner text must be one object, and the one that a reader of the whole body sees.
    if read_json_object(parts[1], max_bytes=MAX_JSON_BYTES) != whole[name]:
        raise bad_collateral()
    return Signed(parts[1], bytes.fromhex(parts[2].decode()), chain)


class Fields:
    """Fields of a JSON object, with types and bounds."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise bad_collateral()
        self._values: dict[str, object] = value

    def has(self, name: str) -> bool:
        """Return whether it is there."""
        return name in self._values

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a text that matches whole."""
        value = self._values.get(name)
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise bad_collateral()
        return value

    def octets(self, name: str, size: int) -> bytes:
        """Return bytes that are written in hexadecimal."""
        value = bytes.fromhex(self.text(name, _HEX))
        if len(value) != size:
            raise bad_collateral()
        return value

    def number(self, name: str, most: int) -> int:
        """Return a number from 0."""
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise bad_collateral()
        return value

    def time(self, name: str) -> int:
        """Return Unix seconds."""
        text = self.text(name, _TIME)
        try:
            return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            raise bad_collateral() from None

    def fields(self, name: str) -> Fields:
        """Return an inner object."""
        return Fields(self._values.get(name))

    def several(self, name: str) -> tuple[Fields, ...]:
        """Return a list of objects, at most :data:`MAX_LEVELS`."""
        value = self._values.get(name)
        if not isinstance(value, list) or len(value) > MAX_LEVELS:
            raise bad_collateral()
        return tuple(Fields(one) for one in value)

    def advisories(self) -> tuple[str, ...]:
        """Return ``advisoryIDs``, empty where there are none."""
        value = self._values.get("advisoryIDs", [])
        if not isinstance(value, list) or len(value) > MAX_LEVELS:
            raise bad_collateral()
        if not all(isinstance(one, str) and _ADVISORY.fullmatch(one) for one in value):
            raise bad_collateral()
        return tuple(map(str, value))


def bad_collateral() -> MalformedError:
    """Return the error for collateral that does not follow its format."""
    return MalformedError("BAD_COLLATERAL", "collateral does not follow its format")
