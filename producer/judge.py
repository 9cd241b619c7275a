"""Judges one reply: signed outcome, then (for a success) result, receipt and key binding.

Nothing is handed out that was not verified. The untrusted side may have swapped,
replayed or re-routed anything: every check here is against what the client wrote
down before it submitted.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from ..receipts.outcome import Outcome, read_outcome
from ..receipts.verify import ReceiptPolicy, Verification, assess
from ..wire.encoding import sha256
from ..wire.errors import MalformedError, VerificationError
from ..wire.header import ReplyHeader
from ..wire.job import Response, Result
from ..wire.opening import Opener
from ..wire.pack import SealedReply
from .ticket import JobRecord, TicketHead
from .trust import Trust, VerifiedWorker


@dataclass(frozen=True)
class JobResult:
    """The verified end of one job.

    :param status: ``succeeded``, ``failed``, ``expired``, ``rejected`` or ``cancelled``.
    :param code: stable code of a failure, empty for a success.
    :param assurance: level that the receipt reached; ``"outcome"`` where there is no receipt.
    """

    custom_id: str
    job_id: bytes
    status: str
    code: str
    assurance: str
    outcome: bytes = field(repr=False)
    receipt: bytes | None = field(default=None, repr=False)
    response: Response | None = field(default=None, repr=False)
    receipt_key: bytes | None = None
    worker: VerifiedWorker | None = field(default=None, repr=False)
    verification: Verification | None = field(default=None, repr=False)


@dataclass
class Judge:
    """Judges the replies of one ticket."""

    head: TicketHead
    trust: Trust
    opener: Opener

    def judge(self, record: JobRecord, reply: SealedReply, now: int) -> JobResult:
        """Verify a reply against what was submitted.

        :param now: Unix seconds.
        :raises VerificationError: forged, swapped or not bound to this job.
        :raises SealingError: the result cannot be opened.
        :raises EndorsementsError: the worker's evidence cannot be found.
        """
        outcome, worker = self._outcome(record, reply)
        if outcome.status != "succeeded":
            return JobResult(
                record.custom_id,
                outcome.job_id,
                outcome.status,
                outcome.code,
                "outcome",
                reply.outcome,
                receipt_key=worker.body.receipt_key,
                worker=worker,
            )
        result = self._open(record, reply)
        if outcome.receipt_hash is None or not hmac.compare_digest(
            sha256(result.receipt), outcome.receipt_hash
        ):
            raise VerificationError("RECEIPT_HASH_MISMATCH", "the outcome is of another receipt")
        verification = self._receipt(record, result, worker, now)
        return JobResult(
            record.custom_id,
            outcome.job_id,
            outcome.status,
            outcome.code,
            verification.level,
            reply.outcome,
            result.receipt,
            self._response(record, result),
            worker.body.receipt_key,
            worker,
            verification,
        )

    def _outcome(self, record: JobRecord, reply: SealedReply) -> tuple[Outcome, VerifiedWorker]:
        unverified = read_outcome(reply.outcome)
        worker = self.trust.worker(self.head.pool, unverified.claimed.attestation_doc_hash)
        outcome = unverified.verify(worker.body.receipt_key)
        expected = (bytes.fromhex(record.job_id), self.head.pool, bytes.fromhex(record.job_hash))
        if (outcome.job_id, outcome.pool, outcome.job_hash) != expected:
            raise VerificationError("OUTCOME_MISMATCH", "the outcome is of another job")
        return outcome, worker

    def _open(self, record: JobRecord, reply: SealedReply) -> Result:
        if reply.header is None or reply.sealed is None:
            raise VerificationError("RESULT_MISSING", "a success without its result")
        header = ReplyHeader.decode(reply.header)
        if header.job_id != bytes.fromhex(record.job_id) or header.pool != self.head.pool:
            raise VerificationError("RESULT_MISMATCH", "the result is of another job")
        return Result.decode(self.opener.open(reply.header, reply.sealed))

    def _receipt(self, record: JobRecord, result: Result, worker: VerifiedWorker, now: int) -> Verification:
        policy = ReceiptPolicy(
            expected_nonce=bytes.fromhex(record.nonce),
            expected_model_id=self.head.model,
            expected_model_hash=bytes.fromhex(self.head.model_hash),
            expected_request_hash=bytes.fromhex(record.request_hash),
            expected_response_hash=sha256(result.response),
            expected_attestation_doc_hash=worker.bundle.evidence_hash,
            security_modes=tuple(self.trust.current().security_modes),
        )
        verification = assess(
            result.receipt,
            worker.body.receipt_key,
            policy,
            now,
            verified_evidence=worker.verified,
            appraisal=worker.appraisal,
        )
        if not verification.passed:
            raise VerificationError(verification.codes[0], "the receipt does not verify")
        return verification

    def _response(self, record: JobRecord, result: Result) -> Response:
        response = Response.decode(result.response)
        if response.job_id != bytes.fromhex(record.job_id) or response.salt != bytes.fromhex(record.salt):
            raise MalformedError("RESPONSE_MISMATCH", "the response is of another job")
        return response
