"""Receipt and evidence in one call: archived pairs keep their verdict, stale evidence stays stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from ephemeralml.attestation import Platforms
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.producer.inputs import InputItem
from ephemeralml.receipts import ReceiptPolicy, Verification, judge_receipt
from ephemeralml.wire.errors import AppraisalError, EndorsementsError, MalformedError, VerificationError

from ..way.harness import Stand

YEAR = 365 * 86_400
POLICY = ReceiptPolicy(security_modes=("evaluation",))


class Pair:
    """A receipt of a worker and the evidence of its announcement, with knobs."""

    def __init__(self, folder: Path, delay: int = 0) -> None:
        self.stand = Stand(folder)
        ticket = self.stand.plan(InputItem("1", ("x",)), lifetime_s=10 * YEAR)
        self.stand.now += delay
        (reply,) = self.stand.answer(ticket)
        result = self.stand.judge(ticket, reply.sealed)
        assert result.receipt is not None
        assert result.worker is not None
        self.receipt, self.evidence = result.receipt, result.worker.bundle.evidence
        self.key = result.worker.body.receipt_key
        self.stand.close()

    def judge(self, later: int = 0, **changes: object) -> Verification:
        trust = self.stand.policy
        values: dict[str, object] = {"platform": "simulated", "evidence": self.evidence, "trust": trust}
        values |= {"endorsements": endorsements_for(trust)} | changes
        now = int(self.stand.now) + later
        return judge_receipt(self.receipt, self.key, POLICY, now, **values)  # type: ignore[arg-type]


def test_fresh_pair_reaches_provenance(tmp_path: Path) -> None:
    assert Pair(tmp_path).judge().level == "provenance"


@pytest.mark.parametrize("later", [4 * 3600, 30 * 86_400, 20 * YEAR])
def test_archived_pair_keeps_its_verdict(tmp_path: Path, later: int) -> None:
    """The certificates behind the evidence are long expired by then."""
    assert Pair(tmp_path).judge(later).level == "provenance"


def test_evidence_that_was_too_old_for_the_receipt_stays_too_old(tmp_path: Path) -> None:
    pair = Pair(tmp_path, delay=86_400 + 1)
    with pytest.raises(AppraisalError, match="EVIDENCE_STALE"):
        pair.judge()


def test_a_policy_that_wants_a_gpu_too_is_not_met_by_the_cpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(tmp_path)
    monkeypatch.setattr(Platforms, "required_with", lambda *_: frozenset({"nvidia"}))
    with pytest.raises(AppraisalError, match="COMPANION_MISSING"):
        pair.judge()


def test_evidence_of_another_worker_does_not_serve(tmp_path: Path) -> None:
    pair, other = Pair(tmp_path / "a"), Pair(tmp_path / "b")
    with pytest.raises(VerificationError):  # another development root
        pair.judge(evidence=other.evidence)
    pair.stand.worker()
    second = pair.stand.client.trust.fleet("minilm").workers
    foreign = next(
        worker.bundle.evidence for worker in second.values() if worker.bundle.evidence != pair.evidence
    )
    found = pair.judge(evidence=foreign)
    assert not found.passed
    assert found.level == "none"
    assert {"ATTESTATION_DOC_HASH_MISMATCH", "KEY_BINDING_FAILED"} <= set(found.codes)


def test_unwanted_unknown_and_malformed_evidence(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with pytest.raises(EndorsementsError, match="UNKNOWN_PLATFORM"):
        pair.judge(platform="another")
    with pytest.raises(MalformedError):
        pair.judge(evidence=b"junk")
    nobody = pair.stand.policy.model_copy(update={"security_modes": ("production",)})
    with pytest.raises(AppraisalError):
        pair.judge(trust=nobody)


def test_unsound_receipt_is_reported_not_raised(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.receipt = pair.receipt[:-1] + bytes([pair.receipt[-1] ^ 1])
    assert pair.judge().codes == ("SIG_FAILED",)
    pair.receipt = b"junk"
    assert pair.judge().codes == ("COSE_DECODE_FAILED",)
