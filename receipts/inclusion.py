"""Inclusion receipts: one outcome's place in a batch, as a COSE Receipt (RFC 9942).

The payload, detached, is the output root; the proof leads from the outcome to it. The
profile (Ed25519, one proof, closed headers) is in spec/batch.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.cose import COSE_SIGN1_TAG, sig_structure, verify_ed25519
from ..wire.encoding import Tag, decode, encode
from ..wire.errors import MalformedError, VerificationError
from ..wire.fields import Fields
from ..wire.header import MAX_BATCH_ITEMS, check_pool
from .batch_statement import SIGNATURE_BYTES, BatchHead, BatchStatement
from .merkle import HASH_BYTES, inclusion_path, leaf_hash, root_from_path
from .outcome import Outcome, peek_outcome

CONTENT_TYPE: Final = "application/vnd.ephemeralml.batch-root+cbor"
MAX_RECEIPT_BYTES: Final = 4096
MAX_PATH: Final = 64
# RFC 9942: verifiable data structure (395: 1 is RFC9162_SHA256), its proofs (396), inclusion (-1).
VDS: Final = 395
VDP: Final = 396
INCLUSION: Final = -1
RFC9162_SHA256: Final = 1
CWT_CLAIMS: Final = 15  # RFC 9597


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """A proof as RFC 9942 encodes it: number of leaves, the leaf's index, its path upwards."""

    size: int
    index: int
    path: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the deterministic CBOR array (RFC 9942, section 5.2.1)."""
        return encode([self.size, self.index, list(self.path)])

    @classmethod
    def decode(cls, data: bytes) -> InclusionProof:
        """Read a proof; says nothing about where it leads.

        :raises MalformedError: when it is anything else.
        """
        value = decode(data, max_bytes=MAX_RECEIPT_BYTES)
        if not isinstance(value, list) or [type(part) for part in value] != [int, int, list]:
            raise MalformedError("BAD_INCLUSION_PROOF", "an inclusion proof is [size, index, path]")
        size, index, path = value
        if not 0 <= index < size or len(path) > MAX_PATH:
            raise MalformedError("BAD_INCLUSION_PROOF", "an inclusion proof's numbers are out of bounds")
        if any(type(part) is not bytes or len(part) != HASH_BYTES for part in path):
            raise MalformedError("BAD_INCLUSION_PROOF", "a path is made of 32-byte hashes")
        return cls(size, index, tuple(path))


@dataclass(frozen=True, slots=True)
class Included:
    """What a verified inclusion receipt shows: this outcome stands at this place of this batch."""

    batch_id: bytes
    pool: str
    size: int
    index: int
    root: bytes
    outcome: Outcome


def _protected(batch_id: bytes, pool: str, size: int) -> bytes:
    # The size is signed too: paths of neighbouring sizes can lead to the same root.
    claims = {1: pool, 2: f"{batch_id.hex()}.{size}"}
    return encode({1: -8, 3: CONTENT_TYPE, CWT_CLAIMS: claims, VDS: RFC9162_SHA256})


def sign_root(head: BatchHead, root: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the signature (64 bytes) that all inclusion receipts of a batch share."""
    return key.sign(sig_structure(_protected(head.batch_id, head.pool, head.count), root))


def make_inclusion_receipt(statement: BatchStatement, leaves: Sequence[bytes], index: int) -> bytes:
    """Return the inclusion receipt of one item; anybody who has all outcomes can make it.

    :param leaves: leaf hashes of all outcomes, in index order.
    :raises MalformedError: ``OUT_OF_BOUNDS``.
    """
    proof = InclusionProof(len(leaves), index, inclusion_path(leaves, index)).encode()
    head = statement.head
    protected = _protected(head.batch_id, head.pool, head.count)
    parts: list[object] = [protected, {VDP: {INCLUSION: [proof]}}, None, statement.root_signature]
    return encode(Tag(COSE_SIGN1_TAG, parts))


def verify_inclusion_receipt(receipt: bytes, outcome: bytes, public_key: bytes) -> Included:
    """Verify that an outcome statement is part of a sealed batch.

    The outcome's own signature is the outcome's matter (:func:`.outcome.verify_outcome`).

    :param public_key: raw Ed25519 key, 32 bytes, of the worker that sealed the batch.
    :raises MalformedError: not an inclusion receipt or outcome.
    :raises VerificationError: another outcome, another batch, or not signed by this key.
    """
    protected, proof, signature = _parse(receipt)
    batch_id, pool = _claims(protected, proof.size)
    root = root_from_path(proof.index, proof.size, leaf_hash(outcome), proof.path)
    verify_ed25519(public_key, sig_structure(protected, root), signature)
    found = peek_outcome(outcome)
    if (found.batch_id, found.pool, found.index) != (batch_id, pool, proof.index):
        raise VerificationError("FOREIGN", "the outcome is of another batch or place")
    return Included(batch_id, pool, proof.size, proof.index, root, found)


def _parse(receipt: bytes) -> tuple[bytes, InclusionProof, bytes]:
    outer = decode(receipt, max_bytes=MAX_RECEIPT_BYTES, tags=(COSE_SIGN1_TAG,))
    parts = outer.value if isinstance(outer, Tag) else None
    if not isinstance(parts, list) or len(parts) != 4:
        raise MalformedError("COSE_SHAPE", "an inclusion receipt is a tagged COSE_Sign1")
    protected, unprotected, payload, signature = parts
    if not isinstance(protected, bytes) or payload is not None or not isinstance(signature, bytes):
        raise MalformedError("COSE_SHAPE", "an inclusion receipt's payload is detached")
    if len(signature) != SIGNATURE_BYTES:
        raise MalformedError("COSE_SHAPE", "an inclusion receipt's signature has 64 bytes")
    proofs = Fields(unprotected, "unprotected header", (VDP,)).required(VDP, dict)
    proof = Fields(proofs, "proofs", (INCLUSION,)).items(INCLUSION, 1, 1)[0]
    if not isinstance(proof, bytes):
        raise MalformedError("BAD_INCLUSION_PROOF", "an inclusion proof is a byte string")
    decoded = InclusionProof.decode(proof)
    if decoded.size > MAX_BATCH_ITEMS:
        raise MalformedError("BAD_INCLUSION_PROOF", "a batch holds at most 50,000 items")
    return protected, decoded, signature


def _claims(protected: bytes, size: int) -> tuple[bytes, str]:
    fields = Fields(
        decode(protected, max_bytes=MAX_RECEIPT_BYTES), "protected header", (1, 3, CWT_CLAIMS, VDS)
    )
    claims = Fields(fields.required(CWT_CLAIMS, dict), "claims", (1, 2))
    pool, subject = check_pool(claims.text(1, 1, 63)), claims.text(2, 34, 38)
    try:
        batch_id = bytes.fromhex(subject[:32])
    except ValueError:
        batch_id = b""
    if len(batch_id) != 16 or protected != _protected(batch_id, pool, size):
        raise MalformedError("BAD_PROTECTED_HEADER", "not the protected header of this inclusion receipt")
    return batch_id, pool
