"""What docs/operations.md says of backups: a Redis put back changes no end, lost keys are mended."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ephemeralml.attestation.key_release.stored import claim_name, key_name
from ephemeralml.broker_config.blobs import make_blob_store
from ephemeralml.broker_config.health import depth
from ephemeralml.producer.cli.keys import app
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.producer.ticket import Ticket

from .brokers import redis
from .site import Site, right, site

PATIENCE_S = 60


@pytest.fixture
def place(small_lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """A site on a Redis server that holds the blobs too."""
    with redis(tmp_path) as broker, site(small_lab, broker, tmp_path / "site") as here:
        yield here


def test_a_redis_put_back_runs_jobs_again_and_changes_no_end(place: Site, tmp_path: Path) -> None:
    broker, data = place.broker, tmp_path / "redis"
    assert broker.stop is not None
    assert broker.start is not None
    first = place.worker().ready()
    client = place.client()
    client.trust_pool(POOL)
    first.signal(signal.SIGTERM)
    first.ended()
    with place.plan(client, "kept", 8, pack_jobs=4) as ticket:
        client.push(ticket)
    broker.stop(False)
    shutil.copytree(data, tmp_path / "backup")
    path = place.folder / "kept.ticket"
    behind = path.with_name("behind.ticket")  # of a client that has read nothing yet
    shutil.copy(path, behind)

    broker.start()
    place.worker("--drain").ended()
    with Ticket.load(path) as ticket:
        ended = {result.custom_id: result.outcome for result in client.results(ticket, PATIENCE_S)}
    assert len(ended) == 8

    broker.stop(False)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    broker.start()
    assert depth(broker.settings, POOL).waiting == 2
    place.worker("--drain").ended()
    assert depth(broker.settings, POOL).waiting == 0
    with Ticket.load(path) as ticket:
        assert {one.custom_id: one.outcome for one in client.results(ticket, PATIENCE_S)} == ended
    with Ticket.load(behind) as ticket:
        late = list(client.results(ticket, PATIENCE_S))
    assert sorted(one.custom_id for one in late) == sorted(ended)
    assert all(right("kept", one) for one in late)
    assert client.discarded == 0


def test_lost_fleet_keys_are_mended_by_one_order(place: Site) -> None:
    often = {"EPHEMERALML_WORKER_KEY_POLL_SECONDS": "0.2"}
    place.worker(**often).ready()
    client = place.client()
    epoch = client.trust_pool(POOL).epoch
    blobs = make_blob_store(place.broker.settings)
    for name in (key_name(POOL, epoch), claim_name(POOL, epoch)):
        blobs.delete(name)
    place.worker(**often).ready()
    workers = client.trust_pool(POOL).workers.values()
    assert len({worker.body.fleet_key.key_id for worker in workers}) == 2, "two keys of one epoch"

    order = ["rotate", "--pool", POOL, "--key", str(place.lab.operator_key), "--json"]
    environment = {**place.lab.worker_environment, **place.broker.environment}
    done = CliRunner().invoke(app, order, env=environment)
    told = json.loads(done.stdout)
    assert (done.exit_code, told["current"], told["keys"][0]["workers"]) == (0, epoch + 1, 2)
    client = place.client()
    with place.plan(client, "mended", 8, pack_jobs=1) as ticket:
        client.push(ticket)
        results = list(client.results(ticket, PATIENCE_S))
    assert len(results) == 8
    assert all(right("mended", one) for one in results)
