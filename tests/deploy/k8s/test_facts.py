"""What the manifests take for granted of this system holds: commands, sizes, files, and Redis's rights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.broker_config.redis.lease import LeaseKeys
from ephemeralml.producer.gateway.settings import GatewaySettings
from ephemeralml.workers.settings import WorkerSettings

from ...gateway.process import free_port
from ..compose.processes import services
from .render import HERE, ROOT, Object, containers, of_kind, overlay, pods

AWS = ROOT / "deploy" / "aws"
NITRO = overlay("sqs-nitro")


def command_of(objects: list[Object], pod: str, container: str) -> list[str]:
    """Return the command of a container."""
    (template,) = (template for name, template in pods(objects) if name == pod)
    (one,) = (one for one in containers(template) if one["name"] == container)
    found: list[str] = one["command"]
    return found


# ---------------------------------------------------------------- the laboratory's file says the same


def test_gateway_and_relay_begin_as_in_the_laboratory() -> None:
    """The laboratory's commands are run by tests: what differs here is where files lie."""
    objects = overlay("redis")
    gateway = command_of(objects, "Deployment/gateway", "gateway")[-1]
    relay = command_of(objects, "Deployment/relay", "relay")[-1]
    migrate = command_of(objects, "Job/migrate", "migrate")[-1]
    prepare = "install -m 0600 /run/store/pgpass /tmp/pgpass; "
    assert all(one.startswith(prepare) for one in (gateway, relay, migrate))
    here = services()
    assert gateway.removeprefix(prepare) == here["gateway"]["command"][-1].replace("$$", "$")
    assert relay.removeprefix(prepare) == here["relay"]["command"][-1].replace("$$", "$").replace(
        "/lab/policy.json", "/run/policy/policy"
    )
    assert migrate.removeprefix(prepare) == "exec " + " ".join(here["migrate"]["command"])


@pytest.mark.parametrize("name", ["redis", "redis-jobs"])
def test_workers_begin_as_in_the_laboratory(name: str) -> None:
    objects = overlay(name)
    ((pod, _),) = ((pod, one) for pod, one in pods(objects) if pod.endswith("/worker"))
    here = services()["worker-1"]["command"]
    own = command_of(objects, pod, "worker")
    assert [word.replace("/lab/one/", "/lab/").removesuffix(" --drain") for word in own] == here


def test_the_relays_policy_is_what_the_settings_name() -> None:
    (relay,) = (pod for name, pod in pods(overlay("redis")) if name == "Deployment/relay")
    volumes = {one["name"]: one for one in relay["spec"]["volumes"]}
    assert volumes["policy"]["configMap"] == {"name": "policy"}


@pytest.mark.parametrize("broker", ["redis", "sqs", "pubsub"])
def test_settings_are_known_to_this_version(broker: str) -> None:
    """A variable that nothing reads is a setting that somebody believes in."""
    known = {"EPHEMERALML_CONFIG", "EPHEMERALML_LOG"}
    known |= {f"EPHEMERALML_{name.upper()}" for name in BrokerSettings.model_fields}
    known |= {f"EPHEMERALML_WORKER_{name.upper()}" for name in WorkerSettings.model_fields}
    known |= {f"EPHEMERALML_GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields}
    objects = overlay(broker)
    (settings,) = (one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "settings")
    assert set(settings["data"]) <= known
    for _, pod in pods(objects):
        for one in containers(pod):
            assert {item["name"] for item in one.get("env", [])} <= known


# ---------------------------------------------------------------- the laboratory's pod, as processes


def test_the_laboratory_starts_the_kms_of_a_pod(tmp_path: Path) -> None:
    """The Job's command, the copy that a pod makes of it, its KMS and the probe of that, on this machine."""
    lab, kms, programs = tmp_path / "lab", tmp_path / "kms", tmp_path / "bin"
    for folder in (lab, kms, programs, tmp_path / "tmp"):
        folder.mkdir()
    for name in ("ephemeralml", "python3"):
        (programs / name).write_text(f'#!/bin/sh\nexec {Path(sys.executable).parent / name} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def here(command: list[str]) -> list[str]:
        places = {"/lab": lab, "/kms": kms, "/tmp": tmp_path / "tmp"}  # noqa: S108 - the container's
        return [
            re.sub(r"(?<![\w/])/(?:lab|kms|tmp)\b", lambda at: str(places[at[0]]), word) for word in command
        ]

    objects = overlay("redis")
    make = here(command_of(objects, "Job/laboratory", "laboratory"))
    made = subprocess.run(make, env=environment, capture_output=True, check=True)
    assert json.loads(made.stdout) == json.loads((lab / "one" / "policy.json").read_text())
    again = subprocess.run(make, env=environment, capture_output=True, check=True)
    assert again.stdout == made.stdout
    copy = here(command_of(objects, "Deployment/worker", "laboratory"))
    subprocess.run(copy, env=environment, check=True)
    (worker,) = (pod for name, pod in pods(objects) if name == "Deployment/worker")
    mounted = {one["subPath"] for one in worker["spec"]["containers"][0]["volumeMounts"] if "subPath" in one}
    assert all((lab / path).exists() for path in mounted)
    assert {path.name for path in (lab / "one").iterdir()} >= {path.split("/")[1] for path in mounted}
    sidecar = worker["spec"]["initContainers"][1]
    probe = here(sidecar["startupProbe"]["exec"]["command"])
    assert subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 1
    with subprocess.Popen(here(sidecar["command"]), env=environment, stdout=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(probe, env=environment, capture_output=True, check=False).returncode:
                assert running.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.3)
        finally:
            running.terminate()
    assert running.returncode == 0


# ---------------------------------------------------------------- KEDA's user of Redis


def test_kedas_user_may_count_and_nothing_else(tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed")
    (rule,) = re.findall(r"(?m)^#   (user keda .*)$", (HERE / "brokers" / "redis" / "auth.yaml").read_text())
    port = free_port()
    config = tmp_path / "redis.conf"
    config.write_text(
        f'port {port}\nbind 127.0.0.1\nsave ""\ndir {tmp_path}\n{rule.replace("PASSWORD", "word")}\n'
    )
    with subprocess.Popen([program, str(config)], stdout=subprocess.DEVNULL) as running:
        try:
            _count_and_nothing_else(port)
        finally:
            running.terminate()


def _count_and_nothing_else(port: int) -> None:
    keys = LeaseKeys.of(jobs_queue("minilm"))
    patient = Retry(NoBackoff(), 0)
    owner = redis.Redis(port=port, retry=patient)
    deadline = time.monotonic() + 60
    while True:
        try:
            owner.ping()
            break
        except redis.exceptions.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    owner.lpush(keys.queue, "a", "b")
    owner.zadd(keys.leased, {"c": 1})
    keda = redis.Redis(port=port, username="keda", password="word", retry=patient)
    # What KEDA's trigger does, in our words.
    script = "if redis.call('type', KEYS[1]).ok == 'zset' then return redis.call('zcard', KEYS[1]) end "
    script += "return redis.call('llen', KEYS[1])"
    assert keda.eval(script, 1, keys.queue) == 2
    assert keda.eval(script, 1, keys.leased) == 1
    refused: list[tuple[Any, ...]] = [
        ("LRANGE", keys.queue, 0, -1), ("RPOP", keys.queue), ("DEL", keys.queue), ("LLEN", "reply.0"),
        ("EVAL", script, 1, "jobs.other"), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("FLUSHALL",),
        ("EVAL", "return redis.call('rpop', KEYS[1])", 1, keys.queue),
    ]  # fmt: skip
    for words in refused:
        with pytest.raises(redis.exceptions.ResponseError, match=r"permissions|can't run"):
            keda.execute_command(*words)  # type: ignore[no-untyped-call]
    assert owner.llen(keys.queue) == 2
    owner.close()
    keda.close()


# ---------------------------------------------------------------- enclaves


def test_a_pods_containers_are_the_instances_units() -> None:
    """On an instance systemd starts what here a pod starts (deploy/aws/host)."""
    units = {path.stem: path.read_text() for path in (AWS / "host" / "systemd").glob("*.service")}

    def starts(unit: str) -> list[str]:
        (found,) = re.findall(r"(?m)^ExecStart=/usr/bin/(.*)$", units[unit])
        return str(found).split()

    def ours(name: str) -> list[str]:
        return command_of(NITRO, "Deployment/enclave", name)

    assert ours("enclave") == starts("ephemeralml-enclave")
    assert ours("policy") == starts("ephemeralml-policy")
    assert ours("policy-door") == starts("ephemeralml-policy-door")
    for path in (AWS / "host" / "proxies").glob("*.env"):
        values = dict(line.split("=") for line in path.read_text().split())
        wanted = " ".join(starts("ephemeralml-proxy@"))
        for name, value in values.items():
            wanted = wanted.replace(f"${{{name}}}", value.replace("REGION", "eu-central-1"))
        assert " ".join(ours(path.stem)) == wanted


def test_the_enclave_is_the_instances() -> None:
    (fleet,) = (one for one in of_kind(NITRO, "ConfigMap") if one["metadata"]["name"] == "fleet")
    enclave = json.loads(fleet["data"]["enclave.json"])
    assert enclave == json.loads((AWS / "host" / "enclave.json").read_text())
    assert enclave["debug_mode"] is False
    allowed = (AWS / "host" / "vsock-proxy.yaml").read_text().replace("REGION", "eu-central-1")
    assert yaml.safe_load(fleet["data"]["vsock-proxy.yaml"]) == yaml.safe_load(allowed)
    (pod,) = (pod for name, pod in pods(NITRO) if name == "Deployment/enclave")
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert limits["hugepages-1Gi"] == f"{enclave['memory_mib'] // 1024}Gi"
    assert limits["aws.ec2.nitro/nitro_enclaves"] == "1"


def test_ways_out_are_there_before_the_enclave_and_until_after_it() -> None:
    (pod,) = (pod for name, pod in pods(NITRO) if name == "Deployment/enclave")
    assert all(one["restartPolicy"] == "Always" for one in pod["spec"]["initContainers"])
    affinity = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [one["topologyKey"] for one in affinity] == ["kubernetes.io/hostname"]
    (unit,) = re.findall(
        r"TimeoutStopSec=(\d+)", (AWS / "host" / "systemd" / "ephemeralml-enclave.service").read_text()
    )
    assert pod["spec"]["terminationGracePeriodSeconds"] == int(unit)


def test_the_parents_image_holds_what_its_containers_start() -> None:
    text = (HERE / "sqs-nitro" / "Dockerfile").read_text()
    for name in ("host.py", "bridge.py", "worker.eif"):
        assert re.search(rf"(?m)^COPY .*\b{re.escape(name)}\b.* /opt/ephemeralml/$", text)
    assert "aws-nitro-enclaves-cli" in text
