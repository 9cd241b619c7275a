"""Seals a batch: checks every outcome of it inside the TEE, and only then signs."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..attestation.announced import judge_announcement
from ..attestation.policy import TrustPolicy
from ..attestation.verify import endorsements_for
from ..broker_config.blobs import BlobStore, get_content
from ..receipts.batch_statement import BatchStatement, make_batch_statement
from ..receipts.batch_verify import check_outcomes, read_batch
from ..receipts.inclusion import sign_root
from ..receipts.seal_request import SealAnswer, answer_key, decode_seal_request
from ..wire.announcement import Announcement, archive_name
from ..wire.errors import DeliveryError, Error, MalformedError, VerificationError
from ..wire.pack import PackReference
from .identity import WorkerIdentity

LOG: Final = logging.getLogger("ephemeralml.worker")
MAX_WORKERS: Final = 4096


@dataclass
class EvidenceKeys:
    """Finds a worker's receipt key by its evidence: verified, appraised under our policy, and bound.

    :param pool: whose workers. :param now: wall clock, Unix seconds.
    """

    blobs: BlobStore
    policy: TrustPolicy
    pool: str
    now: Callable[[], float]
    _known: dict[bytes, bytes] = field(default_factory=dict)

    def __call__(self, evidence_hash: bytes) -> bytes:
        """Return the raw Ed25519 key.

        :raises VerificationError: :raises AppraisalError: not genuine, not wanted, or not there.
        """
        if evidence_hash not in self._known:
            if len(self._known) >= MAX_WORKERS:
                self._known.clear()
            self._known[evidence_hash] = self._judge(evidence_hash)
        return self._known[evidence_hash]

    def _judge(self, evidence_hash: bytes) -> bytes:
        try:
            announcement = Announcement.decode(self.blobs.get(archive_name(self.pool, evidence_hash)))
        except DeliveryError as error:
            if error.retriable:
                raise
            raise _unknown() from None
        except MalformedError:
            raise _unknown() from None
        if announcement.bundle.evidence_hash != evidence_hash:
            raise _unknown()
        found = judge_announcement(announcement, endorsements_for(self.policy), self.policy, int(self.now()))
        if found.body.pool != self.pool:
            raise _unknown()
        return found.body.receipt_key


def _unknown() -> VerificationError:
    return VerificationError("EVIDENCE_UNKNOWN", "nobody of this pool has announced this evidence")


@dataclass
class SealBatch:
    """What a worker does with a seal request.

    :param identity: the worker's current one. :param key_of: finds other workers' keys.
    :param now: wall clock, Unix seconds.
    """

    identity: Callable[[], WorkerIdentity]
    blobs: BlobStore
    key_of: Callable[[bytes], bytes]
    now: Callable[[], float]

    def __call__(self, message: bytes) -> bool:
        """Answer a message when it is a seal request, and return whether it was one.

        :raises DeliveryError: the blob store cannot be reached; the message must come again.
        :raises MalformedError: a bad request.
        """
        request = decode_seal_request(message)
        if request is None:
            return False
        try:
            answer = SealAnswer(statement=self.seal(self._fetch(request)))
            LOG.info("sealed a batch")
        except Error as error:
            if error.retriable:
                raise
            answer = SealAnswer(code=error.code, detail=error.message)
            LOG.warning("a batch was not sealed: %s", error.code)
        self.blobs.put(answer_key(request.digest), answer.encode())
        return True

    def seal(self, file: bytes) -> bytes:
        """Check a batch file whole and return the signed statement.

        :raises BatchFault: which items are wrong. :raises MalformedError: no batch file.
        :raises VerificationError: ``WRONG_POOL``.
        """
        identity = self.identity()
        head, outcomes = read_batch(io.BytesIO(file))
        if head.pool != identity.pool:
            raise VerificationError("WRONG_POOL", "the batch is of another pool")
        own = identity.receipt_key.public_key().public_bytes_raw()

        def key_of(evidence_hash: bytes) -> bytes:
            return own if evidence_hash == identity.evidence_hash else self.key_of(evidence_hash)

        tally = check_outcomes(head, outcomes, key_of)
        statement = BatchStatement(
            head=head,
            output_root=tally.output_root,
            counts=tally.counts,
            iat=int(self.now()),
            attestation_doc_hash=identity.evidence_hash,
            root_signature=sign_root(head, tally.output_root, identity.receipt_key),
        )
        return make_batch_statement(statement, identity.receipt_key)

    def _fetch(self, request: PackReference) -> bytes:
        file = get_content(self.blobs, request.digest.hex(), request.size)
        if len(file) != request.size:
            raise MalformedError("BATCH_FILE", "the batch file is not of the stated size")
        return file
