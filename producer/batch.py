"""Batches on the client's side: commit before sealing, collect outcomes, have the batch sealed."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..broker_config.blobs import put_content
from ..broker_config.submit import Submitter
from ..receipts.batch_statement import BatchHead, input_leaf, peek_batch_statement, request_commitment
from ..receipts.batch_verify import BatchVerification, verify_batch, write_batch
from ..receipts.merkle import RootBuilder
from ..receipts.seal_request import SealAnswer, answer_key, encode_seal_request
from ..wire.encoding import sha256
from ..wire.errors import ConfigurationError, DeliveryError, VerificationError
from ..wire.job import BatchCommitment, Job
from ..wire.pack import PackReference
from .ticket import Ticket

if TYPE_CHECKING:
    from .client import Client

POLL_SECONDS: Final = 0.2
#: How long a batch file waits for a worker.
KEEP_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch that was sealed and found whole; statement, key and file are what an auditor needs."""

    statement: bytes
    receipt_key: bytes
    file: bytes
    verification: BatchVerification


def commit(jobs: Sequence[Job]) -> BatchCommitment:
    """Return the commitment to jobs in the order of their indexes."""
    builder = RootBuilder()
    for index, job in enumerate(jobs):
        builder.add(input_leaf(index, request_commitment(job)))
    return BatchCommitment(builder.root(), builder.size)


def batch_file(ticket: Ticket) -> bytes:
    """Return the batch file of a ticket whose jobs have all ended.

    :raises ConfigurationError: ``NOT_A_BATCH`` or ``BATCH_UNFINISHED``.
    """
    head = ticket.head
    if head.batch_id is None or head.input_root is None:
        raise ConfigurationError("NOT_A_BATCH", "the ticket was not planned as a batch")
    if ticket.missing:
        raise ConfigurationError("BATCH_UNFINISHED", f"{len(ticket.missing)} job(s) have not ended yet")
    batch = BatchHead(
        bytes.fromhex(head.batch_id), head.pool, len(ticket.jobs), bytes.fromhex(head.input_root)
    )
    return b"".join(write_batch(batch, (ticket.replies[job_id].outcome for job_id in ticket.jobs)))


def seal_batch(client: Client, ticket: Ticket, timeout_s: float) -> SealedBatch:
    """Have a worker seal a finished batch, and verify what it signed.

    :param timeout_s: seconds to wait for a worker.
    :raises ConfigurationError: ``NOT_A_BATCH`` or ``BATCH_UNFINISHED``.
    :raises DeliveryError: ``SEAL_TIMEOUT``, or the broker cannot be reached; call again.
    :raises VerificationError: the worker refused (its code), or the statement is not sound.
    :raises EndorsementsError: the sealing worker's evidence cannot be found.
    """
    file = batch_file(ticket)
    digest = sha256(file)
    put_content(client.blobs, file, int(client.now()) + KEEP_SECONDS)
    with Submitter(client.broker) as submitter:
        submitter.submit(ticket.head.pool, encode_seal_request(PackReference(digest, len(file))))
    deadline = time.monotonic() + timeout_s
    while not client.blobs.exists(answer_key(digest)):
        if time.monotonic() > deadline:
            raise DeliveryError("SEAL_TIMEOUT", "no worker has sealed the batch yet")
        time.sleep(POLL_SECONDS)
    return check_answer(client, ticket, file, client.blobs.get(answer_key(digest)))


def check_answer(client: Client, ticket: Ticket, file: bytes, data: bytes) -> SealedBatch:
    """Verify a worker's answer against the ticket's own commitment and outcomes.

    :raises Error: as :func:`seal_batch`.
    """
    answer = SealAnswer.decode(data)
    if not answer.statement:
        raise VerificationError(answer.code, f"the batch was not sealed: {answer.detail}")
    evidence_hash = peek_batch_statement(answer.statement).attestation_doc_hash
    key = client.trust.worker(ticket.head.pool, evidence_hash).body.receipt_key
    root = bytes.fromhex(ticket.head.input_root or "")
    verification = verify_batch(answer.statement, key, io.BytesIO(file), input_root=root)
    return SealedBatch(answer.statement, key, file, verification)
