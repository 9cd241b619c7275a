"""Holds a verified Confidential Space token against a policy."""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest
from typing import Final

from ..closed import UNCHECKED
from ..evidence import Finding, VerifiedEvidence
from ..judgement import Judgement
from .details import ConfidentialSpaceDetails
from .policy import ConfidentialSpacePolicy

_OPTIONAL: Final = (
    "service_accounts",
    "min_swversion",
    "gpu_cc_mode",
    "support_attributes",
    "env_overrides",
    "cmd_override",
)


def appraise_confidential_space(verified: VerifiedEvidence, policy: ConfidentialSpacePolicy) -> Judgement:
    """Check every claim that the policy speaks of; every reason for a refusal is collected.

    :return: refusals ``MEASUREMENT_MISMATCH`` (no image of this digest is wanted), ``ISSUER_MISMATCH``,
        ``AUDIENCE_MISMATCH``, ``SECURE_BOOT_OFF``, ``SWNAME_NOT_ALLOWED``, ``HWMODEL_NOT_ALLOWED``,
        ``SUPPORT_ATTRIBUTE_MISSING``, ``SERVICE_ACCOUNT_NOT_ALLOWED``, ``SWVERSION_TOO_OLD``,
        ``GPU_CC_MODE_NOT_ALLOWED``, ``ENV_OVERRIDE`` or ``CMD_OVERRIDE``; notes ``UNCHECKED``.
    :raises VerificationError: ``WRONG_PLATFORM``.
    """
    said = ConfidentialSpaceDetails.of(verified)
    matched = _matched(said, policy)
    refusals = (
        *_workload(said, policy, matched),
        *_token(said, policy),
        *_machine(said, policy),
        *_overrides(said, policy),
    )
    notes = tuple(("UNCHECKED", name) for name in _OPTIONAL if getattr(policy, name) == UNCHECKED)
    return Judgement(matched, refusals, notes)


def _matched(said: ConfidentialSpaceDetails, policy: ConfidentialSpacePolicy) -> str | None:
    digest = said.image_digest.encode()
    return next(
        (image.name for image in policy.images if compare_digest(image.image_digest.encode(), digest)), None
    )


def _workload(
    said: ConfidentialSpaceDetails, policy: ConfidentialSpacePolicy, matched: str | None
) -> Iterator[Finding]:
    if matched is None:
        yield "MEASUREMENT_MISMATCH", "the policy wants no image of this digest"
    allowed = policy.service_accounts
    if allowed != UNCHECKED and not set(said.service_accounts) & set(allowed):
        yield "SERVICE_ACCOUNT_NOT_ALLOWED", "the workload runs as none of the wanted service accounts"


def _token(said: ConfidentialSpaceDetails, policy: ConfidentialSpacePolicy) -> Iterator[Finding]:
    if said.issuer != policy.issuer:
        yield "ISSUER_MISMATCH", "the token is of another issuer than the policy names"
    if said.audience != policy.audience:
        yield "AUDIENCE_MISMATCH", "the token was made for another audience"


def _machine(said: ConfidentialSpaceDetails, policy: ConfidentialSpacePolicy) -> Iterator[Finding]:
    if not said.secure_boot:
        yield "SECURE_BOOT_OFF", "the machine did not start with secure boot"
    if said.software_name != "CONFIDENTIAL_SPACE":
        yield "SWNAME_NOT_ALLOWED", "the machine does not run Confidential Space"
    if said.hardware_model not in policy.hwmodels:
        yield "HWMODEL_NOT_ALLOWED", "the policy does not accept this kind of machine"
    wanted = policy.support_attributes
    if wanted != UNCHECKED and not set(wanted) <= set(said.support_attributes or ()):
        yield "SUPPORT_ATTRIBUTE_MISSING", f"the image is not {', '.join(wanted)}"
    if policy.min_swversion != UNCHECKED and not _is_at_least(said.software_version, policy.min_swversion):
        yield "SWVERSION_TOO_OLD", f"the operating system is older than {policy.min_swversion}"
    if policy.gpu_cc_mode not in (UNCHECKED, said.gpu_cc_mode):
        yield "GPU_CC_MODE_NOT_ALLOWED", "the GPU's confidential computing is not ON"


def _overrides(said: ConfidentialSpaceDetails, policy: ConfidentialSpacePolicy) -> Iterator[Finding]:
    allowed = policy.env_overrides
    if allowed != UNCHECKED:
        others = len(said.environment_override.keys() - set(allowed))
        if others:
            yield "ENV_OVERRIDE", f"whoever started the machine set {others} variable(s) beyond those allowed"
    if policy.cmd_override != UNCHECKED and said.command_override:
        yield "CMD_OVERRIDE", "whoever started the machine changed the image's command"


def _is_at_least(version: str, minimum: str) -> bool:
    """Compare releases; tokens write ``YYMM##``, the vendor's page ``YYYYMM##``: never one with the other."""
    return version.isascii() and version.isdigit() and len(version) == len(minimum) and version >= minimum
