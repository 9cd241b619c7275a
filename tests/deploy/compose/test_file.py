"""docker-compose.yml: what each service may, what it shows, and whether it parses without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from ephemeralml.producer.gateway.serve import GRACE_SECONDS

from .processes import FILE, ROOT, in_order, mounts, needs, services

SERVICES = services()
SERVERS = [name for name, service in SERVICES.items() if service.get("restart") != "no"]
PROFILES = ["client", "sqs", "client-sqs", "pubsub", "client-pubsub"]


def test_the_usual_tool_takes_it() -> None:
    tool = shutil.which("docker-compose")
    if tool is None:
        if os.environ.get("CI"):
            pytest.fail("apt-get install docker-compose")
        pytest.skip("docker-compose is not installed")
    options = [word for profile in PROFILES for word in ("--profile", profile)]
    done = subprocess.run(
        [tool, "--file", str(FILE), *options, "config"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    parsed = yaml.safe_load(done.stdout)
    assert set(parsed["services"]) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_least_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 256
    assert service["mem_limit"]
    assert service["cpus"]
    unwanted = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "extra_hosts"}
    assert unwanted.isdisjoint(service)
    assert service.get("network_mode") in (None, "none", "service:pod")
    assert all("noexec" in mount and "nosuid" in mount for mount in service.get("tmpfs", []))
    assert not any("docker.sock" in source for source in mounts(service).values())


@pytest.mark.parametrize("name", [one for one in SERVERS if one != "pod"])
def test_servers_tell_their_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"SECRET|PASSWORD|TOKEN", key):
            assert key.endswith("_FILE") or value == "fake", key
        assert not re.search(r"://[^/@\s]*:[^/@\s]+@", value), key
    assert not re.search(r"://[^/@\s]*:[^/@\s]+@", " ".join(SERVICES[name]["command"]))


def test_only_loopback_ports_are_published_and_none_of_stores() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"gateway", "prometheus", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_queue_and_store_reach_no_other_network() -> None:
    networks: dict[str, Any] = yaml.safe_load(FILE.read_text())["networks"]
    for name, nets in {"redis": ["queue"], "postgres": ["store"]}.items():
        assert SERVICES[name]["networks"] == nets
        assert networks[nets[0]] == {"internal": True}
    reach_the_store = {name for name, one in SERVICES.items() if "store" in one.get("networks", [])}
    assert reach_the_store == {"postgres", "migrate", "gateway", "relay"}


def test_volumes_of_secrets_go_to_their_users_only() -> None:
    users: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for source in mounts(service).values():
            users.setdefault(source, set()).add(name)
    assert users["lab"] == {"setup", "kms"}
    assert users["store"] == {"setup", "migrate", "gateway", "relay"}
    assert users["redis-config"] == {"setup", "redis"}
    assert users["postgres-config"] == {"setup", "postgres"}
    assert users["flower-config"] == {"setup", "flower"}
    assert users["broker-client"] == {"setup", "client"}
    assert users["broker-worker"] == {"setup", "worker-1", "worker-2"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    volumes = yaml.safe_load(FILE.read_text())["volumes"]
    for source in mounts(SERVICES[name]).values():
        assert (ROOT / source).exists() if source.startswith("./") else source in volumes


def test_who_writes_volumes_finds_them_made_by_setup() -> None:
    """A volume that no image of ours owns belongs to root until setup's image has been mounted on it."""
    prepared = set(mounts(SERVICES["setup"]).values())
    for name, service in SERVICES.items():
        for source in mounts(service).values():
            assert source.startswith("./") or source in prepared, f"{name}: {source}"


@pytest.mark.parametrize("name", SERVICES)
def test_order_has_no_circle_and_waits_for_what_ends(name: str) -> None:
    order = in_order([name])
    assert order[-1] == name
    for other, condition in needs(SERVICES[name]).items():
        ends = SERVICES[other].get("restart") == "no"
        assert (condition == "service_completed_successfully") == ends
        assert condition != "service_healthy" or "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", [one for one in SERVICES if one.startswith("worker-")])
def test_workers_have_time_to_finish(name: str) -> None:
    grace = float(SERVICES[name]["environment"].get("EPHEMERALML_WORKER_GRACE_SECONDS", 25))
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= grace + 10


def test_the_gateway_has_time_to_end_its_requests() -> None:
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS


PAGE = (ROOT / "docs" / "deploy" / "laptop.md").read_text()
COMMANDS = re.findall(r"(?m)^(docker-compose .*?)(?: +#.*)?$", PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_services_that_are_there(command: str) -> None:
    words = command.split()[1:]
    while words[0] == "--profile":
        assert words[1] in PROFILES
        words = words[2:]
    assert words[0] in ("ps", "logs", "run", "exec", "stop", "down", "restart", "up")
    taking = {"-v", "--entrypoint"}
    named = [word for at, word in enumerate(words[1:], 1) if word[0] != "-" and words[at - 1] not in taking]
    if words[0] in ("run", "exec", "restart", "logs"):
        assert named[0] in SERVICES
    if words[0] == "up":
        assert set(named) <= set(SERVICES)


def test_the_page_submits_as_the_test_does() -> None:
    submits = [command for command in COMMANDS if " submit " in command]
    assert len(submits) == 3
    for command, client in zip(submits, ("client", "client-sqs", "client-pubsub"), strict=True):
        assert command.endswith(f" {client} submit texts.txt --pool minilm --wait")
        assert SERVICES[client]["entrypoint"][-1] in ("ephemeralml", "client")


def test_the_page_names_the_published_ports() -> None:
    published = {port for service in SERVICES.values() for port in service.get("ports", [])}
    named = re.findall(r"`http://(127\.0\.0\.1:\d+)`", PAGE)
    assert {f"{address}:{address.rpartition(':')[2]}" for address in named} == published
