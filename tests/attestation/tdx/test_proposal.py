"""Proposals and diffs of TDX policies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.policy import TrustPolicy, load_policy
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.attestation.verify import Endorsements
from ephemeralml.producer.cli.policy_diff import compare
from ephemeralml.producer.cli.policy_propose import from_evidence
from ephemeralml.wire.errors import AppraisalError

from .faults import attributes
from .forge import COMPONENTS, NOW, Forge

OTHER = "00" * 8


def proposed(forge: Forge) -> dict[str, Any]:
    return from_evidence("tdx", forge.quote(), Endorsements(tdx=forge.endorsements()), NOW, "release-1")


def policy(platforms: dict[str, Any]) -> TrustPolicy:
    return load_policy(json.dumps({"version": "1", "platforms": platforms}).encode())


@pytest.mark.parametrize("forge", [Forge(), Forge(components=(4, *COMPONENTS[1:]))])
def test_what_is_proposed_accepts_that_quote_and_leaves_nothing_open(forge: Forge) -> None:
    wanted = policy(proposed(forge))
    verified = verify(forge.quote(), forge.endorsements(), NOW)
    found = appraise(verified, wanted, NOW, stated_at=NOW)
    assert found.measurement_set == "release-1"
    assert "UNCHECKED" not in dict(found.findings)


def test_it_accepts_no_other() -> None:
    wanted = policy(proposed(Forge()))
    for other in (
        Forge(report={"rtmr3": bytes(48)}),
        Forge(report={"mrseam": bytes(48)}),
        Forge(components=(4, *COMPONENTS[1:])),
    ):
        with pytest.raises(AppraisalError):
            appraise(verify(other.quote(), other.endorsements(), NOW), wanted, NOW)


def test_nothing_is_proposed_for_a_debug_domain() -> None:
    with pytest.raises(AppraisalError) as caught:
        proposed(Forge(report=attributes(1 << 28 | 1)))
    assert caught.value.code == "DEBUG_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("field", "value", "verdicts"),
    [
        ("xfams", ["e702060000000000", OTHER], {"looser"}),
        ("xfams", [], {"tighter"}),
        ("xfams", "UNCHECKED", {"looser"}),
        ("mrseams", [], {"tighter"}),
        ("attributes", [], {"tighter"}),
        ("accepted_tcb_statuses", ["UpToDate", "OutOfDate"], {"looser"}),
        ("accepted_tcb_statuses", [], {"tighter"}),
        ("allowed_advisory_ids", ["INTEL-SA-00001"], {"looser"}),
        ("allowed_advisory_ids", "UNCHECKED", {"looser"}),
        ("requires", ["nvidia"], {"tighter"}),
        ("min_evaluation_number", 18, {"tighter"}),
        ("min_evaluation_number", 16, {"looser"}),
        ("min_evaluation_number", None, {"looser"}),
        ("max_collateral_age_s", 60, {"looser"}),
    ],
)
def test_a_diff_says_what_is_looser(field: str, value: object, verdicts: set[str]) -> None:
    before = proposed(Forge())
    after = json.loads(json.dumps(before))
    after["tdx"][field] = value
    assert {one.verdict for one in compare(policy(before), policy(after))} == verdicts
