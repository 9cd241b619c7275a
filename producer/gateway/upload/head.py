"""What stands first in an upload: for which pool, which batch, how many jobs, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ....attestation.strict_json import read_json_object
from ....wire.encoding import decode
from ....wire.errors import MalformedError
from ....wire.fields import Fields
from ....wire.header import MAX_BATCH_ITEMS, check_pool
from ..store.staging import Upload

VERSION: Final = 1
MAX_HEAD_BYTES: Final = 16_384
MIN_WINDOW_S: Final = 60
MAX_WINDOW_S: Final = 14 * 86_400
MAX_METADATA: Final = 16
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512

#: Field numbers of the CBOR form, and the names of the JSON form in the same order.
NAMES: Final = {
    "version": 1,
    "pool": 2,
    "batch_id": 3,
    "jobs": 4,
    "window_s": 5,
    "input_root": 6,
    "metadata": 7,
}


def cbor_head(item: bytes, key: str | None) -> Upload:
    """Read the head of a CBOR sequence.

    :param key: the request's idempotency key.
    :raises MalformedError: when it is anything else.
    """
    return _head(decode(item, max_bytes=MAX_HEAD_BYTES), key)


def json_head(line: bytes, key: str | None) -> Upload:
    """Read the head of an upload of JSON lines; its byte strings are hexadecimal.

    :raises MalformedError: when it is anything else.
    """
    value = read_json_object(line, max_bytes=MAX_HEAD_BYTES)
    fields: dict[object, object] = {}
    for name, item in value.items():
        if name not in NAMES:
            raise MalformedError("UNKNOWN_FIELD", "the upload's head has an unknown field")
        fields[NAMES[name]] = _octets(item) if name in ("batch_id", "input_root") else item
    return _head(fields, key)


def _octets(value: object) -> bytes:
    if isinstance(value, str) and value.isascii() and value == value.lower():
        try:
            found = bytes.fromhex(value)
        except ValueError:
            found = b""
        if found.hex() == value:
            return found
    raise MalformedError("WRONG_TYPE", "batch_id and input_root are lower-case hexadecimal")


def _head(value: object, key: str | None) -> Upload:
    fields = Fields(value, "upload's head", NAMES.values())
    fields.version(1, VERSION)
    return Upload(
        pool=check_pool(fields.text(2, 1, 63)),
        batch_id=fields.octets(3, 16),
        jobs=_count(fields.uint(4)),
        window_s=_window(fields.uint(5)),
        input_root=fields.octets(6, 32) if 6 in fields else None,
        metadata=_metadata(fields.required(7, dict)) if 7 in fields else {},
        key=key,
    )


def _count(jobs: int) -> int:
    if jobs == 0:
        raise MalformedError("EMPTY_BATCH", "a batch has at least one job")
    if jobs > MAX_BATCH_ITEMS:
        raise MalformedError("TOO_MANY_JOBS", f"a batch has at most {MAX_BATCH_ITEMS} jobs")
    return jobs


def _window(seconds: int) -> int:
    if not MIN_WINDOW_S <= seconds <= MAX_WINDOW_S:
        raise MalformedError("BAD_WINDOW", f"a completion window is {MIN_WINDOW_S} to {MAX_WINDOW_S} seconds")
    return seconds


def _metadata(value: Mapping[object, object]) -> dict[str, str]:
    good = len(value) <= MAX_METADATA and all(
        is_label(name, MAX_METADATA_KEY) and is_label(text, MAX_METADATA_VALUE, minimum=0)
        for name, text in value.items()
    )
    if not good:
        raise MalformedError(
            "BAD_METADATA",
            f"metadata are at most {MAX_METADATA} printable texts under names, "
            f"{MAX_METADATA_KEY} characters a name, {MAX_METADATA_VALUE} a text",
        )
    return {str(name): str(text) for name, text in value.items()}


def is_label(value: object, maximum: int, *, minimum: int = 1) -> bool:
    """Return whether a value is printable text of ``minimum`` to ``maximum`` characters on one line."""
    return isinstance(value, str) and minimum <= len(value) <= maximum and value.isprintable()
