"""What the untrusted part may try, a test for each: drop, delay, duplicate, reorder, replay, re-route, swap.

Dropping and delaying must be visible to the client; everything else is refused by cryptography.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.producer.collecting import Collector, Taken
from ephemeralml.producer.ticket import Ticket
from ephemeralml.receipts.outcome import verify_outcome
from ephemeralml.wire.announcement import archive_name, newest_prefix
from ephemeralml.wire.errors import AppraisalError, EngineError, Error, SealingError, VerificationError
from ephemeralml.wire.header import JobHeader
from ephemeralml.wire.job import Job, Output
from ephemeralml.wire.pack import (
    SealedJob,
    SealedReply,
    decode_jobs,
    encode_jobs,
    encode_message,
    encode_replies,
)
from ephemeralml.workers import pipeline

from .harness import POOL, Stand, item


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.close()


def status(stand: Stand, reply: SealedReply) -> tuple[str, str]:
    outcome = verify_outcome(
        reply.outcome, stand.pipeline.identity.receipt_key.public_key().public_bytes_raw()
    )
    return outcome.status, outcome.code


def test_honest_host_delivers_a_verified_result(stand: Stand) -> None:
    ticket = stand.plan(item("four"))
    (reply,) = stand.answer(ticket)
    result = stand.judge(ticket, reply.sealed)
    assert (result.status, result.assurance, result.custom_id) == ("succeeded", "provenance", "1")
    assert result.response is not None
    assert result.response.outputs[0].vector == (4).to_bytes(4, "little")  # type: ignore[union-attr]
    assert reply.reply_to == ticket.head.reply_to


def test_dropped_jobs_stay_missing_on_the_ticket(stand: Stand) -> None:
    ticket = stand.plan(item("a", "1"), item("b", "2"), pack_jobs=1)
    kept, _dropped = stand.packs(ticket)
    for reply in stand.pipeline.answer(kept):
        stand.judge(ticket, reply.sealed)
        ticket.received(POOL, [reply.sealed])
    assert len(ticket.missing) == 1


def test_delayed_job_ends_as_signed_expired(stand: Stand) -> None:
    ticket = stand.plan(item(), lifetime_s=60)
    stand.now += 61
    (reply,) = stand.answer(ticket)
    result = stand.judge(ticket, reply.sealed)
    assert (result.status, result.code) == ("expired", "EXPIRED")
    assert stand.runs == 0


def test_duplicated_message_runs_once_and_answers_the_same(stand: Stand) -> None:
    ticket = stand.plan(item("a", "1"), item("b", "2"))
    (pack,) = stand.packs(ticket)
    first, second = stand.pipeline.answer(pack), stand.pipeline.answer(pack)
    assert first == second
    assert stand.runs == 2


def test_duplicated_reply_is_stored_once(stand: Stand) -> None:
    ticket = stand.plan(item())
    (reply,) = stand.answer(ticket)
    assert ticket.received(POOL, [reply.sealed]) == [reply.sealed]
    assert ticket.received(POOL, [reply.sealed]) == []


def test_reordered_packs_and_replies_find_their_jobs(stand: Stand) -> None:
    ticket = stand.plan(*(item("x" * n, str(n)) for n in range(1, 6)), pack_jobs=1)
    replies = [reply for pack in reversed(stand.packs(ticket)) for reply in stand.pipeline.answer(pack)]
    for reply in replies:
        result = stand.judge(ticket, reply.sealed)
        assert result.response is not None
        assert result.response.outputs[0].vector == int(result.custom_id).to_bytes(4, "little")  # type: ignore[union-attr]


def test_replayed_reply_of_another_ticket_is_refused(stand: Stand) -> None:
    old, new = stand.plan(item("old")), stand.plan(item("new"))
    (stale,) = stand.answer(old)
    job_id = bytes.fromhex(next(iter(new.jobs)))
    with pytest.raises(VerificationError, match="OUTCOME_MISMATCH"):
        stand.judge(new, replace(stale.sealed, job_id=job_id))


def test_swapped_results_inside_a_pack_are_refused(stand: Stand) -> None:
    ticket = stand.plan(item("a", "1"), item("bb", "2"))
    first, second = (reply.sealed for reply in stand.answer(ticket))
    swapped = replace(first, header=second.header, sealed=second.sealed)
    with pytest.raises(VerificationError, match="RESULT_MISMATCH"):
        stand.judge(ticket, swapped)
    with pytest.raises(SealingError):
        stand.judge(ticket, replace(first, sealed=second.sealed))


@pytest.mark.parametrize("field", ["pool", "reply_to", "not_after", "job_id"])
def test_rewritten_header_cannot_be_opened(stand: Stand, field: str) -> None:
    ticket = stand.plan(item())
    (sealed,) = decode_jobs(stand.packs(ticket)[0])[1]
    header = JobHeader.decode(sealed.header)
    values: dict[str, Any] = {
        "pool": "elsewhere",
        "reply_to": "reply." + "f" * 32,
        "not_after": header.not_after + 1,
        "job_id": bytes(16),
    }
    forged = replace(header, **{field: values[field]}).encode()
    (reply,) = stand.pipeline.answer(encode_jobs(POOL, [SealedJob(forged, sealed.sealed)]))
    code = "WRONG_POOL" if field == "pool" else "CANNOT_OPEN"
    assert status(stand, reply.sealed) == ("rejected", code)
    with pytest.raises((VerificationError, KeyError)):
        stand.judge(ticket, reply.sealed)
    assert stand.runs == 0


def test_job_carried_to_another_pool_is_refused_there(stand: Stand, tmp_path: Path) -> None:
    other = Stand(tmp_path / "other", pool="other")
    ticket = stand.plan(item())
    (sealed,) = decode_jobs(stand.packs(ticket)[0])[1]
    moved = replace(JobHeader.decode(sealed.header), pool="other").encode()
    (reply,) = other.pipeline.answer(encode_jobs("other", [SealedJob(moved, sealed.sealed)]))
    outcome = verify_outcome(
        reply.sealed.outcome, other.pipeline.identity.receipt_key.public_key().public_bytes_raw()
    )
    assert (outcome.status, outcome.code) == ("rejected", "CANNOT_OPEN")
    with pytest.raises(Error):
        stand.judge(ticket, reply.sealed)


def test_one_bad_job_never_harms_its_neighbours(stand: Stand) -> None:
    ticket = stand.plan(item("a", "1"), item("b", "2"), item("c", "3", fail=True), item("d", "4"))
    pool, jobs = decode_jobs(stand.packs(ticket)[0])
    damaged = replace(jobs[1], sealed=replace(jobs[1].sealed, ciphertext=jobs[1].sealed.ciphertext[::-1]))
    unreadable = SealedJob(b"\xff", jobs[0].sealed)
    replies = stand.pipeline.answer(encode_jobs(pool, [jobs[0], damaged, unreadable, jobs[2], jobs[3]]))
    assert [status(stand, reply.sealed)[0] for reply in replies] == [
        "succeeded",
        "rejected",
        "failed",
        "succeeded",
    ]


def collector_of(stand: Stand, ticket: Ticket) -> Collector:
    client = stand.client
    return Collector(ticket, client.trust, client.now, client._discard)


def test_forged_reply_does_not_take_the_place_of_the_real_one(stand: Stand) -> None:
    ticket = stand.plan(item())
    (reply,) = stand.answer(ticket)
    forged = replace(reply.sealed, outcome=reply.sealed.outcome[:-1] + bytes([reply.sealed.outcome[-1] ^ 1]))
    take = stand.client._take  # the client's own way of taking a message
    collector = collector_of(stand, ticket)
    assert take(collector, encode_message(encode_replies(POOL, [forged]))) == Taken([], judged=True)
    assert take(collector, b"garbage") == Taken([], judged=True)
    assert stand.client.discarded == 2
    assert len(ticket.missing) == 1
    taken = take(collector, encode_message(encode_replies(POOL, [reply.sealed])))
    assert taken.judged
    (result,) = taken.results
    assert result.status == "succeeded"
    assert not ticket.missing


def test_reply_from_an_unwanted_worker_is_discarded(stand: Stand) -> None:
    ticket = stand.plan(item())
    rogue = stand.worker(image="another-image")
    (reply,) = rogue.answer(stand.packs(ticket)[0])
    with pytest.raises(AppraisalError, match="MEASUREMENT_MISMATCH"):
        stand.judge(ticket, reply.sealed)
    collector = collector_of(stand, ticket)
    message = encode_message(encode_replies(POOL, [reply.sealed]))
    assert stand.client._take(collector, message) == Taken([], judged=True)
    assert len(ticket.missing) == 1


@pytest.mark.parametrize("hide", ["nothing there", "junk", "another's"])
def test_reply_whose_evidence_is_hidden_stays_undecided(stand: Stand, hide: str) -> None:
    ticket = stand.plan(item())
    late = stand.worker()
    (reply,) = late.answer(stand.packs(ticket)[0])
    name = archive_name(POOL, late.identity.evidence_hash)
    if hide == "nothing there":
        stand.blobs.delete(name)
    else:
        other = archive_name(POOL, stand.pipeline.identity.evidence_hash)
        stand.blobs.put(name, b"junk" if hide == "junk" else stand.blobs.get(other))
    collector = collector_of(stand, ticket)
    message = encode_message(encode_replies(POOL, [reply.sealed]))
    assert stand.client._take(collector, message) == Taken([], judged=False)
    assert len(ticket.missing) == 1


def test_results_are_judged_after_their_worker_announced_again(stand: Stand, tmp_path: Path) -> None:
    """A new client process knows nothing of the old announcement but its evidence's hash."""
    ticket = stand.plan(item())
    (reply,) = stand.answer(ticket)
    for name in list(stand.blobs.list(newest_prefix(POOL))):
        stand.blobs.delete(name)
    stand.worker()
    stand.client.trust._workers.clear()
    assert stand.judge(ticket, reply.sealed).status == "succeeded"


def test_an_engine_that_throws_ends_every_job_in_a_signed_failure(stand: Stand) -> None:
    def throw(jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
        raise RuntimeError("a text of the engine that must not travel")

    stand.pipeline.runner = throw
    ticket = stand.plan(item("a", "1"), item("b", "2"))
    for reply in stand.answer(ticket):
        result = stand.judge(ticket, reply.sealed)
        assert (result.status, result.code) == ("failed", "ENGINE_FAILED")


def test_stored_replies_are_bounded_in_bytes(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "REPLAY_BYTES", 5000)
    ticket = stand.plan(*(item("x", str(n)) for n in range(20)))
    stand.answer(ticket)
    assert 0 < len(stand.pipeline._finished) < 20
    assert stand.pipeline._finished_bytes <= 5000


def test_announcement_with_another_receipt_key_is_left_out(stand: Stand) -> None:
    stand.worker(announced_key=bytes(32))
    fleet = stand.fleet()
    assert len(fleet.workers) == 1
    assert [code for _, code in fleet.refused] == ["KEY_BINDING_FAILED"]


def test_fleet_without_a_trusted_worker_cannot_be_sealed_to(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.now += 3601
    with pytest.raises(AppraisalError, match="NO_TRUSTED_WORKER"):
        stand.fleet()


@pytest.mark.parametrize("part", ["iv", "ciphertext", "recipient"])
def test_a_job_that_the_host_broke_is_still_answered(stand: Stand, part: str) -> None:
    ticket = stand.plan(item("four"))
    (pack,) = stand.packs(ticket)
    _, (job,) = decode_jobs(pack)
    value = getattr(job.sealed, part)
    broken = replace(job, sealed=replace(job.sealed, **{part: value[:-1] + bytes([value[-1] ^ 1])}))
    (refusal,) = stand.pipeline.answer(encode_jobs(POOL, [broken]))
    assert status(stand, refusal.sealed) == ("rejected", "CANNOT_OPEN")
    with pytest.raises(VerificationError, match="OUTCOME_MISMATCH"):
        stand.judge(ticket, refusal.sealed)
    (reply,) = stand.pipeline.answer(pack)
    assert stand.judge(ticket, reply.sealed).status == "succeeded"
