"""Holds a simulated document against the policy that allows it."""

from __future__ import annotations

from hmac import compare_digest

from ..evidence import VerifiedEvidence
from ..judgement import Judgement
from ..nitro.appraise import appraise_nitro
from .policy import SimulatedPolicy


def appraise_simulated(verified: VerifiedEvidence, policy: SimulatedPolicy) -> Judgement:
    """Match the registers as for Nitro, under the one development root that the policy names.

    :return: refusals ``ROOT_NOT_ALLOWED`` and ``MEASUREMENT_MISMATCH``; always the note ``SIMULATED``.
    """
    found = appraise_nitro(verified, policy.measurement_sets)
    refusals = found.refusals
    if not compare_digest(bytes.fromhex(policy.root_fingerprint), verified.root_fingerprint):
        refusals = (("ROOT_NOT_ALLOWED", "the evidence is of another development root"), *refusals)
    note = ("SIMULATED", "a simulated TEE proves nothing about hardware")
    return Judgement(found.matched, refusals, (*found.notes, note))
