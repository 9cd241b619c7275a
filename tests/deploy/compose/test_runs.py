"""The commands and settings of docker-compose.yml run, in its order, and a batch goes all the way."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import cbor2
import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ephemeralml.broker_config.settings import BrokerSettings
from ephemeralml.producer.cli.common import make_client, read_policy
from ephemeralml.wire.pack import decode_replies

from ...servers import postgres, pstest
from .processes import ROOT, Machine, services
from .upload import seal_upload

TEXTS = ["a sealed text", "another one", "and a third"]
PATIENCE_S = 90
SERVERS = ("redis-server", "prometheus", "go")


def broker_url(machine: Machine, role: str) -> str:
    """Return the address of Redis for a role, with its password."""
    text = (machine.volume(f"broker-{role}") / "config.toml").read_text()
    return str(tomllib.loads(text)["broker"]["broker_url"])


def api(machine: Machine) -> httpx.Client:
    """Return a client of the gateway with a key that was made as the page says."""
    made = machine.run("gateway", "ephemeralml", "gateway", "keys", "create", "acme")
    assert made.returncode == 0, made.stderr
    key = next(word for word in made.stdout.split() if word.startswith("eml_"))
    return httpx.Client(
        base_url=f"http://127.0.0.1:{machine.ports['8420']}", headers={"Authorization": f"Bearer {key}"}
    )


def a_batch_goes_through_gateway_and_relay(running: Machine) -> None:
    settings = BrokerSettings(broker_url=broker_url(running, "client"), state_dir=Path("/nowhere"))
    client = make_client(settings, read_policy(running.volume("client") / "policy.json"))
    with api(running) as gateway:
        upload = seal_upload(client, gateway.get("/v1/me").json()["reply_to"], TEXTS)
        taken = gateway.post(
            "/v1/batches", content=upload.body, headers={"Content-Type": "application/cbor-seq"}
        )
        assert taken.status_code == 201, taken.text
        deadline = time.monotonic() + PATIENCE_S
        while (batch := gateway.get(f"/v1/batches/{upload.name}").json())["status"] != "completed":
            assert time.monotonic() < deadline, (batch, running.log("relay"), running.log("worker-1"))
            time.sleep(0.2)
        statement = gateway.get(f"/v1/batches/{upload.name}/statement")
        results = gateway.get(
            f"/v1/batches/{upload.name}/results", headers={"Accept": "application/cbor-seq"}
        ).content
    assert statement.status_code == 200
    stream, found = io.BytesIO(results), {}
    while stream.tell() < len(results):
        _, pack = cbor2.load(stream)
        for reply in decode_replies(pack)[1]:
            record = upload.records[reply.job_id.hex()]
            found[record.custom_id] = upload.judge.judge(record, reply, int(time.time()))
    assert {name: result.status for name, result in found.items()} == {
        f"text-{number}": "succeeded" for number in range(len(TEXTS))
    }


def a_client_submits_to_the_queue(running: Machine) -> None:
    submits(running, "client", "texts", workers=2)


def clients_submit_through_the_fakes(running: Machine) -> None:
    running.program("pstest", pstest.binary())
    for profile in ("sqs", "pubsub"):
        running.up(f"worker-{profile}")
        submits(running, f"client-{profile}", profile, workers=1)


def submits(running: Machine, client: str, name: str, *, workers: int) -> None:
    """Submit two texts as the page says, and see both answered."""
    (running.volume("client-data") / f"{name}.txt").write_text("one\ntwo\n")
    done = running.run(client, "submit", f"{name}.txt", "--pool", "minilm", "--wait")
    assert done.returncode == 0, done.stderr
    assert "succeeded 2" in done.stdout
    assert f"{workers} trusted worker(s)" in done.stderr


def flower_sees_workers_and_may_read_no_jobs(running: Machine) -> None:
    url = (running.volume("flower-config") / "broker-url").read_text()
    with redis.Redis.from_url(url) as monitor, pytest.raises(redis.exceptions.NoPermissionError):
        monitor.lrange("jobs.minilm", 0, -1)
    answer = httpx.get(f"http://127.0.0.1:{running.ports['5555']}/workers?json=1")
    assert answer.status_code == 200


def prometheus_reads_the_workers_and_the_rules(running: Machine) -> None:
    url = f"http://127.0.0.1:{running.ports['9090']}/api/v1"
    deadline = time.monotonic() + PATIENCE_S
    while not (targets := httpx.get(f"{url}/targets").json()["data"]["activeTargets"]):
        assert time.monotonic() < deadline, running.log("prometheus")
        time.sleep(0.2)  # it is ready before it has read its own targets
    pages = sorted(target["scrapeUrl"] for target in targets)
    assert pages == [f"http://127.0.0.1:{running.ports[port]}/metrics" for port in sorted(
        ("9108", "9109"), key=lambda port: running.ports[port]
    )]  # fmt: skip
    for page in pages:
        assert "ephemeralml_worker_info" in httpx.get(page).text
    assert len(httpx.get(f"{url}/rules").json()["data"]["groups"]) == 3


def setup_again_changes_nothing(running: Machine) -> None:
    files = {"store": "pgpass", "client": "policy.json", "redis-config": "redis.conf"}
    kept = {name: (running.volume(name) / file).read_bytes() for name, file in files.items()}
    again = running.run("setup", *services()["setup"]["command"])
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == "setup is complete"
    assert kept == {name: (running.volume(name) / file).read_bytes() for name, file in files.items()}


def workers_get_neither_the_operators_key_nor_the_kmss(running: Machine) -> None:
    assert {path.name for path in running.volume("worker").iterdir()} == {
        "root", "policy.json", "model.eml", "lab.env"
    }  # fmt: skip
    assert {path.name for path in running.volume("client").iterdir()} == {"policy.json"}


def roles_have_passwords_and_rights_of_their_own(running: Machine) -> None:
    urls = {
        role: tomllib.loads((running.volume(f"broker-{role}") / "config.toml").read_text())["broker"][
            "broker_url"
        ]
        for role in ("worker", "relay", "client")
    }
    assert len({url.split("@")[0].rpartition(":")[2] for url in urls.values()}) == 3
    with redis.Redis.from_url(urls["client"]) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.rpop("jobs.minilm")
    nobody = redis.Redis(port=int(running.ports["6379"]), retry=Retry(NoBackoff(), 0))
    with nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.ping()


def the_relays_health_is_its_connections(running: Machine) -> None:
    """The check that the file names: sound for the relay, unsound for what holds no such connection."""
    check = [sys.executable, str(ROOT / "deploy/compose/connected.py")]
    ports = [running.ports[port] for port in ("6379", "5432")]
    found = {
        name: subprocess.run([*check, f"/proc/{running.running[name].pid}", *ports], check=False).returncode
        for name in ("relay", "pod", "worker-1")
    }
    assert found == {"relay": 0, "pod": 1, "worker-1": 1}
    assert subprocess.run([*check, "/proc/none", *ports], check=False).returncode == 1
    assert subprocess.run([*check, "/proc/self"], capture_output=True, check=False).returncode == 64


def secrets_are_for_their_owner_only(running: Machine) -> None:
    secret = ("store", "postgres-config", "redis-config", "broker-worker", "broker-relay", "flower-config")
    for name in secret:
        for path in running.volume(name).iterdir():
            assert path.stat().st_mode & 0o077 == 0, path.name


def every_service_was_tried(running: Machine) -> None:
    assert {*running.running, *running.ended, "client", "client-sqs", "client-pubsub"} == set(services())


def all_stop_when_asked(running: Machine) -> None:
    logs = json.loads(running.log("worker-1").splitlines()[0])
    assert logs["level"]
    codes = running.down()
    assert (codes.pop("pod"), codes.pop("pubsub", -15)) == (-15, -15)  # neither is ours
    assert set(codes.values()) == {0}, codes


STEPS: tuple[Callable[[Machine], None], ...] = (
    a_batch_goes_through_gateway_and_relay,
    a_client_submits_to_the_queue,
    clients_submit_through_the_fakes,
    flower_sees_workers_and_may_read_no_jobs,
    prometheus_reads_the_workers_and_the_rules,
    setup_again_changes_nothing,
    workers_get_neither_the_operators_key_nor_the_kmss,
    roles_have_passwords_and_rights_of_their_own,
    the_relays_health_is_its_connections,
    secrets_are_for_their_owner_only,
    every_service_was_tried,
    all_stop_when_asked,
)


def test_the_laboratory_runs(machine: Machine) -> None:
    """One test, for one start of everything: several processes of pytest would each make their own."""
    programs = {"postgres": postgres.binaries(), **{name: shutil.which(name) for name in SERVERS}}
    missing = sorted(name for name, found in programs.items() if found is None)
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    machine.up("worker-1", "worker-2", "gateway", "relay", "flower", "prometheus")
    for step in STEPS:
        step(machine)
