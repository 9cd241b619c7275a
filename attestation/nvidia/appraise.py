"""Holds verified GPUs against a policy; every reason for a refusal is collected."""

from __future__ import annotations

from collections.abc import Iterator

from ..closed import UNCHECKED
from ..evidence import Finding, VerifiedEvidence
from ..judgement import Judgement
from .details import NvidiaDetails, NvidiaDevice
from .policy import NvidiaPolicy, NvidiaVersions


def appraise_nvidia(verified: VerifiedEvidence, policy: NvidiaPolicy) -> Judgement:
    """Match all GPUs with one set of versions, and refuse what was not checked and must be.

    :return: refusals ``WAY_NOT_ALLOWED``, ``GPU_COUNT``, ``MODE_NOT_ALLOWED``, ``MEASUREMENTS_NOT_COMPARED``,
        ``MEASUREMENT_MISMATCH``, ``OCSP_NOT_CHECKED``, ``FWID_NOT_STATED``, ``NRAS_RESULT_FALSE``,
        ``NRAS_CLAIM``; notes ``UNCHECKED`` for what the policy leaves open.
    :raises VerificationError: ``WRONG_PLATFORM``.
    """
    details = NvidiaDetails.of(verified)
    matched = next((one for one in policy.measurement_sets if _is_of(details, one)), None)
    refusals = [
        *_way(details, policy),
        *_count(details, policy),
        *_sets(details, policy, matched),
        *(finding for device in enumerate(details.devices) for finding in _device(*device, policy)),
    ]
    name = None if matched is None else matched.name
    return Judgement(name, tuple(refusals), tuple(_notes(policy, matched)))


def _is_of(details: NvidiaDetails, wanted: NvidiaVersions) -> bool:
    return bool(details.devices) and not any(_differences(one, wanted) for one in details.devices)


def _differences(device: NvidiaDevice, wanted: NvidiaVersions) -> list[str]:
    found = {"architecture": device.architecture, "driver": device.driver, "vbios": device.vbios}
    return [
        name
        for name, value in found.items()
        if getattr(wanted, name) != UNCHECKED and getattr(wanted, name) != value
    ]


def _way(details: NvidiaDetails, policy: NvidiaPolicy) -> Iterator[Finding]:
    if details.way not in policy.accept:
        yield "WAY_NOT_ALLOWED", f"the policy does not accept evidence judged by way {details.way!r}"
    if details.way == "nras" and details.result is not True:
        yield "NRAS_RESULT_FALSE", "the vendor's service says that the devices are not good"


def _count(details: NvidiaDetails, policy: NvidiaPolicy) -> Iterator[Finding]:
    # The service judges every report that it is sent, one device's as often as it is sent.
    serials = {device.serial for device in details.devices}
    distinct = len(serials) if details.way == "nras" else len(details.devices)
    gpus = distinct if details.kind == "gpu" else 0
    if gpus < policy.min_gpus:
        yield "GPU_COUNT", f"{gpus} GPUs are attested, {policy.min_gpus} are wanted"


def _sets(details: NvidiaDetails, policy: NvidiaPolicy, matched: NvidiaVersions | None) -> Iterator[Finding]:
    if matched is not None:
        return
    if not policy.measurement_sets:
        yield "MEASUREMENT_MISMATCH", "the policy names no measurement set for it"
        return
    nearest = min(policy.measurement_sets, key=lambda one: len(_all_differences(details, one)))
    names = ", ".join(_all_differences(details, nearest))
    yield "MEASUREMENT_MISMATCH", f"no measurement set matches whole; {nearest.name!r} differs in {names}"


def _all_differences(details: NvidiaDetails, wanted: NvidiaVersions) -> list[str]:
    return sorted({name for device in details.devices for name in _differences(device, wanted)})


def _device(position: int, device: NvidiaDevice, policy: NvidiaPolicy) -> Iterator[Finding]:
    who = f"GPU {position}"
    if device.compared is None and policy.rim != UNCHECKED:
        yield "MEASUREMENTS_NOT_COMPARED", f"{who}: its measurements were not compared with manifests"
    if device.differing:
        indices = ", ".join(map(str, device.differing))
        yield "MEASUREMENT_MISMATCH", f"{who}: measurements that its manifests do not allow: {indices}"
    if not device.revocation_checked and policy.ocsp != UNCHECKED:
        yield "OCSP_NOT_CHECKED", f"{who}: whether its certificates were revoked is not known"
    if not device.firmware_bound and policy.firmware != UNCHECKED:
        yield "FWID_NOT_STATED", f"{who}: whether key and firmware belong together is not known"
    if policy.modes != UNCHECKED and device.mode not in policy.modes:
        yield "MODE_NOT_ALLOWED", f"{who}: passed through as {device.mode or 'it does not say'}"
    for name in device.objections:
        yield "NRAS_CLAIM", f"{who}: the service's claim {name} is not as it must be"


def _notes(policy: NvidiaPolicy, matched: NvidiaVersions | None) -> Iterator[Finding]:
    for name in ("driver", "vbios"):
        if matched is not None and getattr(matched, name) == UNCHECKED:
            yield "UNCHECKED", name
    for name in ("modes", "rim", "ocsp", "firmware"):
        if getattr(policy, name) == UNCHECKED:
            yield "UNCHECKED", name
