"""Payloads of 100 MB travel through the blob store, there and back, and are gone after their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeralml.broker_config.blobs import collect, make_blob_store
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import MalformedError
from ephemeralml.wire.job import MAX_JOB_BYTES
from ephemeralml.wire.pack import PackReference, encode_message

from .brokers import BROKERS, until
from .site import CANARY, Site, site

PATIENCE_S = 120
PAYLOAD_BYTES = 100_000_000
TEXT_BYTES = 1 << 20


@pytest.fixture(params=["redis", "sqs"])
def place(request: pytest.FixtureRequest, small_lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """A site on a broker whose blobs lie in Redis or S3."""
    with (
        BROKERS[request.param](tmp_path / "broker") as broker,
        site(small_lab, broker, tmp_path / "site") as here,
    ):
        yield here


def test_a_hundred_megabytes_come_through(place: Site) -> None:
    worker = place.worker("--concurrency", "1").ready()
    client = place.client()
    texts = tuple([CANARY + "x" * (TEXT_BYTES - len(CANARY))] * (PAYLOAD_BYTES // TEXT_BYTES))
    began = int(time.time())
    ticket = client.plan(client.trust_pool(POOL), [InputItem("0", texts)], place.folder / "large.ticket")
    with ticket:
        client.push(ticket)
        (result,) = client.results(ticket, PATIENCE_S)
    assert (result.status, result.assurance) == ("succeeded", "provenance")
    assert result.response is not None
    assert len(result.response.outputs) == len(texts)
    peak = int(next(v for k, v in _status(worker.pid) if k == "VmHWM").split()[0]) * 1024
    assert peak < 900 << 20, f"the worker took {peak >> 20} MiB for {PAYLOAD_BYTES >> 20}"
    store = make_blob_store(place.broker.settings)
    assert collect(store, began).removed == 0
    assert collect(store, time.time() + 7 * 86_400).removed >= 1
    assert list(store.list("sha256/")) == []


def _status(pid: int) -> Iterator[tuple[str, str]]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        yield key, value.strip()


def test_a_job_beyond_the_limit_is_refused_before_it_is_sealed(place: Site) -> None:
    place.worker().ready()
    client = place.client()
    texts = tuple(["x" * TEXT_BYTES] * (MAX_JOB_BYTES // TEXT_BYTES + 1))
    with pytest.raises(MalformedError, match="JOB_TOO_LARGE"):
        client.plan(client.trust_pool(POOL), [InputItem("0", texts)], place.folder / "too-large.ticket")


def test_a_blob_that_lies_is_a_dead_letter_and_harms_nobody(place: Site) -> None:
    worker = place.worker("--concurrency", "1").ready()
    store = make_blob_store(place.broker.settings)
    data = bytes(5 << 20)
    store.put(f"sha256/{sha256(data).hex()}", data + b"longer")
    with Submitter(place.broker.settings) as submitter:
        submitter.submit(POOL, encode_message(PackReference(sha256(data), len(data))))
    until(lambda: "BLOB_TAMPERED" in worker.text)
    client = place.client()
    with place.plan(client, "after", 4) as ticket:
        client.push(ticket)
        assert len(list(client.results(ticket, PATIENCE_S))) == 4
