"""From inputs to a ticket: jobs are sealed and written down before anything is submitted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..attestation.policy import load_policy
from ..wire.errors import AppraisalError, ConfigurationError
from ..wire.header import JobHeader
from ..wire.job import Task
from ..wire.keys import SuiteName
from ..wire.pack import DEFAULT_PACK_JOBS, decode_jobs, encode_jobs
from ..wire.private_keys import PrivateKey
from ..wire.sealing import Sealer
from .batch import commit
from .inputs import InputItem
from .sealed_jobs import make_job, seal_job, split
from .ticket import Ticket, TicketHead
from .trust import Trust, VerifiedFleet


@dataclass(frozen=True, slots=True)
class Plan:
    """How inputs are sealed.

    :param reply_to: the reply queue that workers answer on. :param lifetime_s: seconds after which workers
        refuse the jobs. :param pack_jobs: jobs of one message, 1 to 1024. :param batch: commit to all items,
        so that a batch statement can prove the batch whole. :param gateway: address that the ticket is for.
    """

    reply_to: str
    task: Task = "embed"
    suite: SuiteName = "xwing"
    lifetime_s: int = 3600
    pack_jobs: int = DEFAULT_PACK_JOBS
    batch: bool = False
    gateway: str | None = None


def seal_ticket(
    trust: Trust,
    fleet: VerifiedFleet,
    items: Sequence[InputItem],
    path: Path,
    plan: Plan,
    now: Callable[[], float],
) -> Ticket:
    """Seal all items into packs and write the ticket.

    :param now: wall clock, Unix seconds.
    :raises ConfigurationError: the ticket cannot be written.
    :raises AppraisalError: the policy in force has ended or wants none of the workers.
    """
    fleet = trust.renewed(fleet)
    seed = secrets.token_bytes(32)
    reply_key = PrivateKey.from_seed(plan.suite, seed).public_key
    not_after = int(now()) + plan.lifetime_s
    jobs = [make_job(fleet, item, plan.task, reply_key, not_after) for item in items]
    commitment = commit(jobs) if plan.batch else None
    head = TicketHead(
        pool=fleet.pool,
        reply_to=plan.reply_to,
        suite=plan.suite,
        seed=seed.hex(),
        model=fleet.model.id,
        model_hash=fleet.model.manifest_hash.hex(),
        not_after=not_after,
        policy=fleet.policy.to_json(),
        signed_policy=trust.policy.in_force(now()).signed,
        batch_id=secrets.token_hex(16) if plan.batch else None,
        input_root=None if commitment is None else commitment.root.hex(),
        gateway=plan.gateway,
        window_s=plan.lifetime_s,
    )
    sealer = Sealer(fleet.fleet_key, "job", monotonic=time.monotonic)
    sealed = [
        seal_job(sealer, head, fleet, item.custom_id, replace(job, batch=commitment), index)
        for index, (item, job) in enumerate(zip(items, jobs, strict=True))
    ]
    ticket = Ticket.create(path, head)
    ticket.plan(
        (record for record, _ in sealed),
        (encode_jobs(fleet.pool, jobs) for jobs in split([job for _, job in sealed], plan.pack_jobs)),
    )
    return ticket


def check_wanted(trust: Trust, head: TicketHead, packs: Iterable[bytes]) -> None:
    """Refuse to submit what was sealed under an earlier policy to a key that nobody wanted now holds.

    :raises AppraisalError: ``FLEET_KEY_NOT_WANTED``, nobody is wanted, or the policy in force has ended.
    """
    if trust.current() == load_policy(head.policy.encode()):
        return
    fleet = trust.fleet(head.pool)
    wanted = {worker.body.fleet_key.key_id for worker in fleet.workers.values()}
    headers = (job.header for pack in packs for job in decode_jobs(pack)[1])
    if not {JobHeader.decode(header).key_id for header in headers} <= wanted:
        raise AppraisalError(
            "FLEET_KEY_NOT_WANTED",
            "the policy has changed, and no worker that it wants holds the key that was sealed to",
        )


def check_whole(ticket: Ticket) -> None:
    """Refuse to submit a part of what was wanted.

    :raises ConfigurationError: ``TICKET_INCOMPLETE``: the client was ended before all was sealed.
    """
    if not ticket.whole:
        raise ConfigurationError(
            "TICKET_INCOMPLETE",
            "the client was ended before all was sealed; nothing was sent: remove the ticket, submit again",
        )
