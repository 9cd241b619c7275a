"""Packs: the unit of delivery. One pool, one or more sealed jobs (or replies).

Each distinct recipient block is stated once and referred to by its place. A pack
is parsed as a whole, its headers one by one: a bad job never harms its neighbours.

A message carries either the pack itself or, above the profile's inline limit, the
SHA-256 and size of a blob that is the pack (:class:`PackReference`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .encoding import decode, encode, sha256
from .errors import MalformedError
from .fields import Fields
from .header import MAX_HEADER_BYTES, check_pool
from .sealing import IV_BYTES, TAG_BYTES, Sealed

VERSION: Final = 1
DEFAULT_PACK_JOBS: Final = 32
MAX_PACK_ENTRIES: Final = 1024
MAX_PACK_BYTES: Final = 128 << 20
MAX_OUTCOME_BYTES: Final = 4096
_MAX_RECIPIENT: Final = 4096


@dataclass(frozen=True, slots=True)
class SealedJob:
    """A job as it travels: header bytes (not parsed yet) and the sealed message."""

    header: bytes
    sealed: Sealed

    @property
    def hash(self) -> bytes:
        """The job hash (spec/wire.md, section 8): what names a sealed job as it travels, 32 bytes."""
        digest = hashlib.sha256(sha256(self.header) + sha256(self.sealed.recipient) + self.sealed.iv)
        digest.update(self.sealed.ciphertext)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class SealedReply:
    """A reply as it travels: signed outcome, and for a success the result under its reply header."""

    job_id: bytes
    outcome: bytes
    header: bytes | None = None
    sealed: Sealed | None = None


@dataclass(frozen=True, slots=True)
class PackReference:
    """Where a pack lies that is too large for a message: SHA-256 (32 bytes) and size in bytes."""

    digest: bytes
    size: int


class _Recipients:
    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self._places: dict[bytes, int] = {}

    def add(self, sealed: Sealed) -> list[object]:
        place = self._places.setdefault(sealed.recipient, len(self.blocks))
        if place == len(self.blocks):
            self.blocks.append(sealed.recipient)
        return [place, sealed.iv, sealed.ciphertext]


def encode_jobs(pool: str, jobs: Sequence[SealedJob]) -> bytes:
    """Return a pack of 1 to 1024 jobs for one pool.

    :raises MalformedError: ``BAD_POOL`` or ``PACK_SIZE``.
    """
    recipients = _Recipients()
    entries = [[job.header, *recipients.add(job.sealed)] for job in jobs]
    return _encode(pool, recipients, entries)


def encode_replies(pool: str, replies: Sequence[SealedReply]) -> bytes:
    """Return a pack of 1 to 1024 replies from one pool.

    :raises MalformedError: ``BAD_POOL`` or ``PACK_SIZE``.
    """
    recipients = _Recipients()
    entries: list[list[object]] = []
    for reply in replies:
        sealed = None if reply.sealed is None else recipients.add(reply.sealed)
        entries.append([reply.job_id, reply.outcome, reply.header, sealed])
    return _encode(pool, recipients, entries)


def _encode(pool: str, recipients: _Recipients, entries: Sequence[object]) -> bytes:
    if not 1 <= len(entries) <= MAX_PACK_ENTRIES:
        raise MalformedError("PACK_SIZE", f"a pack holds 1 to {MAX_PACK_ENTRIES} entries")
    return encode({1: VERSION, 2: check_pool(pool), 3: recipients.blocks, 4: list(entries)})


def decode_jobs(data: bytes) -> tuple[str, tuple[SealedJob, ...]]:
    """Read a pack of jobs; headers stay unparsed.

    :raises MalformedError: when the pack as a whole is anything else.
    """
    pool, blocks, entries = _decode(data)
    return pool, tuple(_job(blocks, entry) for entry in entries)


def decode_replies(data: bytes) -> tuple[str, tuple[SealedReply, ...]]:
    """Read a pack of replies; outcomes and headers stay unparsed.

    :raises MalformedError: when the pack as a whole is anything else.
    """
    pool, blocks, entries = _decode(data)
    return pool, tuple(_reply(blocks, entry) for entry in entries)


def _decode(data: bytes) -> tuple[str, list[bytes], list[object]]:
    fields = Fields(decode(data, max_bytes=MAX_PACK_BYTES), "pack", range(1, 5))
    fields.version(1, VERSION)
    blocks = [_octets(block, 1, _MAX_RECIPIENT) for block in fields.items(3, 0, MAX_PACK_ENTRIES)]
    return check_pool(fields.text(2, 1, 63)), blocks, fields.items(4, 1, MAX_PACK_ENTRIES)


def _job(blocks: list[bytes], entry: object) -> SealedJob:
    header, *sealed = _parts(entry, 4)
    return SealedJob(_octets(header, 1, MAX_HEADER_BYTES), _sealed(blocks, sealed))


def _reply(blocks: list[bytes], entry: object) -> SealedReply:
    job_id, outcome, header, sealed = _parts(entry, 4)
    if (header is None) != (sealed is None):
        raise MalformedError("MISSING_FIELD", "a reply has header and result together or neither")
    return SealedReply(
        _octets(job_id, 16, 16),
        _octets(outcome, 1, MAX_OUTCOME_BYTES),
        None if header is None else _octets(header, 1, MAX_HEADER_BYTES),
        None if sealed is None else _sealed(blocks, _parts(sealed, 3)),
    )


def _sealed(blocks: list[bytes], parts: list[object]) -> Sealed:
    place, iv, ciphertext = parts
    if type(place) is not int or not 0 <= place < len(blocks):
        raise MalformedError("OUT_OF_BOUNDS", "a pack entry names no recipient of the pack")
    return Sealed(
        blocks[place], _octets(iv, IV_BYTES, IV_BYTES), _octets(ciphertext, TAG_BYTES, MAX_PACK_BYTES)
    )


def _parts(value: object, count: int) -> list[object]:
    if not isinstance(value, list) or len(value) != count:
        raise MalformedError("WRONG_TYPE", "a pack entry is not of its form")
    return value


def _octets(value: object, minimum: int, maximum: int) -> bytes:
    if not isinstance(value, bytes) or not minimum <= len(value) <= maximum:
        raise MalformedError("OUT_OF_BOUNDS", "a pack entry is not of its form")
    return value


def encode_message(body: bytes | PackReference) -> bytes:
    """Return the argument of a message: ``[0, pack]`` or ``[1, sha256, size]``."""
    return encode([0, body] if isinstance(body, bytes) else [1, body.digest, body.size])


def decode_message(data: bytes) -> bytes | PackReference:
    """Read a message's argument: the pack, or where it lies.

    :raises MalformedError: when it is anything else.
    """
    value = decode(data, max_bytes=MAX_PACK_BYTES + 16)
    match value:
        # Also by type: the literals would match false, true and floats, which are other bytes.
        case [0, bytes() as pack] if type(value[0]) is int:
            return pack
        case [1, bytes() as digest, int() as size] if type(value[0]) is int and type(size) is int:
            if len(digest) == 32 and 0 < size <= MAX_PACK_BYTES:
                return PackReference(digest, size)
    raise MalformedError("WRONG_TYPE", "a message is neither a pack nor a reference")
