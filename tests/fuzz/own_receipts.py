"""Fuzz targets of receipts and statements: as they come, and with claims that the right key signed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ephemeralml.receipts.batch_statement import (
    BatchHead,
    BatchStatement,
    make_batch_statement,
    verify_batch_statement,
)
from ephemeralml.receipts.checks import Verification
from ephemeralml.receipts.ear import issue_ear, result_of, verify_ear
from ephemeralml.receipts.inclusion import make_inclusion_receipt, sign_root, verify_inclusion_receipt
from ephemeralml.receipts.issue import CONTENT_TYPE, issue
from ephemeralml.receipts.merkle import leaf_hash, tree_root
from ephemeralml.receipts.outcome import Outcome, make_outcome, verify_outcome
from ephemeralml.receipts.verify import assess
from ephemeralml.wire.cose import decode_sign1, sign1
from ephemeralml.wire.errors import VerificationError

from ..receipts import samples
from .own_wire import there_and_back
from .target import Target

STATEMENT = BatchStatement(
    head=BatchHead(b"b" * 16, "minilm", 3, b"i" * 32),
    output_root=b"o" * 32,
    counts={"succeeded": 2, "failed": 1},
    iat=samples.NOW,
    attestation_doc_hash=b"a" * 32,
    root_signature=b"s" * 64,
)


@cache
def _receipts() -> list[bytes]:
    return [issue(claims, samples.KEY) for claims in (samples.CLAIMS, samples.EVALUATION)]


def _judge(receipt: bytes) -> Verification:
    found = assess(receipt, samples.PUBLIC, samples.POLICY, samples.NOW)
    if not found.passed:
        raise VerificationError(found.codes[0])
    return found


def _receipt(data: bytes) -> None:
    _judge(data)
    assert data in _receipts(), "a receipt that nobody signed passes"


def _claims(data: bytes) -> None:
    """Reach the layers behind the signature, which mutated receipts never do."""
    _judge(sign1(data, samples.KEY, protected={1: -8, 3: CONTENT_TYPE}))


def _outcome(data: bytes) -> None:
    verify_outcome(data, samples.PUBLIC)
    assert data == make_outcome(samples.OUTCOME, samples.KEY), "an outcome that nobody signed passes"


def _statement(data: bytes) -> None:
    verify_batch_statement(data, samples.PUBLIC)
    assert data == make_batch_statement(STATEMENT, samples.KEY), "a statement that nobody signed passes"


# ----------------------------------------------------------------- inclusion receipts and results

LEAVES = [leaf_hash(make_outcome(replace(samples.OUTCOME, index=place), samples.KEY)) for place in range(3)]
HEAD = BatchHead(b"\x03" * 16, "minilm", 3, b"i" * 32)


@cache
def _outcome_of_batch() -> bytes:
    return make_outcome(replace(samples.OUTCOME, index=1), samples.KEY)


@cache
def _inclusion() -> list[bytes]:
    root = tree_root(LEAVES)
    statement = replace(STATEMENT, head=HEAD, root_signature=sign_root(HEAD, root, samples.KEY))
    return [make_inclusion_receipt(statement, LEAVES, 1)]


def _included(data: bytes) -> None:
    found = verify_inclusion_receipt(data, _outcome_of_batch(), samples.PUBLIC)
    assert (found.index, found.size) == (1, 3), "an outcome is proven to stand elsewhere"


@cache
def _ears() -> list[bytes]:
    found = assess(_receipts()[0], samples.PUBLIC, samples.POLICY, samples.NOW)
    return [issue_ear(result_of(found, samples.NOW, build="1", nonce=b"n" * 8), samples.KEY)]


def _ear(data: bytes) -> None:
    verify_ear(data, samples.PUBLIC, samples.NOW)
    assert data in _ears(), "a result that nobody signed passes"


TARGETS = (
    Target("inclusion-receipt", _inclusion, _included),
    Target("ear", _ears, _ear),
    Target("receipt", _receipts, _receipt),
    Target("receipt-claims", lambda: [decode_sign1(one).payload for one in _receipts()], _claims),
    Target("outcome", lambda: [make_outcome(samples.OUTCOME, samples.KEY)], _outcome),
    Target(
        "outcome-fields",
        lambda: [samples.OUTCOME.encode()],
        there_and_back(Outcome.decode, Outcome.encode),
    ),
    Target("batch-statement", lambda: [make_batch_statement(STATEMENT, samples.KEY)], _statement),
    Target(
        "batch-statement-fields",
        lambda: [STATEMENT.encode()],
        there_and_back(BatchStatement.decode, BatchStatement.encode),
    ),
)
