"""Batch statement: every item of a batch has exactly one terminal outcome, signed in the TEE.

The client commits to its inputs before it seals them (:func:`input_leaf`); the TEE that
saw all outcomes states the root over them. Formats: spec/batch.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.cose import decode_sign1, sig_structure, sign1, verify_ed25519
from ..wire.encoding import decode, encode, sha256
from ..wire.errors import MalformedError
from ..wire.fields import Fields
from ..wire.header import MAX_BATCH_ITEMS, check_pool
from ..wire.job import Job
from .merkle import leaf_hash
from .outcome import STATUSES

CONTENT_TYPE: Final = "application/vnd.ephemeralml.batch+cbor"
VERSION: Final = 1
MAX_STATEMENT_BYTES: Final = 2048
MAX_HEAD_BYTES: Final = 256
SIGNATURE_BYTES: Final = 64
_HEADER: Final[dict[int, object]] = {1: -8, 3: CONTENT_TYPE}
_PROTECTED: Final = encode(_HEADER)


def request_commitment(job: Job) -> bytes:
    """Return SHA-256 of the canonical request bytes without field 10, the batch commitment itself."""
    return sha256(replace(job, batch=None).encode())


def input_leaf(index: int, commitment: bytes) -> bytes:
    """Return the leaf hash of one input: of ``encode([index, request commitment])``.

    :param commitment: :func:`request_commitment`, 32 bytes.
    """
    return leaf_hash(encode([index, commitment]))


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What the client committed to: batch id (16 bytes), pool, number of items, root over the inputs."""

    batch_id: bytes
    pool: str
    count: int
    input_root: bytes

    def encode(self) -> bytes:
        """Return the deterministic CBOR, read back before it is handed out.

        :raises MalformedError: when a field breaks the rules of spec/batch.md.
        """
        data = encode({1: VERSION, 2: self.batch_id, 3: self.pool, 4: self.count, 5: self.input_root})
        BatchHead.decode(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> BatchHead:
        """Read a head.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_HEAD_BYTES), "batch head", range(1, 6))
        fields.version(1, VERSION)
        return _head(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatement:
    """What the TEE states of a batch.

    :param output_root: over the outcome statements in index order, 32 bytes.
    :param counts: items by terminal status, without zeros. :param iat: Unix seconds.
    :param attestation_doc_hash: SHA-256 of the sealing worker's attestation document.
    :param root_signature: over the output root alone, for inclusion receipts (:mod:`.inclusion`).
    """

    head: BatchHead
    output_root: bytes
    counts: Mapping[str, int]
    iat: int
    attestation_doc_hash: bytes
    root_signature: bytes

    def encode(self) -> bytes:
        """Return the payload: deterministic CBOR, read back before it is handed out.

        :raises MalformedError: when a field breaks the rules of spec/batch.md.
        """
        data = encode(
            {
                1: VERSION,
                2: self.head.batch_id,
                3: self.head.pool,
                4: self.head.count,
                5: self.head.input_root,
                6: self.output_root,
                7: dict(self.counts),
                8: self.iat,
                9: self.attestation_doc_hash,
                10: self.root_signature,
            }
        )
        BatchStatement.decode(data)
        return data

    @classmethod
    def decode(cls, payload: bytes) -> BatchStatement:
        """Read a payload. Says nothing about its signature.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(payload, max_bytes=MAX_STATEMENT_BYTES), "batch statement", range(1, 11))
        fields.version(1, VERSION)
        head = _head(fields)
        counts = Fields(fields.required(7, dict), "batch counts", STATUSES)
        found: dict[str, int] = {
            status: counts.uint(status, minimum=1, maximum=head.count)
            for status in STATUSES
            if status in counts
        }
        if sum(found.values()) != head.count:
            raise MalformedError("BAD_COUNTS", "the counts do not add up to the number of items")
        return cls(
            head=head,
            output_root=fields.octets(6, 32),
            counts=found,
            iat=fields.uint(8, minimum=1),
            attestation_doc_hash=fields.octets(9, 32),
            root_signature=fields.octets(10, SIGNATURE_BYTES),
        )


def make_batch_statement(statement: BatchStatement, key: Ed25519PrivateKey) -> bytes:
    """Return the signed statement: a tagged COSE_Sign1 (RFC 9052, section 4.2).

    :param key: the receipt key of this TEE.
    :raises MalformedError: when a field breaks the rules; nothing is signed then.
    """
    return sign1(statement.encode(), key, protected=_HEADER)


def verify_batch_statement(data: bytes, public_key: bytes) -> BatchStatement:
    """Verify a statement's signature and return it; its items are not looked at.

    :param public_key: raw Ed25519 key, 32 bytes, of the worker whose evidence was verified.
    :raises MalformedError: not a batch statement. :raises VerificationError: not signed by this key.
    """
    payload = _verified(data, public_key)
    return BatchStatement.decode(payload)


def peek_batch_statement(data: bytes) -> BatchStatement:
    """Read a statement *without* verifying it, to find the evidence that its key is bound to.

    :raises MalformedError: not a batch statement.
    """
    return BatchStatement.decode(_verified(data, None))


def _verified(data: bytes, public_key: bytes | None) -> bytes:
    message = decode_sign1(data, max_bytes=MAX_STATEMENT_BYTES)
    # The header has one deterministic encoding, so comparing bytes checks labels, types and closedness.
    if message.protected_bytes != _PROTECTED:
        raise MalformedError("BAD_PROTECTED_HEADER", "not the protected header of a batch statement")
    if message.unprotected:
        raise MalformedError("NON_EMPTY_UNPROTECTED", "the unprotected header is not empty")
    if public_key is not None:
        signed = sig_structure(message.protected_bytes, message.payload)
        verify_ed25519(public_key, signed, message.signature)
    return message.payload


def _head(fields: Fields) -> BatchHead:
    return BatchHead(
        fields.octets(2, 16),
        check_pool(fields.text(3, 1, 63)),
        fields.uint(4, minimum=1, maximum=MAX_BATCH_ITEMS),
        fields.octets(5, 32),
    )
