"""Jobs as lines of JSON, for people without the SDK: the fields of a pack's entry in base64url."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ....attestation.strict_json import read_json_object
from ....wire.errors import MalformedError
from ....wire.header import MAX_HEADER_BYTES
from ....wire.pack import SealedJob
from ....wire.sealing import IV_BYTES, TAG_BYTES, Sealed
from .split import MAX_ITEM_BYTES, MAX_LINE_BYTES

MAX_RECIPIENT_BYTES: Final = 4096
_FIELDS: Final = frozenset({"custom_id", "header", "recipient", "iv", "ciphertext"})


def read_line(line: bytes) -> tuple[SealedJob, object]:
    """Return the sealed job of a line and its custom id, None where it has none.

    :raises MalformedError: when it is anything else.
    """
    value = read_json_object(line, max_bytes=MAX_LINE_BYTES, max_depth=1)
    if not value.keys() <= _FIELDS:
        raise MalformedError("UNKNOWN_FIELD", "a job's line has an unknown field")
    sealed = Sealed(
        _octets(value, "recipient", 1, MAX_RECIPIENT_BYTES),
        _octets(value, "iv", IV_BYTES, IV_BYTES),
        _octets(value, "ciphertext", TAG_BYTES, MAX_ITEM_BYTES),
    )
    return SealedJob(_octets(value, "header", 1, MAX_HEADER_BYTES), sealed), value.get("custom_id")


def _octets(value: dict[str, object], name: str, minimum: int, maximum: int) -> bytes:
    text = value.get(name)
    if not isinstance(text, str):
        raise MalformedError("MISSING_FIELD", f"a job's line needs {name} in base64url")
    found = unbase64(text)
    if not minimum <= len(found) <= maximum:
        raise MalformedError("OUT_OF_BOUNDS", f"{name} in a job's line is out of bounds")
    return found


def unbase64(text: str) -> bytes:
    """Return the bytes of base64url without padding (RFC 4648, section 5); one form only.

    :raises MalformedError: ``BAD_BASE64``.
    """
    try:
        found = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedError("BAD_BASE64", "a field is not base64url without padding") from None
    if to_base64(found) != text:
        raise MalformedError("BAD_BASE64", "a field is not base64url without padding")
    return found


def to_base64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
