"""A batch and its outcomes, of any size."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.receipts.batch_statement import BatchHead, BatchStatement, make_batch_statement
from ephemeralml.receipts.batch_verify import write_batch
from ephemeralml.receipts.inclusion import sign_root
from ephemeralml.receipts.merkle import leaf_hash, tree_root
from ephemeralml.receipts.outcome import Outcome, make_outcome, peek_outcome

from ..receipts.samples import KEY, NOW, OUTCOME, PUBLIC

__all__ = [
    "BATCH",
    "KEY",
    "NOW",
    "OTHER_KEY",
    "POOL",
    "PUBLIC",
    "file",
    "head",
    "outcome",
    "outcomes",
    "sealed",
]

BATCH = b"\x03" * 16
POOL = "minilm"
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)


def head(count: int) -> BatchHead:
    """The head of a batch of so many items."""
    return BatchHead(BATCH, POOL, count, b"\x05" * 32)


def outcome(index: int) -> Outcome:
    """One item's outcome; every fifth failed."""
    base = replace(OUTCOME, job_id=index.to_bytes(16, "big"), batch_id=BATCH, index=index, pool=POOL)
    return replace(base, status="failed", code="ENGINE_FAILED", receipt_hash=None) if index % 5 == 4 else base


def outcomes(count: int) -> list[bytes]:
    """Signed outcomes of a whole batch."""
    return [make_outcome(outcome(index), KEY) for index in range(count)]


def sealed(signed: list[bytes], of: BatchHead | None = None) -> bytes:
    """The statement over outcomes, made without any check."""
    found = of or head(len(signed))
    root = tree_root(map(leaf_hash, signed))
    statement = BatchStatement(
        head=found,
        output_root=root,
        counts=Counter(peek_outcome(data).status for data in signed),
        iat=NOW,
        attestation_doc_hash=OUTCOME.attestation_doc_hash,
        root_signature=sign_root(found, root, KEY),
    )
    return make_batch_statement(statement, KEY)


def file(signed: list[bytes], of: BatchHead | None = None) -> io.BytesIO:
    """The batch file."""
    return io.BytesIO(b"".join(write_batch(of or head(len(signed)), signed)))
