"""The ``cbor`` serializer of kombu: raw bytes on all transports, no JSON, never pickle."""

from __future__ import annotations

from typing import Final

from kombu.serialization import register

from ..wire.encoding import decode, encode

NAME: Final = "cbor"
CONTENT_TYPE: Final = "application/cbor"
#: Above the largest pack; the broker profiles' inline limits are far below.
MAX_BODY_BYTES: Final = 160 << 20


def _load(data: bytes | memoryview | str) -> object:
    raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    return decode(raw, max_bytes=MAX_BODY_BYTES)


def register_cbor() -> None:
    """Register the serializer (harmless when repeated)."""
    register(NAME, encode, _load, content_type=CONTENT_TYPE, content_encoding="binary")
