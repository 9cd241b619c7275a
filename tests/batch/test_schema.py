"""What the code writes follows spec/batch.cddl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2
import pytest
from pycddl import Schema, ValidationError

from ephemeralml.receipts.batch_verify import verify_batch
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.encoding import encode

from .samples import PUBLIC, file, head, outcomes, sealed

TEXT = (Path(__file__).resolve().parents[2] / "spec" / "batch.cddl").read_text(encoding="utf-8")
SIGNED = outcomes(5)
STATEMENT = sealed(SIGNED)


def check(root: str, data: bytes) -> None:
    Schema(f"root = {root}\n{TEXT}").validate_cbor(data)


def test_statements_follow_their_schema() -> None:
    message = decode_sign1(STATEMENT)
    check("batch-envelope", STATEMENT)
    check("batch-protected", message.protected_bytes)
    check("batch-payload", message.payload)
    check("batch-head", head(5).encode())
    check("input-leaf", encode([0, bytes(32)]))


def test_inclusion_receipts_follow_their_schema() -> None:
    receipt = verify_batch(STATEMENT, PUBLIC, file(SIGNED), item=4).receipt
    assert receipt is not None
    check("inclusion-receipt", receipt)
    protected, unprotected, _, _ = cbor2.loads(receipt).value
    check("inclusion-protected", protected)
    check("inclusion-proof", unprotected[396][-1][0])


@pytest.mark.parametrize(
    "change",
    [
        {1: 2},
        {2: b""},
        {3: "-"},
        {4: 0},
        {4: 50_001},
        {5: b""},
        {7: {"failed": 0}},
        {8: 0},
        {10: b""},
        {11: 0},
    ],
)
def test_the_schema_refuses_what_the_code_refuses(change: dict[int, Any]) -> None:
    payload = cbor2.loads(decode_sign1(STATEMENT).payload)
    with pytest.raises(ValidationError):
        check("batch-payload", cbor2.dumps({**payload, **change}))
