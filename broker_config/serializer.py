"""The ``cbor`` serializer of kombu: raw bytes on all transports, no JSON, never pickle.

Only two bodies exist: the bytes of a reply, and Celery's ``[[message], {}, embed]`` with
one argument of bytes and nothing embedded. Whatever else a host puts on a queue (other
arguments, callbacks, chains) is refused before Celery sees it.
"""

from __future__ import annotations

from typing import Final

from kombu.serialization import register

from ..wire.encoding import decode, encode
from ..wire.errors import MalformedError

NAME: Final = "cbor"
CONTENT_TYPE: Final = "application/cbor"
#: Above the largest inline limit and its frame.
MAX_BODY_BYTES: Final = (64 << 20) + 4096
_EMBEDDED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def load_body(data: bytes | memoryview | str) -> object:
    """Return a message's body.

    :raises MalformedError: not one of the two bodies, or not deterministic CBOR.
    """
    raw = data.encode("latin-1", "replace") if isinstance(data, str) else bytes(data)
    match decode(raw, max_bytes=MAX_BODY_BYTES):
        case bytes() as body:
            return body
        case [[bytes() as message], kwargs, embed] if kwargs == {} and embed == _EMBEDDED:
            return [[message], {}, embed]
    raise MalformedError("BAD_BODY", "a message is not of this system's form")


def register_cbor() -> None:
    """Register the serializer (harmless when repeated)."""
    register(NAME, encode, load_body, content_type=CONTENT_TYPE, content_encoding="binary")
