"""Attempts of the demo ``--hostile`` on messages: read, change, swap, replay, drop, re-route."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...receipts.outcome import make_outcome, read_outcome
from ...wire.errors import SealingError
from ...wire.opening import Opener
from ...wire.pack import SealedJob, SealedReply, decode_jobs
from ...wire.private_keys import PrivateKey
from ..lab import POOL
from ..ticket import Ticket
from .demo_host import forms
from .demo_scene import MARK, OTHER_POOL, Met, NotMet, Scene, altered, flipped, succeeded

#: A deadline that passes while the host holds the job.
SHORT_LIFE_S: Final = 1


def read_everything(scene: Scene) -> Met:
    """Search all that the host can read for an input, before and after its job ran; try a key of its own."""
    lab, host = scene.lab, scene.host
    folders = [lab.state, lab.folder / "kms"]
    with scene.intercepted() as (ticket, entry):
        host.put(POOL, entry)
        seen = host.sees(folders, lab.folder.glob("*.log"))
    host.put_replies(ticket.head.reply_to, POOL, host.take_replies(ticket.head.reply_to))
    after = host.sees(folders, lab.folder.glob("*.log"))
    (job_id,) = map(bytes.fromhex, ticket.jobs)
    if not all(any(job_id in content for content in places.values()) for places in (seen, after)):
        raise NotMet("the search does not even find what is public")
    whole = [*seen.values(), *after.values()]
    if any(form in content for content in whole for form in forms(MARK)):
        raise NotMet("an input can be read")
    own, job = PrivateKey.generate(), _sealed(ticket)
    try:
        Opener([own], "job").open(job.header, job.sealed)
    except SealingError as error:
        places = len(seen | after)
        return Met(error.code, f"only ciphertext in {places} places, {sum(map(len, whole)) >> 10:,} KiB")
    raise NotMet("a job was opened with a key of the host's")


def change_job(scene: Scene) -> Met:
    """Flip one bit of a sealed job on its way."""
    with scene.intercepted() as (ticket, entry):
        part = _sealed(ticket).sealed.ciphertext
        scene.host.put(POOL, entry.replace(part, flipped(part)))
    return scene.refused_by_worker(ticket.head.reply_to)


def change_result(scene: Scene) -> Met:
    """Flip one bit of a sealed result on its way back."""
    with scene.answered() as (ticket, (reply,)):
        return scene.discarded(ticket, altered(reply), reply)


def forge_outcome(scene: Scene) -> Met:
    """Sign, with a key of the host's, that a job has failed, in the name of an attested worker."""
    with scene.answered() as (ticket, (reply,)):
        said = read_outcome(reply.outcome).claimed
        failed = replace(said, status="failed", code="ENGINE_FAILED", receipt_hash=None)
        forged = SealedReply(reply.job_id, make_outcome(failed, Ed25519PrivateKey.generate()))
        return scene.discarded(ticket, forged, reply)


def swap_results(scene: Scene) -> Met:
    """Exchange the sealed results of two jobs of one client."""
    with scene.answered(2) as (ticket, (one, other)):
        forged = replace(one, header=other.header, sealed=other.sealed)
        code, before = scene.refusal(ticket, forged), scene.client.discarded
        crossed = replace(other, header=one.header, sealed=one.sealed)
        for reply in (forged, crossed, one, other):
            scene.host.put_replies(ticket.head.reply_to, POOL, [reply])
        succeeded(scene.ends(ticket), 2)
        if scene.client.discarded != before + 2:
            raise NotMet("the client did not discard both")
    return Met(code, "both discarded; the honest answers count")


def swap_answers(scene: Scene) -> Met:
    """Give one job the whole answer of another, outcome and all, under the first one's id."""
    with scene.answered(2) as (ticket, (one, other)):
        code = scene.refusal(ticket, replace(other, job_id=one.job_id))
        scene.host.put_replies(ticket.head.reply_to, POOL, [replace(other, job_id=one.job_id), one, other])
        succeeded(scene.ends(ticket), 2)
    return Met(code, "discarded by the client; the honest answers count")


def replay_job(scene: Scene) -> Met:
    """Deliver an answered job a second time."""
    with scene.intercepted() as (ticket, entry):
        scene.host.put(POOL, entry)
    reply_to = ticket.head.reply_to
    (first,) = scene.host.take_replies(reply_to)
    scene.host.put(POOL, entry)
    (second,) = scene.host.take_replies(reply_to)
    if first != second:
        raise NotMet("the job was run again")
    with Ticket.load(scene.file(ticket)) as again:
        for reply in (first, second):
            scene.host.put_replies(reply_to, POOL, [reply])
        succeeded(scene.ends(again), 1)
    return Met("", "not run again: the same sealed answer came back, and counts once")


def replay_answer(scene: Scene) -> Met:
    """Answer a new job by the recorded answer of an earlier one."""
    with scene.answered() as (_, (old,)), scene.answered() as (ticket, (new,)):
        return scene.discarded(ticket, replace(old, job_id=new.job_id), new)


def delay_job(scene: Scene) -> Met:
    """Hold a job back until its deadline has passed, then deliver it."""
    with scene.intercepted(lifetime_s=SHORT_LIFE_S) as (ticket, entry):
        while time.time() <= ticket.head.not_after + 1:
            time.sleep(0.05)
        scene.host.put(POOL, entry)
    return scene.refused_by_worker(ticket.head.reply_to)


def drop_job(scene: Scene) -> Met:
    """Remove a job from its queue."""
    with scene.intercepted() as (ticket, _):
        pass
    with Ticket.load(scene.file(ticket)) as again:
        succeeded(scene.ends(again), 1)
    return Met("", "the client asked again after one and a half leases, and was answered")


def drop_everything(scene: Scene) -> Met:
    """Let no job arrive at all, for as long as the client waits; then give in."""
    with scene.intercepted() as (ticket, entry):
        file = scene.file(ticket)
    with Ticket.load(file) as ticket, scene.host.stopped():
        came, missing = scene.ends(ticket, 1.0), len(ticket.missing)
    if came or missing != 1:
        raise NotMet("the client does not say what is missing")
    scene.host.put(POOL, entry)
    with Ticket.load(file) as ticket:
        succeeded(scene.ends(ticket), 1)
    return Met("", "the client named the missing job; its ticket went on when the host gave in")


def to_another_pool(scene: Scene) -> Met:
    """Move a job, as it is, to the queue of another pool."""
    with scene.intercepted() as (ticket, entry):
        scene.host.put(OTHER_POOL, entry)
    return scene.refused_by_worker(ticket.head.reply_to, OTHER_POOL)


def to_another_pool_renamed(scene: Scene) -> Met:
    """Move a job to another pool's queue and write that pool's name over its own wherever it stands."""
    with scene.intercepted() as (ticket, entry):
        scene.host.put(OTHER_POOL, entry.replace(POOL.encode(), OTHER_POOL.encode()))
    return scene.refused_by_worker(ticket.head.reply_to, OTHER_POOL)


def to_another_client(scene: Scene) -> Met:
    """Write a reply queue of the host's over the client's in a job's header."""
    own = "reply." + secrets.token_hex(16)
    with scene.intercepted() as (ticket, entry):
        scene.host.put(POOL, entry.replace(ticket.head.reply_to.encode(), own.encode()))
    return scene.refused_by_worker(own)


def _sealed(ticket: Ticket) -> SealedJob:
    """Return the one job of a ticket as it travels."""
    return decode_jobs(next(iter(ticket.packs.values())))[1][0]
