"""Chunks: sealed pieces of a text, sent ahead of the result that holds all of it.

A chunk is a message of its own on the reply queue, sealed to the reply key with the purpose
``chunk``. Its public header {job id, run, index, last} is authenticated; its content is bound
to the job's secret salt besides, so that only who could open the job can make one. All chunks
have one size, whatever they hold. They never replace the result (spec/stream.md).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .encoding import decode, encode
from .errors import MalformedError, VerificationError
from .fields import Fields
from .header import MAX_HEADER_BYTES, check_pool
from .job import MAX_INPUTS
from .sealing import IV_BYTES, Sealed, Sealer

VERSION: Final = 1
FORM: Final = 2
RUN_BYTES: Final = 8
#: Length of every chunk's content before sealing.
CHUNK_BYTES: Final = 1024
#: Of these so many are left for texts, each of which costs ``DELTA_BYTES`` more.
TEXT_BYTES: Final = 976
DELTA_BYTES: Final = 7
MAX_CHUNKS: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = 8192
_LABEL: Final = "ephemeralml/1 chunk"
_MARK: Final = encode([FORM, 0, 0, 0, 0])[:2]

Deltas = tuple[tuple[int, str], ...]
"""Pieces of text in order, each with the place of the input that it answers."""


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The public header of a chunk.

    :param job_id: 16 bytes. :param key_id: 32 bytes, of the client's reply key.
    :param run: 8 random bytes: chunks of one run belong together, a job that is run again has others.
    :param index: counts from 0 within the run. :param last: all text of the run has been sent.
    """

    job_id: bytes
    pool: str
    key_id: bytes
    run: bytes
    index: int
    last: bool

    def encode(self) -> bytes:
        """Return the deterministic CBOR of the header."""
        common = {1: VERSION, 2: self.job_id, 3: self.pool, 4: self.key_id}
        return encode({**common, 9: self.run, 10: self.index, 11: self.last})

    @classmethod
    def decode(cls, data: bytes) -> ChunkHeader:
        """Read a chunk's header.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_HEADER_BYTES), "chunk header", (1, 2, 3, 4, 9, 10, 11))
        fields.version(1, VERSION)
        return cls(
            job_id=fields.octets(2, 16),
            pool=check_pool(fields.text(3, 1, 63)),
            key_id=fields.octets(4, 32),
            run=fields.octets(9, RUN_BYTES),
            index=fields.uint(10, maximum=MAX_CHUNKS - 1),
            last=fields.required(11, bool),
        )


def seal_chunk(sealer: Sealer, salt: bytes, header: ChunkHeader, deltas: Deltas) -> bytes:
    """Return a chunk as a message's argument.

    :param sealer: to the reply key, with the purpose ``chunk``. :param salt: the job's.
    :raises MalformedError: ``CHUNK_TOO_LARGE``. :raises SealingError: it cannot be sealed.
    """
    head = header.encode()
    content = encode([_tag(salt, head, deltas), [list(delta) for delta in deltas]])
    if len(content) > CHUNK_BYTES - 2:
        raise MalformedError("CHUNK_TOO_LARGE", "the texts do not fit into one chunk")
    framed = (len(content).to_bytes(2, "big") + content).ljust(CHUNK_BYTES, b"\0")
    sealed = sealer.seal(head, framed)
    return encode([FORM, head, sealed.recipient, sealed.iv, sealed.ciphertext])


def is_chunk(message: bytes) -> bool:
    """Return whether a message's argument says that it is a chunk (nothing more is known of it)."""
    return message[:2] == _MARK


def decode_chunk(message: bytes) -> tuple[bytes, Sealed]:
    """Return a chunk's header bytes and what is sealed under them.

    :raises MalformedError: when it is anything else.
    """
    value = decode(message, max_bytes=MAX_MESSAGE_BYTES)
    if isinstance(value, list) and len(value) == 5 and type(value[0]) is int and value[0] == FORM:
        head, recipient, iv, ciphertext = value[1:]
        if all(isinstance(part, bytes) for part in value[1:]) and len(iv) == IV_BYTES:
            return head, Sealed(recipient, iv, ciphertext)
    raise MalformedError("WRONG_TYPE", "a chunk is not of its form")


def read_deltas(salt: bytes, header: bytes, plaintext: bytes) -> Deltas:
    """Return the texts of an opened chunk.

    :param header: its bytes, as they travelled. :param plaintext: what the opener returned.
    :raises MalformedError: when it is anything else.
    :raises VerificationError: ``CHUNK_NOT_OF_JOB``: made by somebody who does not know the job.
    """
    size = int.from_bytes(plaintext[:2], "big")
    content, fill = plaintext[2 : 2 + size], plaintext[2 + size :]
    if len(plaintext) != CHUNK_BYTES or len(content) != size or fill.strip(b"\0"):
        raise MalformedError("PADDING", "a chunk is not of the one size")
    value = decode(content, max_bytes=CHUNK_BYTES)
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        raise MalformedError("WRONG_TYPE", "a chunk's content is not of its form")
    deltas = tuple(map(_delta, value[1]))
    if not isinstance(value[0], bytes) or not hmac.compare_digest(value[0], _tag(salt, header, deltas)):
        raise VerificationError("CHUNK_NOT_OF_JOB", "a chunk is of another job")
    return deltas


def fill(pending: Sequence[tuple[int, str]]) -> tuple[Deltas, list[tuple[int, str]]]:
    """Split texts into what fits into one chunk and the rest; characters stay whole."""
    left, taken = TEXT_BYTES, []
    for place, (index, text) in enumerate(pending):
        left -= DELTA_BYTES
        piece = text.encode()[: max(left, 0)].decode(errors="ignore")
        if piece:
            taken.append((index, piece))
            left -= len(piece.encode())
        if piece != text:
            return tuple(taken), [(index, text[len(piece) :]), *pending[place + 1 :]]
    return tuple(taken), []


def _tag(salt: bytes, header: bytes, deltas: Deltas) -> bytes:
    return hmac.digest(salt, encode([_LABEL, header, [list(delta) for delta in deltas]]), hashlib.sha256)


def _delta(item: object) -> tuple[int, str]:
    if not isinstance(item, list) or [type(part) for part in item] != [int, str]:
        raise MalformedError("WRONG_TYPE", "a chunk's text is not of its form")
    if not 0 <= item[0] < MAX_INPUTS:
        raise MalformedError("OUT_OF_BOUNDS", "a chunk's text is of no input")
    return item[0], item[1]
