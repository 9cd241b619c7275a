"""Inputs become jobs, jobs become sealed jobs, sealed jobs become packs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from ..wire.encoding import sha256
from ..wire.header import JobHeader
from ..wire.job import Job, Task
from ..wire.keys import PublicKey
from ..wire.pack import SealedJob
from ..wire.sealing import Sealer
from .inputs import InputItem
from .ticket import JobRecord, TicketHead
from .trust import VerifiedFleet

NONCE_BYTES: Final = 16
#: A pack is closed early when its jobs hold this many bytes.
PACK_BYTES: Final = 1 << 20


def make_job(fleet: VerifiedFleet, item: InputItem, task: Task, reply_key: PublicKey, not_after: int) -> Job:
    """Return the job of one input, with fresh salt and nonce.

    :param not_after: Unix seconds.
    """
    return Job(
        fleet.model.id,
        task,
        item.texts,
        item.parameters,
        os.urandom(32),
        os.urandom(NONCE_BYTES),
        reply_key,
        not_after,
    )


def seal_job(
    sealer: Sealer, head: TicketHead, fleet: VerifiedFleet, custom_id: str, job: Job, index: int
) -> tuple[JobRecord, SealedJob]:
    """Seal a job, and return what must be known to judge its end, and what travels."""
    job_id = os.urandom(16)
    header = JobHeader(
        job_id,
        head.pool,
        fleet.fleet_key.key_id,
        head.reply_to,
        head.not_after,
        batch_id=None if head.batch_id is None else bytes.fromhex(head.batch_id),
        index=None if head.batch_id is None else index,
    ).encode()
    request = job.encode()
    sealed = SealedJob(header, sealer.seal(header, request))
    record = JobRecord(
        job_id=job_id.hex(),
        custom_id=custom_id,
        job_hash=sealed.hash.hex(),
        request_hash=sha256(request).hex(),
        nonce=job.nonce.hex(),
        salt=job.salt.hex(),
    )
    return record, sealed


def split(jobs: Sequence[SealedJob], pack_jobs: int) -> Iterator[list[SealedJob]]:
    """Yield the jobs of each pack: at most ``pack_jobs``, and no more once they hold :data:`PACK_BYTES`."""
    pack: list[SealedJob] = []
    size = 0
    for job in jobs:
        if pack and (len(pack) >= pack_jobs or size + len(job.sealed.ciphertext) > PACK_BYTES):
            yield pack
            pack, size = [], 0
        pack.append(job)
        size += len(job.sealed.ciphertext)
    if pack:
        yield pack
