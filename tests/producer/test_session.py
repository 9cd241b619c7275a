"""The session: single jobs over one reply queue, judged as tickets are, with a host that meddles."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

import pytest

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import BrokerSettings, broker_settings
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.session import Session
from ephemeralml.wire.announcement import ModelIdentity, archive_name
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, ConfigurationError, DeliveryError, Error
from ephemeralml.wire.job import Turn
from ephemeralml.wire.pack import SealedReply, decode_jobs
from ephemeralml.workers.pipeline import Reply

from ..proxy.host import POOL, Host


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
