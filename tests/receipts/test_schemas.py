"""What the code writes follows the CDDL of spec/, and what breaks a rule does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from jsonschema import Draft202012Validator
from pycddl import Schema, ValidationError

from ephemeralml.attestation.evidence import Measurements
from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.outcome import make_outcome
from ephemeralml.receipts.report import LEVELS, LIMITS, to_json, to_json_value, to_markdown, to_text
from ephemeralml.receipts.verify import assess, verify_receipt
from ephemeralml.wire.cose import Sign1, decode_sign1

from ..vectors import generate_air
from .samples import CLAIMS, EVALUATION, KEY, NOW, OUTCOME, POLICY, PUBLIC, appraisal, evidence

SPEC = Path(__file__).resolve().parents[2] / "spec"
RECEIPT = issue(CLAIMS, KEY)
BARE = replace(CLAIMS, eat_nonce=None, model_hash_scheme=None)
TDX = replace(
    CLAIMS, enclave_measurements=Measurements("tdx-mrtd-rtmr", {f"pcr{i}": bytes([i]) * 48 for i in range(5)})
)
SHOWN = assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence(), appraisal=appraisal())
REPORTED = [
    SHOWN,
    verify_receipt(RECEIPT, PUBLIC, POLICY, NOW),
    verify_receipt(issue(BARE, KEY), PUBLIC, None, NOW),
    verify_receipt(issue(EVALUATION, KEY), PUBLIC, None, NOW),
    verify_receipt(b"", PUBLIC, None, NOW),
]


def rule(file: str, root: str) -> Callable[[bytes], object]:
    text = (SPEC / file).read_text(encoding="utf-8")
    schema = Schema(f"root = {root}\n{text}")
    validate: Callable[[bytes], object] = schema.validate_cbor
    return validate


def parts(data: bytes) -> Sign1:
    return decode_sign1(data)


@pytest.mark.parametrize("claims", [CLAIMS, BARE, TDX, EVALUATION])
def test_receipts_follow_their_schema(claims: object) -> None:
    data = issue(claims, KEY)  # type: ignore[arg-type]
    message = parts(data)
    rule("air-v1.cddl", "air-envelope")(data)
    rule("air-v1.cddl", "air-protected")(message.protected_bytes)
    rule("air-v1.cddl", "air-claims")(message.payload)


@pytest.mark.parametrize(
    "outcome",
    [
        OUTCOME,
        replace(OUTCOME, batch_id=None, index=None),
        replace(OUTCOME, status="failed", code="ENGINE_FAILED", receipt_hash=None),
        replace(OUTCOME, status="expired", code="EXPIRED", receipt_hash=None),
    ],
)
def test_outcomes_follow_their_schema(outcome: object) -> None:
    data = make_outcome(outcome, KEY)  # type: ignore[arg-type]
    message = parts(data)
    rule("outcome.cddl", "outcome-envelope")(data)
    rule("outcome.cddl", "outcome-protected")(message.protected_bytes)
    rule("outcome.cddl", "outcome-payload")(message.payload)


# CDDL cannot state the first. The others it states, and pycddl 0.6.4 does not hold them: a control on the
# wrong type passes, a byte string against a text literal panics, and a choice of maps is not closed.
BEYOND_THE_CHECKER = {
    "claim-zero-cti",
    *(f"claim-type-{name}" for name in ("iss", "model_id", "model_version", "policy_version")),
    "claim-type-security_mode",
    "closed-text-slot",
    "closed-type-bytes",
    "closed-tdx-pcr8",
}


def test_the_schema_refuses_what_layer_3_refuses() -> None:
    check = rule("air-v1.cddl", "air-claims")
    for vector in (*generate_air.claim_faults(), *generate_air.closed_map_faults()):
        payload = parts(bytes.fromhex(str(vector["receipt_hex"]))).payload
        if vector["name"] in BEYOND_THE_CHECKER:
            continue
        with pytest.raises(ValidationError):
            check(payload)


def test_the_schema_accepts_every_sound_vector() -> None:
    check = rule("air-v1.cddl", "air-claims")
    for vector in generate_air.sound_ones():
        check(parts(bytes.fromhex(str(vector["receipt_hex"]))).payload)


def test_the_schema_refuses_outcomes_that_contradict_themselves() -> None:
    check = rule("outcome.cddl", "outcome-payload")
    good = cbor2.loads(OUTCOME.encode())
    for change in ({5: "X"}, {4: "failed"}, {9: 50_000}, {12: 1}, {3: "-"}, {1: 2}):
        with pytest.raises(ValidationError):
            check(cbor2.dumps({**good, **change}))


@pytest.mark.parametrize("verification", REPORTED)
def test_reports_follow_their_schema(verification: object) -> None:
    value = json.loads(to_json(verification))  # type: ignore[arg-type]
    assert value == to_json_value(verification)  # type: ignore[arg-type]
    rule("receipt-report.cddl", "receipt-report")(cbor2.dumps(value))


def json_schema() -> Draft202012Validator:
    schema = json.loads((SPEC / "receipt-report.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("verification", REPORTED)
def test_reports_follow_their_json_schema(verification: object) -> None:
    json_schema().validate(json.loads(to_json(verification)))  # type: ignore[arg-type]


def test_the_json_schema_covers_every_vector_and_platform() -> None:
    validator = json_schema()
    validator.validate(to_json_value(verify_receipt(issue(TDX, KEY), PUBLIC, None, NOW)))
    for name, text in generate_air.files().items():
        vector = json.loads(text)
        key = bytes.fromhex(vector.get("wrong_public_key_hex") or vector["public_key_hex"])
        found = verify_receipt(bytes.fromhex(vector["receipt_hex"]), key, None, NOW)
        assert validator.is_valid(to_json_value(found)), name


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"report_version": 2},
        {"verdict": "unsound"},
        {"level": "none"},
        {"codes": ["SIG_FAILED"]},
        {"claims": None},
        {"checks": []},
        {"receipt_sha256": "00"},
    ],
)
def test_the_json_schema_refuses_what_contradicts_itself(change: dict[str, object]) -> None:
    assert not json_schema().is_valid(to_json_value(SHOWN) | change)


@pytest.mark.parametrize("write", [to_text, to_markdown])
def test_reports_name_level_skipped_checks_and_limits(write: Callable[..., str]) -> None:
    for verification in REPORTED:
        text = write(verification)
        assert verification.verdict in text
        assert LEVELS[verification.level] in text
        assert all(limit in text for limit in LIMITS)
        assert all(f"/{check.name}" in text for check in verification.skipped)
        assert all(code in text for code in verification.codes)


def test_a_signer_cannot_write_markdown() -> None:
    nasty = replace(BARE, iss="a|b\n# <b>`x`</b> [l](j)", model_id="\u202eevil")
    text = to_markdown(verify_receipt(issue(nasty, KEY), PUBLIC, None, NOW))
    row = next(line for line in text.splitlines() if line.startswith("| iss "))
    assert "<b>" not in text
    assert "\u202e" not in text
    assert re.search(r"(?<!\\)[`\[\]]", row) is None
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_the_specification_names_every_code_and_check() -> None:
    prose = (SPEC / "air-v1.md").read_text(encoding="utf-8")
    source = "".join(
        file.read_text(encoding="utf-8")
        for file in (SPEC.parent / "receipts").glob("*.py")
        if file.stem in ("rules", "parse", "policy", "provenance")
    )
    codes = set(re.findall(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"', source))
    unknown = {code for code in codes if f"`{code}`" not in prose} - {"CBOR_NOT_DETERMINISTIC"}
    assert {code for code in unknown if not code.startswith(("CBOR_", "BAD_RECEIPT_POLICY"))} == set()
    assert {check.name for check in SHOWN.checks if f"`{check.name}`" not in prose} == set()
