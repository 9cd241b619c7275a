"""The session: single jobs over one reply queue, judged as tickets are, with a host that meddles."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import BrokerSettings, broker_settings
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.session import Session
from ephemeralml.wire.announcement import ModelIdentity, archive_name
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, ConfigurationError, DeliveryError, Error
from ephemeralml.wire.job import Turn
from ephemeralml.wire.pack import decode_jobs
from ephemeralml.workers.pipeline import Reply

from ..proxy.host import Host


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSettings]:
    with broker_running(broker_settings(state_dir=tmp_path_factory.mktemp("broker"))) as running:
        yield running.model_copy(update={"visibility_timeout_s": 1.0})


@pytest.fixture
def host(settings: BrokerSettings, tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path, settings, pool="p" + os.urandom(4).hex()) as host:
        yield host


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host.client(), [host.pool]) as session:
        yield session
        host.stop()


def item(text: str = "a text", custom_id: str = "1") -> InputItem:
    return InputItem(custom_id, (text,))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_one_job_is_answered_with_provenance(session: Session) -> None:
    result = session.ask(item())
    assert (result.status, result.assurance, result.custom_id) == ("succeeded", "provenance", "1")
    assert result.response is not None
    assert result.receipt is not None


def test_many_at_once_travel_in_packs_under_one_key_encapsulation(session: Session, host: Host) -> None:
    async def ask() -> list[JobResult]:
        return await asyncio.gather(*(session.run(item(f"text {n}", str(n))) for n in range(100)))

    results = asyncio.run(ask())
    assert [result.custom_id for result in results] == [str(n) for n in range(100)]
    assert {result.assurance for result in results} == {"provenance"}
    assert len(host.packs) < 40
    blocks = {job.sealed.recipient for pack in host.packs for job in decode_jobs(pack)[1]}
    assert len(blocks) == 1
    assert (session.counts.submitted, session.counts.answered) == (100, 100)


def test_a_signed_failure_is_a_result(session: Session) -> None:
    result = session.ask(InputItem("1", ("x",), {"dimensions": 9999}))
    assert (result.status, result.code, result.assurance) == ("failed", "ENGINE_BAD_PARAMETERS", "outcome")
    assert result.response is None


def test_large_packs_travel_by_the_blob_store(session: Session) -> None:
    assert session.ask(InputItem("1", ("x" * 900_000,))).status == "succeeded"


def test_what_cannot_be_encoded_fails_alone(session: Session) -> None:
    bad, good = session.submit(item("\ud800")), session.submit(item())
    assert isinstance(bad.exception(20), Error)
    assert good.result(20).status == "succeeded"


def test_an_unanswered_pack_is_submitted_again(session: Session, host: Host) -> None:
    host.deaf = True
    future = session.submit(item())
    wait_for(lambda: host.packs)
    host.deaf = False
    assert future.result(20).status == "succeeded"
    assert session.counts.resubmitted >= 1
    assert host.packs[0] == host.packs[-1]


def test_a_worker_that_takes_a_job_too_late_signs_that(session: Session, host: Host) -> None:
    host.meddle = lambda replies: replies
    host.pipeline.unix = lambda: time.time() + 3600
    result = session.ask(item())
    assert (result.status, result.code) == ("expired", "EXPIRED")


def test_nobody_answers_before_the_deadline(session: Session, host: Host) -> None:
    host.deaf = True
    with pytest.raises(DeliveryError, match="JOB_UNANSWERED"):
        session.ask(item(), lifetime_s=1)
    assert session.pending == 0


def test_an_answer_that_cannot_be_judged_yet_is_judged_later(session: Session, host: Host) -> None:
    name = archive_name(host.pool, host.pipeline.identity.evidence_hash)
    announcement = host.blobs.get(name)
    session.client.trust._workers.clear()
    host.blobs.delete(name)
    future = session.submit(item())
    wait_for(lambda: host.jobs)
    with pytest.raises(TimeoutError):
        future.result(0.3)
    host.blobs.put(name, announcement)
    assert future.result(20).assurance == "provenance"


def test_junk_is_discarded_and_the_real_answer_taken(session: Session, host: Host) -> None:
    def meddle(replies: list[Reply]) -> list[Reply]:
        junk = [replace(reply.sealed, outcome=os.urandom(200)) for reply in replies]
        host.publisher.publish(replies[0].reply_to, b"no message at all")
        return [Reply(reply.reply_to, sealed) for reply, sealed in zip(replies, junk, strict=True)] + replies

    host.meddle = meddle
    assert session.ask(item()).status == "succeeded"
    assert session.counts.discarded == 2


def test_the_first_answer_counts_and_later_ones_are_dropped(session: Session, host: Host) -> None:
    host.meddle = lambda replies: replies * 3
    for _ in range(3):
        assert session.ask(item()).status == "succeeded"
    assert session.counts.answered == 3


def test_an_answer_of_an_unwanted_worker_counts_nothing(session: Session, host: Host) -> None:
    def withdraw(replies: list[Reply]) -> list[Reply]:
        host.switch.policy = host.switch.policy.model_copy(update={"models": ()})
        return replies

    host.meddle = withdraw
    with pytest.raises(AppraisalError, match="MODEL_NOT_ALLOWED"):
        session.ask(item(), lifetime_s=1)
    with pytest.raises(AppraisalError, match="NO_TRUSTED_WORKER"):
        session.ask(item())


def test_a_policy_that_ends_ends_what_is_under_way(session: Session, host: Host) -> None:
    def end(replies: list[Reply]) -> list[Reply]:
        host.switch.ended = True
        return replies

    host.meddle = end
    with pytest.raises(AppraisalError, match="POLICY_EXPIRED"):
        session.ask(item())


def test_jobs_are_judged_by_the_model_they_were_sealed_for(session: Session, host: Host) -> None:
    host.pipeline.identity = replace(
        host.pipeline.identity, model=ModelIdentity("tiny-model", "2", sha256(b"another"))
    )
    with pytest.raises(Error, match="MODEL_HASH_MISMATCH"):
        session.ask(item(), lifetime_s=1)


def test_a_cancelled_job_is_forgotten(session: Session, host: Host) -> None:
    host.deaf = True
    turn = (Turn("user", "a long story"),)
    future = session.submit(InputItem("1", (turn,)), task="generate")
    wait_for(lambda: host.packs)
    assert future.cancel()
    wait_for(lambda: list(host.blobs.list(f"cancel/{host.pool}/")))
    assert session.pending == 0
    with pytest.raises(CancelledError):
        future.result()


def test_cancelling_the_task_cancels_the_job(session: Session, host: Host) -> None:
    host.deaf = True

    async def leave() -> None:
        await asyncio.wait_for(session.run(item()), 0.3)

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    wait_for(lambda: session.pending == 0)
    host.deaf = False
    assert session.ask(item()).status == "succeeded"


def test_more_jobs_than_may_wait_are_refused(host: Host) -> None:
    host.deaf = True
    with Session(host.client(), [host.pool], max_pending=2) as session:
        waiting = [session.submit(item()) for _ in range(2)]
        with pytest.raises(DeliveryError, match="SESSION_BUSY"):
            session.submit(item())
    for future in waiting:
        assert isinstance(future.exception(), DeliveryError)
    with pytest.raises(DeliveryError, match="SESSION_CLOSED"):
        session.submit(item())


def test_it_begins_with_trust_only(host: Host) -> None:
    with pytest.raises(ConfigurationError, match="POOL_UNKNOWN"):
        Session(host.client(), [host.pool, "nobody"]).__enter__()
    host.switch.policy = host.switch.policy.model_copy(update={"models": ()})
    with pytest.raises(AppraisalError, match="NO_TRUSTED_WORKER"):
        Session(host.client(), [host.pool]).__enter__()
    with pytest.raises(ConfigurationError, match="NO_POOL"):
        Session(host.client(), [])


def test_only_its_pools_are_served(session: Session) -> None:
    with pytest.raises(ConfigurationError, match="POOL_NOT_SERVED"):
        session.ask(item(), pool="another")


def test_reply_keys_change_and_answers_to_the_old_one_are_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ephemeralml.producer.lane.REPLY_KEY_SECONDS", 0.0)
    with Session(host.client(), [host.pool]) as session:
        host.deaf = True
        early = session.submit(item())
        wait_for(lambda: host.packs)
        host.deaf = False
        assert session.ask(item()).status == "succeeded"
        assert early.result(20).status == "succeeded"
    assert len({job.reply_key.key_id for job in host.jobs}) == 2


def test_a_broker_that_goes_away_is_said_and_comes_back(host: Host, tmp_path: Path) -> None:
    client = host.client()
    client.broker = host.settings.model_copy(
        update={"broker_url": SecretStr(f"redis+socket://{tmp_path / 'r.sock'}"), "connect_timeout_s": 0.5}
    )
    with Session(client, [host.pool]) as session:
        with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
            session.ask(item())
        session.client.broker = host.settings
        assert session.ask(item()).status == "succeeded"


def test_a_fault_of_ours_leaves_nobody_waiting(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(session, "_sealed", fail)
    with pytest.raises(Error, match="SESSION_FAILED"):
        session.ask(item())
    with pytest.raises(Error, match="SESSION_FAILED"):
        session.submit(item())
