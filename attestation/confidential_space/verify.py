"""Verifies a Confidential Space token: genuine, at a given time, under pinned roots or keys.

A function of its arguments: no clock, no network. A token lives an hour; one of the
past verifies at its own time. A PKI token needs nothing but the pinned root, so that
archived evidence should be one.
"""

from __future__ import annotations

from typing import Final

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, VerificationError
from ..evidence import VERIFIER_TOKEN, Finding, VerifiedEvidence
from ..jwt import check_signature
from .chain import verify_chain
from .details import ConfidentialSpaceDetails
from .endorsements import ConfidentialSpaceEndorsements
from .parse import ConfidentialSpaceToken, parse
from .signer import Signer

DEBUG_DISABLED: Final = "disabled-since-boot"  # "Attestation token claims", dbgstat


def verify(data: bytes, endorsements: ConfidentialSpaceEndorsements, now: int) -> VerifiedEvidence:
    """Verify a token of Google Cloud Attestation.

    A debug image's token is genuine too: it comes back with ``debug=True`` and appraisal refuses it.

    1. the token keeps to its format and bounds, and its algorithm is RS256;
    2. it is of the issuer that keys and roots are endorsed for;
    3. its key is one of the issuer's by ``kid``, or its chain ends at a pinned root, valid at ``now``;
    4. that key signed the token;
    5. the token is valid at ``now`` (RFC 7519: from nbf and iat on, before exp);
    6. a PKI token was issued while its signing certificate was valid.

    :param now: Unix seconds.
    :raises MalformedError: as :func:`.parse.parse`, or ``BAD_CERTIFICATE``.
    :raises VerificationError: ``WRONG_ISSUER``, ``SIG_FAILED``, ``TOKEN_NOT_YET_VALID``, ``TOKEN_EXPIRED``,
        ``TIMESTAMP_OUTSIDE``, or as :func:`.chain.verify_chain`.
    :raises EndorsementsError: ``NO_ROOTS``, ``NO_COLLATERAL`` (an OIDC token, and no JWKS) or
        ``UNKNOWN_KEY_ID``.
    """
    token = parse(data)  # 1
    if token.issuer != endorsements.issuer:  # 2
        raise VerificationError("WRONG_ISSUER", "the token is of another issuer")
    signer = _signer(token, endorsements, now)  # 3
    check_signature(token.jwt, signer.public_key, "RS256")  # 4
    valid_from = max(token.not_before, token.issued_at)
    if now < valid_from:  # 5
        raise VerificationError("TOKEN_NOT_YET_VALID", "the token is not valid yet at this time")
    if now >= token.expires_at:
        raise VerificationError("TOKEN_EXPIRED", "the token has expired at this time")
    if not signer.not_before <= token.issued_at <= signer.not_after:  # 6
        raise VerificationError("TIMESTAMP_OUTSIDE", "the token was issued outside its certificate's life")
    return VerifiedEvidence(
        platform="confidential-space",
        evidence_hash=sha256(token.raw),
        measurements=None,  # AIR v1 has no slot for what this platform measures
        issued_at=token.issued_at,
        not_before=max(valid_from, signer.chain_not_before),
        not_after=min(token.expires_at - 1, signer.chain_not_after),
        root_fingerprint=signer.anchor,
        debug=token.debug_status != DEBUG_DISABLED,
        simulated=False,
        details=_details(token),
        findings=_findings(token),
        token=VERIFIER_TOKEN,
    )


def _signer(token: ConfidentialSpaceToken, endorsements: ConfidentialSpaceEndorsements, now: int) -> Signer:
    if token.chain:
        return Signer.of_chain(verify_chain(token.chain, endorsements.roots, now))
    if not endorsements.keys:
        raise EndorsementsError("NO_COLLATERAL", "an OIDC token needs the issuer's JWKS")
    for key in endorsements.keys:
        if key.key_id == token.key_id:
            return Signer.of_key(key)
    raise EndorsementsError("UNKNOWN_KEY_ID", "the issuer's JWKS has no key of this id")


def _details(token: ConfidentialSpaceToken) -> ConfidentialSpaceDetails:
    return ConfidentialSpaceDetails(
        token_type="PKI" if token.chain else "OIDC",
        issuer=token.issuer,
        audience=token.audience,
        subject=token.subject,
        nonces=token.nonces,
        debug_status=token.debug_status,
        secure_boot=token.secure_boot,
        hardware_model=token.hardware_model,
        software_name=token.software_name,
        software_version=token.software_version,
        support_attributes=token.support_attributes,
        service_accounts=token.service_accounts,
        image_digest=token.image_digest,
        image_reference=token.image_reference,
        restart_policy=token.restart_policy,
        command=token.command,
        command_override=token.command_override,
        environment=token.environment,
        environment_override=token.environment_override,
        project_id=token.project_id,
        zone=token.zone,
        gpu_cc_mode=token.gpu_cc_mode,
    )


def _findings(token: ConfidentialSpaceToken) -> tuple[Finding, ...]:
    if token.chain:
        return (("REVOCATION_NOT_CHECKED", "no revocation list of Google's private CA was asked"),)
    return ()
