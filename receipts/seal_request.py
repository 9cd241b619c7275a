"""Asking a worker to seal a batch, and its answer in the blob store (spec/batch.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..wire.encoding import decode, encode
from ..wire.errors import MalformedError
from ..wire.fields import Fields
from ..wire.pack import PackReference
from .batch_statement import MAX_STATEMENT_BYTES

VERSION: Final = 1
MAX_BATCH_FILE_BYTES: Final = 64 << 20
MAX_ANSWER_BYTES: Final = 4096
_PREFIX: Final = b"\x83\x02"  # an array of three that begins with 2


def encode_seal_request(file: PackReference) -> bytes:
    """Return the argument of a message, ``[2, sha256, size]``, for a batch file in the blob store."""
    return encode([2, file.digest, file.size])


def decode_seal_request(message: bytes) -> PackReference | None:
    """Read a message's argument; None when it is no seal request.

    :raises MalformedError: when it is a bad one.
    """
    if not message.startswith(_PREFIX):
        return None
    match decode(message, max_bytes=64):
        case [_, bytes() as digest, int() as size] if len(digest) == 32 and type(size) is int:
            if 0 < size <= MAX_BATCH_FILE_BYTES:
                return PackReference(digest, size)
    raise MalformedError("WRONG_TYPE", "a seal request is not of its form")


def answer_key(digest: bytes) -> str:
    """Return where the answer for a batch file lies in the blob store."""
    return f"batches/{digest.hex()}"


@dataclass(frozen=True, slots=True)
class SealAnswer:
    """A statement, or why there is none. Not signed itself: a refusal proves nothing."""

    statement: bytes = b""
    code: str = ""
    detail: str = ""

    def encode(self) -> bytes:
        """Return the deterministic CBOR."""
        if self.statement:
            return encode({1: VERSION, 2: self.statement})
        return encode({1: VERSION, 3: self.code, 4: self.detail[:1000]})

    @classmethod
    def decode(cls, data: bytes) -> SealAnswer:
        """Read an answer.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_ANSWER_BYTES), "seal answer", range(1, 5))
        fields.version(1, VERSION)
        if 2 in fields:
            return cls(statement=fields.octets(2, 1, MAX_STATEMENT_BYTES))
        return cls(code=fields.text(3, 1, 64), detail=fields.text(4, 0, 2000))
