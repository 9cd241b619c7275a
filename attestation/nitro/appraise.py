"""Holds the registers of a verified Nitro document against measurement sets."""

from __future__ import annotations

from hmac import compare_digest

from ..closed import UNCHECKED
from ..evidence import Measurements, VerifiedEvidence
from ..judgement import Judgement
from .policy import MeasurementSet


def appraise_nitro(verified: VerifiedEvidence, sets: tuple[MeasurementSet, ...]) -> Judgement:
    """Find the measurement set that matches whole: registers of different releases are never mixed.

    :param sets: what is wanted, in order; none wants nothing.
    :return: refusal ``MEASUREMENT_MISMATCH``, or notes ``UNCHECKED`` for what the set leaves open.
    """
    measured = verified.measurements
    matched = next((one for one in sets if not _differences(one, measured)), None)
    if matched is not None:
        notes = tuple(("UNCHECKED", slot) for slot, value in matched.registers.items() if value == UNCHECKED)
        return Judgement(matched.name, notes=notes)
    if not sets:
        return Judgement(None, (("MEASUREMENT_MISMATCH", "the policy names no measurement set for it"),))
    nearest = min(sets, key=lambda one: len(_differences(one, measured)))
    slots = ", ".join(_differences(nearest, measured))
    detail = f"no measurement set matches whole; {nearest.name!r} differs in {slots}"
    return Judgement(None, (("MEASUREMENT_MISMATCH", detail),))


def _differences(wanted: MeasurementSet, measured: Measurements | None) -> list[str]:
    if measured is None or measured.kind != "nitro-pcr":
        return list(wanted.registers)
    return [
        slot
        for slot, value in wanted.registers.items()
        if value != UNCHECKED and not compare_digest(bytes.fromhex(value), measured.values.get(slot, b""))
    ]
