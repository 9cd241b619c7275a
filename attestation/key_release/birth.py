"""Birth certificates of fleet keys: made inside a TEE that the policy wants, and by nobody else.

The worker that asks the KMS for a pool's key signs, with its receipt key, which
public key came out and which wrapped blob holds it; its evidence vouches for the
receipt key and for these very bytes. An adopter verifies that before it uses the
key, so that a host which may call ``Encrypt`` cannot plant a key that it knows.

Stored form: deterministic CBOR ``[COSE_Sign1, evidence bundle]``. The payload is
``{1: 1, 2: pool, 3: epoch, 4: suite, 5: public key, 6: key id, 7: SHA-256 of the
wrapped blob, 8: created at, 9: receipt key}`` (spec/fleet-key.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...wire.announcement import MAX_BIRTH_BYTES
from ...wire.bundle import EvidenceBundle
from ...wire.cose import ALG_EDDSA, HEADER_ALG, HEADER_CONTENT_TYPE, Sign1, decode_sign1, sign1, verify_sign1
from ...wire.encoding import decode, encode, sha256
from ...wire.errors import AppraisalError, MalformedError, VerificationError
from ...wire.fields import Fields
from ...wire.header import check_pool
from ...wire.keys import PublicKey, suite_named
from ..appraise import CLOCK_SKEW_S
from ..attest.composite import BundleAttester
from ..bundle import VerifiedBundle, appraise_bundle, verify_bundle
from ..evidence import VerifiedEvidence
from ..policy import TrustPolicy
from ..verify import Endorsements

CONTENT_TYPE: Final = "application/vnd.ephemeralml.birth+cbor"
VERSION: Final = 1
MAX_SIGNED_BYTES: Final = 8_192
MAX_EVIDENCE_OFFSET_S: Final = 600
DEFAULT_MAX_AGE_S: Final = 14 * 86_400
"""A key of an old epoch lives until its queue is drained; no queue holds a message for longer."""

_PROTECTED: Final[dict[int, object]] = {HEADER_ALG: ALG_EDDSA, HEADER_CONTENT_TYPE: CONTENT_TYPE}
_MAX_TIME: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class BirthCertificate:
    """Where and when a fleet key was made.

    :param wrapped_hash: SHA-256 of the wrapped blob, 32 bytes.
    :param created_at: Unix seconds.
    :param receipt_key: raw Ed25519 public key of the worker that made it, 32 bytes.
    """

    pool: str
    epoch: int
    public_key: PublicKey
    wrapped_hash: bytes
    created_at: int
    receipt_key: bytes

    def encode(self) -> bytes:
        """Return the payload bytes."""
        return encode(
            {
                1: VERSION,
                2: self.pool,
                3: self.epoch,
                4: self.public_key.suite,
                5: self.public_key.raw,
                6: self.public_key.key_id,
                7: self.wrapped_hash,
                8: self.created_at,
                9: self.receipt_key,
            }
        )


def make_birth(
    *,
    pool: str,
    epoch: int,
    public_key: PublicKey,
    wrapped: bytes,
    receipt_key: Ed25519PrivateKey,
    attester: BundleAttester,
    now: int,
) -> bytes:
    """Return the stored form of a new fleet key's birth certificate.

    :param wrapped: the blob that the KMS can unwrap. :param now: Unix seconds.
    :raises Error: the attester's own.
    """
    receipt_public = receipt_key.public_key().public_bytes_raw()
    payload = BirthCertificate(pool, epoch, public_key, sha256(wrapped), now, receipt_public).encode()
    bundle = attester.bundle(public_key=receipt_public, user_data=sha256(payload))
    return encode([sign1(payload, receipt_key, protected=_PROTECTED), bundle.to_list()])


def verify_birth(
    data: bytes,
    *,
    pool: str,
    wrapped: bytes,
    endorsements: Endorsements,
    policy: TrustPolicy,
    now: int,
    max_age_s: int = DEFAULT_MAX_AGE_S,
) -> BirthCertificate:
    """Verify and appraise a stored birth certificate of ``wrapped``.

    1. it keeps to its format;
    2. it is of this pool, of this wrapped blob, and its key id is its key's;
    3. the receipt key that it names signed it;
    4. it was not made in the future, nor longer ago than ``max_age_s``;
    5. its evidence is genuine at the time of that evidence, which is the time of birth;
    6. the evidence vouches for the receipt key and for this payload;
    7. the policy wants the TEE that made it. The age of the *evidence* is not judged: 4 and 5 bound it.

    :param now: Unix seconds. :param max_age_s: how long ago a key in use may have been made, in seconds.
    :raises MalformedError: step 1. :raises EndorsementsError: no verifier or root for the evidence.
    :raises VerificationError: ``BIRTH_WRONG_POOL``, ``BIRTH_WRONG_BLOB``, ``BIRTH_WRONG_KEY_ID``,
        ``BIRTH_FUTURE``, ``BIRTH_TIME``, ``BIRTH_BINDING_FAILED``, and those of the verifiers.
    :raises AppraisalError: ``BIRTH_STALE``, and those of :func:`~..bundle.appraise_bundle`.
    """
    message, bundle = _read(data)  # 1
    certificate = _certificate(message.payload)
    if certificate.pool != pool:  # 2
        raise VerificationError("BIRTH_WRONG_POOL", "the birth certificate is of another pool")
    if not compare_digest(certificate.wrapped_hash, sha256(wrapped)):
        raise VerificationError("BIRTH_WRONG_BLOB", "the birth certificate is of another wrapped key")
    verify_sign1(message, certificate.receipt_key)  # 3
    if certificate.created_at > now + CLOCK_SKEW_S:  # 4
        raise VerificationError("BIRTH_FUTURE", "the birth certificate was made in the future")
    if now - certificate.created_at > max_age_s:
        finding = ("BIRTH_STALE", f"the key was made more than {max_age_s} s ago")
        raise AppraisalError(*finding, findings=(finding,))
    verified = _verify(bundle, certificate, message.payload, endorsements)  # 5, 6
    _check_time(verified.cpu, certificate.created_at, now)
    born_at = certificate.created_at if verified.cpu.issued_at is None else verified.cpu.issued_at
    appraise_bundle(verified, policy, born_at, stated_at=born_at)  # 7
    return certificate


def _read(data: bytes) -> tuple[Sign1, EvidenceBundle]:
    match decode(data, max_bytes=MAX_BIRTH_BYTES):
        case [bytes() as signed, list() as parts]:
            bundle = EvidenceBundle.from_list(parts)
        case _:
            raise MalformedError("WRONG_TYPE", "the stored birth certificate is not of its form")
    message = decode_sign1(signed, max_bytes=MAX_SIGNED_BYTES)
    # By bytes: as values, -8.0 would equal -8.
    if message.protected_bytes != encode(_PROTECTED) or message.unprotected:
        raise MalformedError("BIRTH_HEADER", "the birth certificate's header is not the one it must have")
    return message, bundle


def _certificate(payload: bytes) -> BirthCertificate:
    fields = Fields(decode(payload, max_bytes=MAX_SIGNED_BYTES), "birth certificate", range(1, 10))
    fields.version(1, VERSION)
    suite = suite_named(fields.text(4, 1, 16))
    public_key = PublicKey(suite.name, fields.octets(5, suite.public_bytes))
    if not compare_digest(fields.octets(6, 32), public_key.key_id):
        raise VerificationError("BIRTH_WRONG_KEY_ID", "the key id is not that of the public key")
    return BirthCertificate(
        pool=check_pool(fields.text(2, 1, 63)),
        epoch=fields.uint(3),
        public_key=public_key,
        wrapped_hash=fields.octets(7, 32),
        created_at=fields.uint(8, maximum=_MAX_TIME),
        receipt_key=fields.octets(9, 32),
    )


def _verify(
    bundle: EvidenceBundle, certificate: BirthCertificate, payload: bytes, endorsements: Endorsements
) -> VerifiedBundle:
    """Verify evidence at its own time: a signing certificate lives hours, a fleet key days.

    That time is read before it is verified; the verification that follows covers it.
    """
    at, key = certificate.created_at, certificate.receipt_key
    try:
        return verify_bundle(bundle, endorsements, at, key, sha256(payload))
    except VerificationError as error:
        if error.code != "ANNOUNCEMENT_BINDING_FAILED":
            raise
        raise VerificationError(
            "BIRTH_BINDING_FAILED", "the evidence does not vouch for this certificate"
        ) from None


def _check_time(verified: VerifiedEvidence, created_at: int, now: int) -> None:
    issued_at = verified.issued_at
    if issued_at is None:
        return
    if abs(issued_at - created_at) > MAX_EVIDENCE_OFFSET_S or issued_at > now + CLOCK_SKEW_S:
        raise VerificationError("BIRTH_TIME", "the evidence is not of the time of birth")
