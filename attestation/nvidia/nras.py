"""Verifies an answer of NVIDIA's Remote Attestation Service: who signed it, for whom, and when.

The service verified reports and compared measurements itself; what it found is in its claims. The
answer may be genuine and say that a device is bad: that is for appraisal.
"""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest
from typing import Final

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, VerificationError
from ..evidence import VERIFIER_TOKEN, Finding, VerifiedEvidence
from ..jwt import check_signature
from .answer import Answer, ServiceToken
from .claims import is_debugged, read_device
from .details import NvidiaDetails, NvidiaDevice
from .endorsements import NvidiaEndorsements
from .jwks import VerifiedKey, verify_key

NRAS_ISSUER_NAME: Final = "https://nras.attestation.nvidia.com"
CLOCK_SKEW_S: Final = 300


def verify_answer(
    data: bytes, answer: Answer, endorsements: NvidiaEndorsements, now: int
) -> VerifiedEvidence:
    """Verify an answer at a time.

    1. every token's key is in the key set, and a pinned certificate vouches for it;
    2. that key signed the token, with ES384;
    3. the service issued it, and it is valid at ``now``;
    4. the overall token's digests are those of the devices' tokens, all of them and no other;
    5. the devices' nonces are the overall one, where a device's token states any.

    :param data: the evidence's bytes. :param now: Unix seconds.
    :raises Error: as :func:`.verify.verify`.
    """
    keys: dict[str, VerifiedKey] = {}
    tokens = (answer.overall, *answer.devices.values())
    for token in tokens:
        key = keys.get(token.key_id) or _key(token, endorsements, now)  # 1
        keys[token.key_id] = key
        check_signature(token.jwt, key.public_key, "ES384")  # 2
        _check_token(token, now)  # 3
    _check_digests(answer)  # 4
    devices = []
    for token in answer.devices.values():
        if token.nonce is not None and not compare_digest(token.nonce, answer.nonce):  # 5
            raise VerificationError(
                "NONCE_MISMATCH", "a device's token is for another nonce than the overall one"
            )
        devices.append(read_device(token.jwt.claims, bound=token.nonce is not None))
    return VerifiedEvidence(
        platform="nvidia",
        evidence_hash=sha256(data),
        measurements=None,
        issued_at=answer.overall.issued_at,
        not_before=max(*(token.not_before for token in tokens), *(key.not_before for key in keys.values())),
        not_after=min(*(token.expires_at for token in tokens), *(key.not_after for key in keys.values())),
        root_fingerprint=keys[answer.overall.key_id].issuer,
        debug=any(is_debugged(token.jwt.claims) for token in answer.devices.values()),
        simulated=False,
        details=NvidiaDetails("nras", "gpu", answer.nonce, tuple(devices), answer.result),
        findings=tuple(_findings(answer, devices)),
        token=VERIFIER_TOKEN,
    )


def _key(token: ServiceToken, endorsements: NvidiaEndorsements, now: int) -> VerifiedKey:
    if not endorsements.nras_keys:
        raise EndorsementsError("NO_COLLATERAL", "the service's key set is not at hand")
    key = endorsements.nras_keys.get(token.key_id)
    if key is None:
        raise EndorsementsError("UNKNOWN_KEY_ID", "the service's key set has no key of this id")
    return verify_key(key, endorsements.nras_issuers, now)


def _check_token(token: ServiceToken, now: int) -> None:
    if token.issuer != NRAS_ISSUER_NAME:
        raise VerificationError("WRONG_ISSUER", "the token is not by NVIDIA's service")
    if now < max(token.not_before, token.issued_at) - CLOCK_SKEW_S:
        raise VerificationError("TOKEN_NOT_YET_VALID", "the token is not valid yet at this time")
    if now > token.expires_at:
        raise VerificationError("TOKEN_EXPIRED", "the token has expired at this time")


def _check_digests(answer: Answer) -> None:
    if answer.digests.keys() != answer.devices.keys():
        raise VerificationError("SUBMODULE_MISMATCH", "the answer has other devices than its overall token")
    for name, token in answer.devices.items():
        if not compare_digest(answer.digests[name], token.digest):
            raise VerificationError("SUBMODULE_MISMATCH", "a device's token is not the one that was judged")


def _findings(answer: Answer, devices: list[NvidiaDevice]) -> Iterator[Finding]:
    for name, device in zip(answer.devices, devices, strict=True):
        if not device.revocation_checked:
            yield (
                "OCSP_NOT_CHECKED",
                f"{name}: the service does not say that it asked whether keys were revoked",
            )
        if not device.firmware_bound:
            yield "FWID_NOT_STATED", f"{name}: the service does not say that key and firmware belong together"
        if device.mode is None:
            yield "CC_MODE_NOT_STATED", f"{name}: the service does not say how it is passed through"
        if answer.devices[name].jwt.claims.get("x-nvidia-attestation-warning") is not None:
            yield "NRAS_WARNING", f"{name}: the service warns of something"
