"""Layers, order, levels, replay, and that no input raises."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.attestation.evidence import Measurements
from ephemeralml.receipts.checks import CHECKS, LAYERS
from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.policy import ReceiptPolicy
from ephemeralml.receipts.replay import MemoryReplayStore, ReplayStore, SqliteReplayStore
from ephemeralml.receipts.verify import assess, verify_receipt
from ephemeralml.wire.errors import ConfigurationError, EndorsementsError

from .samples import (
    CLAIMS,
    EVALUATION,
    KEY,
    NOW,
    OTHER_PUBLIC,
    POLICY,
    PUBLIC,
    SLOTS,
    appraisal,
    evidence,
)

RECEIPT = issue(CLAIMS, KEY)
EVERY_CHECK = sorted((layer, name) for layer, names in CHECKS.items() for name in names)


def statuses(verification: Any) -> dict[tuple[int, str], str]:
    assert sorted((one.layer, one.name) for one in verification.checks) == EVERY_CHECK
    layers = [one.layer for one in verification.checks]
    assert layers == sorted(layers)
    return {(one.layer, one.name): one.status for one in verification.checks}


@pytest.mark.parametrize(
    ("data", "key", "policy", "failing"),
    [
        (b"", PUBLIC, POLICY, 1),
        (RECEIPT, OTHER_PUBLIC, POLICY, 2),
        (RECEIPT, PUBLIC, replace(POLICY, expected_model_id="other"), 4),
    ],
)
def test_after_a_failed_layer_nothing_runs(
    data: bytes, key: bytes, policy: ReceiptPolicy, failing: int
) -> None:
    verification = assess(data, key, policy, NOW, verified_evidence=evidence(), appraisal=appraisal())
    assert verification.failed_layer == failing
    assert (verification.verdict, verification.level, verification.bound) == ("unsound", "none", False)
    for (layer, _), status in statuses(verification).items():
        if layer > failing:
            assert status == "not_run"
        elif layer < failing:
            assert status in ("passed", "skipped")


def test_all_faults_of_a_layer_are_reported() -> None:
    policy = replace(POLICY, expected_model_id="other", expected_request_hash=bytes(32), max_age_s=1)
    codes = verify_receipt(RECEIPT, PUBLIC, policy, NOW).codes
    assert codes == ("TIMESTAMP_STALE", "MODEL_ID_MISMATCH", "REQUEST_HASH_MISMATCH")


def test_levels() -> None:
    signed = verify_receipt(RECEIPT, PUBLIC, None, NOW)
    assert (signed.level, signed.bound) == ("signature", False)
    bound = verify_receipt(RECEIPT, PUBLIC, POLICY, NOW)
    assert (bound.level, bound.bound) == ("bound", True)
    shown = assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence(), appraisal=appraisal())
    assert (shown.level, shown.bound) == ("provenance", True)
    assert [one.name for one in shown.skipped] == ["REPLAY"]
    unbound = assess(RECEIPT, PUBLIC, None, NOW, verified_evidence=evidence(), appraisal=appraisal())
    assert (unbound.level, unbound.bound) == ("provenance", False)


def test_without_an_appraisal_there_is_no_provenance() -> None:
    verification = assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence())
    assert (verification.passed, verification.level) == (True, "bound")
    assert statuses(verification)[5, "APPRAISAL"] == "skipped"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"evidence_hash": b"\x01" * 32}, "ATTESTATION_DOC_HASH_MISMATCH"),
        ({"public_key": OTHER_PUBLIC}, "KEY_BINDING_FAILED"),
        ({"public_key": None}, "KEY_BINDING_FAILED"),
        ({"measurements": Measurements("nitro-pcr", {**SLOTS, "pcr1": bytes(48)})}, "MEASUREMENTS_MISMATCH"),
        ({"measurements": Measurements("nitro-pcr", {"pcr0": SLOTS["pcr0"]})}, "MEASUREMENTS_MISMATCH"),
        ({"measurements": Measurements("tdx-mrtd-rtmr", SLOTS)}, "MEASUREMENTS_MISMATCH"),
        ({"simulated": True}, "SECURITY_MODE_MISMATCH"),
        ({"debug": True}, "SECURITY_MODE_MISMATCH"),
    ],
)
def test_evidence_that_is_not_the_receipts_is_refused(change: dict[str, Any], code: str) -> None:
    document = evidence(**change)
    verification = assess(
        RECEIPT,
        PUBLIC,
        POLICY,
        NOW,
        verified_evidence=document,
        appraisal=appraisal(document.evidence_hash),
    )
    assert verification.codes == (code,)
    assert verification.level == "none"


def test_what_only_looks_like_evidence_or_appraisal_is_refused() -> None:
    other = assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence(), appraisal=appraisal(bytes(32)))
    assert other.codes == ("NOT_APPRAISED",)

    class Lookalike:
        evidence_hash = CLAIMS.attestation_doc_hash
        measurements = CLAIMS.enclave_measurements
        public_key = PUBLIC
        simulated = debug = False

    faked: Any = Lookalike()
    verification = assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=faked, appraisal=appraisal())
    assert verification.codes[0] == "EVIDENCE_NOT_VERIFIED"
    assert verification.level == "none"


def test_an_evaluation_receipt_never_reaches_provenance_under_a_production_policy() -> None:
    receipt = issue(EVALUATION, KEY)
    document = evidence(simulated=True)
    refused = assess(receipt, PUBLIC, POLICY, NOW, verified_evidence=document, appraisal=appraisal())
    assert refused.codes == ("EVALUATION_MODE_REJECTED",)
    named = replace(POLICY, security_modes=("production", "evaluation"))
    allowed = assess(receipt, PUBLIC, named, NOW, verified_evidence=document, appraisal=appraisal())
    assert allowed.level == "provenance"


def test_an_evaluation_receipt_of_production_evidence_is_refused() -> None:
    policy = replace(POLICY, security_modes=("evaluation",))
    verification = assess(
        issue(EVALUATION, KEY), PUBLIC, policy, NOW, verified_evidence=evidence(), appraisal=appraisal()
    )
    assert verification.codes == ("SECURITY_MODE_MISMATCH",)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryReplayStore()
    else:
        database = SqliteReplayStore(tmp_path / "seen.db")
        yield database
        database.close()


def test_a_receipt_is_accepted_once(store: ReplayStore) -> None:
    policy = replace(POLICY, replay_store=store)
    assert verify_receipt(RECEIPT, PUBLIC, policy, NOW).passed
    again = verify_receipt(RECEIPT, PUBLIC, policy, NOW)
    assert (again.codes, again.failed_layer, again.level) == (("REPLAY_CTI",), 4, "none")
    assert {status for (layer, _), status in statuses(again).items() if layer == 5} == {"not_run"}


def test_a_refused_receipt_is_not_remembered(store: ReplayStore) -> None:
    policy = replace(POLICY, replay_store=store)
    assert not verify_receipt(RECEIPT, PUBLIC, replace(policy, expected_model_id="x"), NOW).passed
    wrong = evidence(public_key=OTHER_PUBLIC)
    refused = assess(RECEIPT, PUBLIC, policy, NOW, verified_evidence=wrong, appraisal=appraisal())
    assert statuses(refused)[4, "REPLAY"] == "not_run"
    assert verify_receipt(RECEIPT, PUBLIC, policy, NOW).passed


def test_of_many_threads_one_wins(store: ReplayStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda _: store.add(b"x" * 16, now=NOW, expires=None), range(64)))
    assert sum(wins) == 1


def test_stores_forget_only_what_freshness_refuses(store: ReplayStore) -> None:
    assert store.add(b"old", now=NOW, expires=NOW + 10)
    assert store.add(b"kept", now=NOW, expires=None)
    for index in range(1100):
        store.add(index.to_bytes(16, "big"), now=NOW + 11, expires=NOW + 2**70)
    assert store.add(b"old", now=NOW + 11, expires=NOW + 20)
    assert not store.add(b"kept", now=NOW + 11, expires=None)


def test_a_store_survives_its_process_and_fails_closed(tmp_path: Path) -> None:
    first = SqliteReplayStore(tmp_path / "seen.db")
    assert verify_receipt(RECEIPT, PUBLIC, replace(POLICY, replay_store=first), NOW).passed
    first.close()
    second = SqliteReplayStore(tmp_path / "seen.db")
    policy = replace(POLICY, replay_store=second)
    assert verify_receipt(RECEIPT, PUBLIC, policy, NOW).codes == ("REPLAY_CTI",)
    second.close()
    assert verify_receipt(RECEIPT, PUBLIC, policy, NOW).codes == ("REPLAY_STORE_UNAVAILABLE",)
    (tmp_path / "none.db").write_bytes(b"not a database" * 100)
    with pytest.raises(EndorsementsError, match="REPLAY_STORE_UNAVAILABLE"):
        SqliteReplayStore(tmp_path / "none.db")
    assert sqlite3.threadsafety >= 1


@pytest.mark.parametrize(
    "change",
    [
        {"expected_nonce": b"short"},
        {"expected_model_hash": b""},
        {"expected_request_hash": "aa" * 32},
        {"expected_platform": "sgx"},
        {"security_modes": ()},
        {"security_modes": ("prod",)},
        {"max_age_s": -1},
        {"skew_s": -1},
    ],
)
def test_a_policy_that_no_receipt_can_meet_is_a_mistake(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="BAD_RECEIPT_POLICY"):
        ReceiptPolicy(**change)


@pytest.mark.parametrize("now", [0, -1, True, None, 1.5, "now"])
def test_a_clock_that_shows_no_time_is_refused(now: Any) -> None:
    assert verify_receipt(RECEIPT, PUBLIC, POLICY, now).codes[0] == "CLOCK_ERROR"


@pytest.mark.parametrize("data", [None, 1, "text", [], bytearray(RECEIPT), memoryview(RECEIPT)])
def test_what_is_not_bytes_is_refused(data: Any) -> None:
    assert verify_receipt(data, PUBLIC, POLICY, NOW).codes == ("COSE_DECODE_FAILED",)


@pytest.mark.parametrize("key", [None, "x" * 32, b"", bytes(31), bytes(32), bytes(33), b"\xff" * 32])
def test_what_is_no_key_is_refused(key: Any) -> None:
    assert verify_receipt(RECEIPT, key, POLICY, NOW).codes == ("SIG_FAILED",)


@given(st.binary(max_size=200))
def test_noise_never_raises(data: bytes) -> None:
    verification = verify_receipt(data, PUBLIC, POLICY, NOW)
    assert not verification.passed
    assert verification.failed_layer == 1
    assert set(LAYERS) == {one.layer for one in verification.checks}
