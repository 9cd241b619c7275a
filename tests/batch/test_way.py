"""A batch on its whole way: commit, run by two workers, seal, verify; and what a host may try."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ephemeralml.broker_config.blobs import put_content
from ephemeralml.producer.batch import SealedBatch, batch_file, check_answer
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import Judge
from ephemeralml.producer.ticket import Ticket
from ephemeralml.receipts.batch_statement import input_leaf, request_commitment
from ephemeralml.receipts.merkle import tree_root
from ephemeralml.receipts.outcome import peek_outcome
from ephemeralml.receipts.seal_request import SealAnswer, answer_key, decode_seal_request, encode_seal_request
from ephemeralml.wire.announcement import archive_name
from ephemeralml.wire.encoding import encode, sha256
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError, VerificationError
from ephemeralml.wire.header import JobHeader
from ephemeralml.wire.job import BatchCommitment, Job
from ephemeralml.wire.keys import PublicKey
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import PackReference, SealedJob, decode_jobs, encode_jobs
from ephemeralml.wire.sealing import Sealer
from ephemeralml.workers.pipeline import Pipeline
from ephemeralml.workers.seal_batch import EvidenceKeys, SealBatch

from ..way.harness import IMAGE, POOL, Stand

ITEMS = [InputItem(f"id-{i}", (f"text {i}",), {"fail": True} if i == 5 else {}) for i in range(9)]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.close()


def planned(stand: Stand) -> Ticket:
    ticket = stand.client.plan(
        stand.fleet(), ITEMS, stand.folder / os.urandom(4).hex(), pack_jobs=4, batch=True
    )
    stand.tickets.append(ticket)
    return ticket


def run(stand: Stand, ticket: Ticket, workers: list[Pipeline]) -> None:
    judge = Judge(ticket.head, stand.client.trust, Opener([ticket.reply_key], "result"))
    for number, pack in enumerate(ticket.pending_packs.values()):
        replies = [reply.sealed for reply in workers[number % len(workers)].answer(pack)]
        for reply in replies:
            judge.judge(ticket.jobs[reply.job_id.hex()], reply, int(stand.now))
        ticket.received(POOL, replies)


def sealer(stand: Stand, pipeline: Pipeline | None = None) -> SealBatch:
    worker = pipeline or stand.pipeline
    keys = EvidenceKeys(stand.blobs, stand.policy, POOL, lambda: stand.now)
    return SealBatch(lambda: worker.identity, stand.blobs, keys, lambda: stand.now)


def ask(stand: Stand, ticket: Ticket, file: bytes) -> SealedBatch:
    digest = sha256(file)
    put_content(stand.blobs, file)
    assert sealer(stand)(encode_seal_request(PackReference(digest, len(file))))
    return check_answer(stand.client, ticket, batch_file(ticket), stand.blobs.get(answer_key(digest)))


def test_a_batch_of_two_workers_is_sealed_and_found_whole(stand: Stand) -> None:
    second = stand.worker()
    ticket = planned(stand)
    run(stand, ticket, [stand.pipeline, second])
    batch = ask(stand, ticket, batch_file(ticket))
    assert batch.verification.statement.counts == {"succeeded": 8, "failed": 1}
    workers = {peek_outcome(reply.outcome).attestation_doc_hash for reply in ticket.replies.values()}
    assert len(workers) == 2


def test_the_commitment_is_over_every_request_and_survives_a_crash(stand: Stand) -> None:
    ticket = planned(stand)
    opener = Opener([stand.fleet_key], "job")
    leaves: list[bytes] = []
    commitments = set()
    for pack in ticket.pending_packs.values():
        for sealed in decode_jobs(pack)[1]:
            header = JobHeader.decode(sealed.header)
            job = Job.decode(opener.open(sealed.header, sealed.sealed))
            assert header.index == len(leaves)
            leaves.append(input_leaf(len(leaves), request_commitment(job)))
            commitments.add(job.batch)
    assert commitments == {BatchCommitment(tree_root(leaves), 9)}
    assert ticket.head.input_root == tree_root(leaves).hex()
    ticket.close()
    (path,) = (path for path in stand.folder.iterdir() if path.is_file())
    with Ticket.load(path) as again:
        assert again.head == ticket.head


def test_a_dropped_item_is_named_by_the_worker(stand: Stand) -> None:
    ticket = planned(stand)
    run(stand, ticket, [stand.pipeline])
    whole = batch_file(ticket)
    third = encode(ticket.replies[list(ticket.jobs)[3]].outcome)
    assert third in whole
    with pytest.raises(VerificationError, match="DROPPED item 3") as caught:
        ask(stand, ticket, whole.replace(third, b""))
    assert caught.value.code == "DROPPED"


def test_evidence_that_is_not_there_or_not_wanted_is_named(stand: Stand) -> None:
    other = stand.worker()
    ticket = planned(stand)
    run(stand, ticket, [other])
    kept = archive_name(POOL, other.identity.evidence_hash)
    announcement = stand.blobs.get(kept)
    stand.blobs.delete(kept)
    with pytest.raises(VerificationError, match="UNTRUSTED_WORKER item 0"):
        sealer(stand).seal(batch_file(ticket))
    stranger = stand.worker(image="not " + IMAGE)
    # Another worker's announcement in its place vouches for another key.
    stand.blobs.put(kept, stand.blobs.get(archive_name(POOL, stand.pipeline.identity.evidence_hash)))
    with pytest.raises(VerificationError, match="UNTRUSTED_WORKER item 0"):
        sealer(stand).seal(batch_file(ticket))
    stand.blobs.put(kept, announcement)
    assert sealer(stand).seal(batch_file(ticket))
    with pytest.raises(Error):
        sealer(stand).key_of(stranger.identity.evidence_hash)


def test_an_unfinished_batch_and_a_plain_ticket_are_not_sealed(stand: Stand) -> None:
    with pytest.raises(ConfigurationError, match="BATCH_UNFINISHED"):
        batch_file(planned(stand))
    with pytest.raises(ConfigurationError, match="NOT_A_BATCH"):
        batch_file(stand.plan(*ITEMS))


def test_another_pool_is_not_sealed(stand: Stand) -> None:
    ticket = planned(stand)
    run(stand, ticket, [stand.pipeline])
    worker = sealer(stand)
    foreign = replace(stand.pipeline.identity, pool="other")
    with pytest.raises(VerificationError, match="WRONG_POOL"):
        replace(worker, identity=lambda: foreign).seal(batch_file(ticket))


@pytest.mark.parametrize(("index", "batch"), [(None, True), (0, False), (9, True)])
def test_header_and_commitment_must_agree(stand: Stand, index: int | None, batch: bool) -> None:
    key: PublicKey = stand.fleet_key.public_key
    not_after = int(stand.now) + 60
    header = JobHeader(
        bytes(16),
        POOL,
        key.key_id,
        "reply." + "0" * 32,
        not_after,
        None if index is None else bytes(16),
        index,
    )
    commitment = BatchCommitment(bytes(32), 9) if batch else None
    model = stand.pipeline.identity.model.id
    job = Job(model, "embed", ("a",), {}, bytes(32), bytes(16), key, not_after, commitment)
    sealed = Sealer(key, "job", monotonic=lambda: 0.0).seal(header.encode(), job.encode())
    (reply,) = stand.pipeline.answer(encode_jobs(POOL, [SealedJob(header.encode(), sealed)]))
    outcome = peek_outcome(reply.sealed.outcome)
    assert (outcome.status, outcome.code) == ("rejected", "BATCH_MISMATCH")


def test_other_messages_are_not_seal_requests(stand: Stand) -> None:
    assert decode_seal_request(encode([0, b"pack"])) is None
    assert not sealer(stand)(encode([0, b"pack"]))
    for bad in ([2, b"short", 1], [2, bytes(32), 0], [2, bytes(32), True], [2, bytes(32), 1 << 40]):
        with pytest.raises(MalformedError):
            decode_seal_request(encode(bad))
    with pytest.raises(MalformedError):
        SealAnswer.decode(encode({1: 1, 3: ""}))


def test_a_request_for_a_blob_that_is_not_there_is_answered(stand: Stand) -> None:
    assert sealer(stand)(encode_seal_request(PackReference(bytes(32), 5)))
    assert SealAnswer.decode(stand.blobs.get(answer_key(bytes(32)))).code == "BLOB_MISSING"
