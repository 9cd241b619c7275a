"""Proposes what a policy may want, from evidence that was verified: genuine, not yet wanted.

A proposal is as strict as the platform's policy can be; what must be left unchecked,
its author writes by hand. It is only as good as the way the evidence came: take it
from a machine that you started yourself, from an image that you built.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ...attestation.bundle import verify_bundle
from ...attestation.closed import UNCHECKED
from ...attestation.confidential_space.details import ConfidentialSpaceDetails
from ...attestation.evidence import VerifiedEvidence
from ...attestation.nvidia.details import NvidiaDetails
from ...attestation.tdx.details import TdxDetails
from ...attestation.verify import Endorsements, stated_time, verify_evidence
from ...wire.announcement import Announcement
from ...wire.errors import AppraisalError, ConfigurationError

#: Nitro's registers that name an image; PCR3 and PCR4 name a role and an instance.
NAMES_AN_IMAGE: Final = ("pcr0", "pcr1", "pcr2")
_EMPTY: Final = bytes(48)

Proposal = dict[str, Any]


def from_evidence(platform: str, data: bytes, endorsements: Endorsements, now: int, name: str) -> Proposal:
    """Verify evidence at its own time and return what would accept it, by platform as a policy names it.

    :param now: Unix seconds, for evidence that states no time. :param name: of the measurement set.
    :raises Error: the evidence is not genuine, or names no image.
    """
    stated = stated_time(platform, data)
    verified = verify_evidence(platform, data, endorsements, now if stated is None else stated)
    return _proposal([verified], name)


def from_announcement(data: bytes, endorsements: Endorsements, name: str) -> tuple[Proposal, dict[str, str]]:
    """Verify a worker's announcement; return what would accept its evidence, and its model.

    :raises Error: as :func:`from_evidence`.
    """
    announcement = Announcement.decode(data)
    body = announcement.body
    verified = verify_bundle(
        announcement.bundle, endorsements, body.issued_at, body.receipt_key, announcement.digest
    )
    model = {"id": body.model.id, "manifest_hash": body.model.manifest_hash.hex()}
    return _proposal([verified.cpu, *verified.companions], name), model


def _proposal(parts: Iterable[VerifiedEvidence], name: str) -> Proposal:
    found: Proposal = {}
    cpu = ""
    several = list(parts)
    for part in several:
        if part.debug:
            raise AppraisalError("DEBUG_NOT_ALLOWED", "evidence of a debug TEE names no image to trust")
        match part.platform:
            case "nitro":
                found["nitro"] = [_nitro(part, name)]
            case "simulated":
                found["simulated"] = {
                    "dangerous_allow": True,
                    "root_fingerprint": part.root_fingerprint.hex(),
                    "measurement_sets": [_nitro(part, name)],
                }
            case "confidential-space":
                found["confidential-space"] = _confidential_space(ConfidentialSpaceDetails.of(part), name)
            case "nvidia":
                found["nvidia"] = _nvidia(NvidiaDetails.of(part), name, cpu)
            case "tdx":
                found["tdx"] = _tdx(TdxDetails.of(part), name, {one.platform for one in several})
            case _:
                raise ConfigurationError("NO_PROPOSAL", f"nothing is proposed for {part.platform!r}")
        cpu = cpu or part.platform
    return found


def _nitro(part: VerifiedEvidence, name: str) -> dict[str, str]:
    values = {} if part.measurements is None else part.measurements.values
    registers = {slot: values[slot].hex() for slot in NAMES_AN_IMAGE if slot in values}
    signer = values.get("pcr8", _EMPTY)
    return {"name": name, **registers, "pcr8": UNCHECKED if signer == _EMPTY else signer.hex()}


def _confidential_space(details: ConfidentialSpaceDetails, name: str) -> dict[str, Any]:
    return {
        "images": [{"name": name, "image_digest": details.image_digest}],
        "audience": details.audience,
        "hwmodels": [details.hardware_model],
        "service_accounts": list(details.service_accounts) or UNCHECKED,
        "min_swversion": details.software_version,
        "gpu_cc_mode": "ON" if details.gpu_cc_mode == "ON" else UNCHECKED,
        "issuer": details.issuer,
        "env_overrides": sorted(details.environment_override),
    }


def _tdx(details: TdxDetails, name: str, together: set[str]) -> dict[str, Any]:
    report = details.report
    rtmrs = {f"rtmr{index}": value.hex() for index, value in enumerate(report.rtmrs)}
    return {
        "measurement_sets": [{"name": name, "mrtd": report.mrtd.hex(), **rtmrs}],
        "mrseams": [report.mrseam.hex()],
        "xfams": [report.xfam.hex()],
        "attributes": [report.attributes.hex()],
        "accepted_tcb_statuses": [details.tcb_status],
        "allowed_advisory_ids": list(details.advisory_ids),
        "min_evaluation_number": details.evaluation_number,
        "requires": sorted(together & {"confidential-space"}),  # a GPU is demanded by its own part
    }


def _nvidia(details: NvidiaDetails, name: str, cpu: str) -> dict[str, Any]:
    releases = sorted(
        {(device.architecture, device.driver or "", device.vbios or "") for device in details.devices}
    )
    return {
        "measurement_sets": [
            {
                "name": name if len(releases) == 1 else f"{name}-{number}",
                "architecture": architecture,
                "driver": driver or UNCHECKED,
                "vbios": vbios or UNCHECKED,
            }
            for number, (architecture, driver, vbios) in enumerate(releases, 1)
        ],
        "accept": [details.way],
        "modes": sorted({device.mode for device in details.devices if device.mode}) or UNCHECKED,
        "min_gpus": len(details.devices),
        "required_with": [cpu] if cpu else [],
    }
