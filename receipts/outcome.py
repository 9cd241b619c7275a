"""Outcome statement: the one terminal end of a job, signed in the TEE (spec/outcome.md).

A success carries the hash of its receipt; a failure, an expiry, a rejection and a
cancellation carry a stable code. So failures are evidence too, and the untrusted
side can neither invent one nor turn a success into one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.cose import Sign1, decode_sign1, sig_structure, sign1, verify_ed25519
from ..wire.encoding import decode, encode
from ..wire.errors import MalformedError
from ..wire.fields import Fields
from ..wire.header import MAX_BATCH_ITEMS, check_pool

Status = Literal["succeeded", "failed", "expired", "rejected", "cancelled"]

CONTENT_TYPE: Final = "application/vnd.ephemeralml.outcome+cbor"
VERSION: Final = 1
MAX_OUTCOME_BYTES: Final = 1024
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
_HEADER: Final[dict[int, object]] = {1: -8, 3: CONTENT_TYPE}
_PROTECTED: Final = encode(_HEADER)
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one job ended.

    :param job_id: 16 bytes. :param code: stable upper-case code, empty only for a success.
    :param iat: Unix seconds. :param receipt_hash: SHA-256 of the receipt, only and always for a success.
    :param attestation_doc_hash: SHA-256 of the worker's attestation document.
    :param job_hash: hash of the sealed job as it reached the worker (:attr:`..wire.pack.SealedJob.hash`).
    :param batch_id: 16 bytes, together with ``index`` or not at all.
    """

    job_id: bytes
    pool: str
    status: Status
    code: str
    iat: int
    attestation_doc_hash: bytes
    job_hash: bytes
    receipt_hash: bytes | None = None
    batch_id: bytes | None = None
    index: int | None = None

    def encode(self) -> bytes:
        """Return the payload: deterministic CBOR, read back before it is handed out.

        :raises MalformedError: when a field breaks the rules of spec/outcome.md.
        """
        fields: dict[object, object] = {
            1: VERSION,
            2: self.job_id,
            3: self.pool,
            4: self.status,
            5: self.code,
            6: self.iat,
            10: self.attestation_doc_hash,
            11: self.job_hash,
        }
        optional = {7: self.receipt_hash, 8: self.batch_id, 9: self.index}
        fields.update((key, value) for key, value in optional.items() if value is not None)
        _read(fields)
        return encode(fields)

    @classmethod
    def decode(cls, payload: bytes) -> Outcome:
        """Read a payload. Says nothing about its signature.

        :raises MalformedError: when it is anything else.
        """
        return _read(decode(payload, max_bytes=MAX_OUTCOME_BYTES))


def make_outcome(outcome: Outcome, key: Ed25519PrivateKey) -> bytes:
    """Return the signed statement: a tagged COSE_Sign1 (RFC 9052, section 4.2).

    :param key: the receipt key of this TEE.
    :raises MalformedError: when a field breaks the rules; nothing is signed then.
    """
    return sign1(outcome.encode(), key, protected=_HEADER)


@dataclass(frozen=True, slots=True)
class UnverifiedOutcome:
    """A statement as it was read: it names the evidence that its key is bound to, and says nothing yet.

    :param claimed: what it claims.
    """

    claimed: Outcome
    _message: Sign1

    def verify(self, public_key: bytes) -> Outcome:
        """Return what it says; arguments and errors as of :func:`verify_outcome`."""
        signed = sig_structure(self._message.protected_bytes, self._message.payload)
        verify_ed25519(public_key, signed, self._message.signature)
        return self.claimed


def read_outcome(data: bytes) -> UnverifiedOutcome:
    """Read a statement, to find its evidence and verify it thereafter.

    :raises MalformedError: not an outcome statement.
    """
    message = _parse(data)
    return UnverifiedOutcome(Outcome.decode(message.payload), message)


def verify_outcome(data: bytes, public_key: bytes) -> Outcome:
    """Verify a statement and return it.

    :param public_key: raw Ed25519 key, 32 bytes, of the worker whose evidence was verified.
    :raises MalformedError: not an outcome statement. :raises VerificationError: not signed by this key.
    """
    return read_outcome(data).verify(public_key)


def peek_outcome(data: bytes) -> Outcome:
    """Read a statement *without* verifying it, to find the evidence that its key is bound to.

    :raises MalformedError: not an outcome statement.
    """
    return read_outcome(data).claimed


def _parse(data: bytes) -> Sign1:
    message = decode_sign1(data, max_bytes=MAX_OUTCOME_BYTES)
    # The header has one deterministic encoding, so comparing bytes checks labels, types and closedness.
    if message.protected_bytes != _PROTECTED:
        raise MalformedError("BAD_PROTECTED_HEADER", "not the protected header of an outcome statement")
    if message.unprotected:
        raise MalformedError("NON_EMPTY_UNPROTECTED", "the unprotected header is not empty")
    return message


def _read(value: object) -> Outcome:
    fields = Fields(value, "outcome", range(1, 12))
    fields.version(1, VERSION)
    status = fields.text(4, 1, 16)
    if status not in STATUSES:
        raise MalformedError("UNKNOWN_STATUS", "an outcome has one of five statuses")
    code = fields.text(5, 0, 64)
    succeeded = status == "succeeded"
    if succeeded != (code == "") or not (succeeded or _CODE.fullmatch(code)):
        raise MalformedError("BAD_OUTCOME_CODE", "an upper-case code stands in every outcome but a success")
    if succeeded != (7 in fields):
        raise MalformedError("BAD_RECEIPT_HASH", "a success names its receipt, nothing else does")
    if (8 in fields) != (9 in fields):
        raise MalformedError("MISSING_FIELD", "an outcome names batch and index together or neither")
    return Outcome(
        job_id=fields.octets(2, 16),
        pool=check_pool(fields.text(3, 1, 63)),
        status=status,
        code=code,
        iat=fields.uint(6, minimum=1),
        receipt_hash=fields.octets(7, 32) if succeeded else None,
        batch_id=fields.octets(8, 16) if 8 in fields else None,
        index=fields.uint(9, maximum=MAX_BATCH_ITEMS - 1) if 9 in fields else None,
        attestation_doc_hash=fields.octets(10, 32),
        job_hash=fields.octets(11, 32),
    )
