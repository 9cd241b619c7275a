"""The parent: starts and watches an enclave, drains it before the instance goes, units that systemd takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .render import HERE

HOST = HERE / "host" / "host.py"


class Metadata(ThreadingHTTPServer):
    """The metadata service, version 2: no answer without a token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.said = {"/latest/meta-data/instance-id": "i-0123456789abcdef0"}
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        given = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._say(200 if given else 400, "the-token")

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != "the-token":
            self.server.refused += 1
            self._say(401, "")
        elif self.path in self.server.said:
            self._say(200, self.server.said[self.path])
        else:
            self._say(404, "")

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    """A running metadata service."""
    server = Metadata()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def surroundings(tmp_path: Path, metadata: Metadata) -> dict[str, str]:
    """A parent whose commands write down how they were called."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("aws", "systemctl", "nitro-cli"):
        file = commands / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n')
        file.chmod(0o755)
    folder = tmp_path / "opt"
    folder.mkdir()
    shutil.copy(HERE / "enclave" / "bridge.py", folder)
    shutil.copy(HERE / "host" / "enclave.json", tmp_path / "enclave.json")
    return {
        "PATH": f"{commands}:/usr/bin:/bin",
        "EPHEMERALML_HOST_FOLDER": str(folder),
        "EPHEMERALML_HOST_CONFIG": str(tmp_path / "enclave.json"),
        "EPHEMERALML_HOST_CONTROL": f"unix:{tmp_path}/control",
        "EPHEMERALML_HOST_POLL_SECONDS": "0.1",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url,
        "AUTO_SCALING_GROUP": "ephemeralml-small",
        "LIFECYCLE_HOOK": "drain",
        "AWS_REGION": "eu-central-1",
    }


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


LEAVING = (
    ("autoscaling/target-lifecycle-state", "Terminated"),
    ("spot/instance-action", '{"action": "terminate"}'),
)


@pytest.mark.parametrize(("path", "text"), LEAVING)
def test_the_guard_waits_drains_and_lets_the_instance_go(
    tmp_path: Path, metadata: Metadata, surroundings: dict[str, str], path: str, text: str
) -> None:
    metadata.said["/latest/meta-data/autoscaling/target-lifecycle-state"] = "InService"
    with subprocess.Popen([sys.executable, HOST, "guard"], env=surroundings) as process:
        try:
            time.sleep(0.3)
            assert not (tmp_path / "calls").exists()
            metadata.said["/latest/meta-data/" + path] = text
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert (tmp_path / "calls").read_text().splitlines() == [
        "systemctl stop ephemeralml-enclave.service",
        "aws autoscaling complete-lifecycle-action --auto-scaling-group-name ephemeralml-small"
        " --lifecycle-hook-name drain --instance-id i-0123456789abcdef0 --region eu-central-1"
        " --lifecycle-action-result CONTINUE",
    ]
    assert metadata.refused == 0


def test_a_long_drain_holds_the_instance_by_heartbeats(
    tmp_path: Path, metadata: Metadata, surroundings: dict[str, str]
) -> None:
    (tmp_path / "bin/systemctl").write_text(f'#!/bin/sh\nsleep 1\necho "systemctl $*" >> {tmp_path}/calls\n')
    metadata.said["/latest/meta-data/autoscaling/target-lifecycle-state"] = "Terminated"
    environment = {**surroundings, "EPHEMERALML_HOST_HEARTBEAT_SECONDS": "0.2"}
    subprocess.run([sys.executable, HOST, "guard"], env=environment, check=True, timeout=30)
    calls = [line.split(" --")[0] for line in (tmp_path / "calls").read_text().splitlines()]
    drained = calls.index("systemctl stop ephemeralml-enclave.service")
    assert drained > 0
    assert set(calls[:drained]) == {"aws autoscaling record-lifecycle-action-heartbeat"}
    assert calls[drained + 1 :] == ["aws autoscaling complete-lifecycle-action"]


def test_the_policy_is_fetched_again_and_a_failure_leaves_the_last(
    tmp_path: Path, surroundings: dict[str, str]
) -> None:
    """First there is one, then a transfer breaks, then there is another."""
    count = f'echo "$*" >> {tmp_path}/calls; number=$(wc -l < {tmp_path}/calls)'
    deliver = 'for last; do :; done; echo "policy $number" > "$last"; [ "$number" -ne 2 ]'
    (tmp_path / "bin/aws").write_text(f"#!/bin/sh\n{count}\n{deliver}\n")
    kept = tmp_path / "policy.bundle"
    environment = {
        **surroundings,
        "EPHEMERALML_HOST_POLICY": str(kept),
        "EPHEMERALML_HOST_POLICY_SECONDS": "0.2",
        "POLICY_URL": "s3://artefacts/policies/small.bundle",
    }
    seen = set()

    def third() -> bool:
        if kept.exists():
            seen.add(kept.read_text())
        return "policy 3\n" in seen

    with subprocess.Popen([sys.executable, HOST, "policy"], env=environment) as process:
        try:
            until(third)
        finally:
            process.kill()
    assert seen <= {"policy 1\n", "policy 3\n"}
    first = (tmp_path / "calls").read_text().splitlines()[0]
    assert first == (
        f"s3 cp --only-show-errors --region eu-central-1 s3://artefacts/policies/small.bundle {kept}.new"
    )


WORKER = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(60)\n"
ENCLAVE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import bridge

async def run():
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", sys.argv[3])
    await asyncio.sleep(0.5)  # the worker sets its handler
    await bridge.control(sys.argv[2], worker)
    await worker.wait()
    await asyncio.sleep(0.3)

asyncio.run(run())
"""


def test_the_unit_starts_the_enclave_and_drains_it_when_told(
    tmp_path: Path, surroundings: dict[str, str]
) -> None:
    control = surroundings["EPHEMERALML_HOST_CONTROL"]
    inside = [sys.executable, "-c", ENCLAVE, str(HERE / "enclave"), control, WORKER]
    with (
        subprocess.Popen([sys.executable, HOST, "run"], env=surroundings) as process,
        subprocess.Popen(inside) as enclave,
    ):
        try:
            until((tmp_path / "control").exists)
            time.sleep(1.2)  # the parent looks again after a second; both orders must come out
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert enclave.wait(30) == 0
        finally:
            process.kill()
            enclave.kill()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        f"nitro-cli run-enclave --config {tmp_path}/enclave.json",
        "nitro-cli terminate-enclave --enclave-name ephemeralml",
    ]


def test_a_worker_that_is_denied_its_key_stops_the_unit_for_good(
    tmp_path: Path, surroundings: dict[str, str]
) -> None:
    inside = [sys.executable, "-c", ENCLAVE, str(HERE / "enclave"), surroundings["EPHEMERALML_HOST_CONTROL"]]
    with (
        subprocess.Popen([*inside, "import sys, time; time.sleep(3); sys.exit(77)"]),
        subprocess.Popen([sys.executable, HOST, "run"], env=surroundings) as process,
    ):
        assert process.wait(30) == 77
    unit = (HERE / "host/systemd/ephemeralml-enclave.service").read_text()
    assert "RestartPreventExitStatus=77 78" in unit
    assert "KillMode=process" in unit


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    # The programs and the allocator's unit are not on this machine: true stands for them.
    for file in (HERE / "host" / "systemd").iterdir():
        lines = file.read_text().splitlines()
        lines = ["ExecStart=/bin/true" if one.startswith("ExecStart=") else one for one in lines]
        name = file.name.replace("@.", "@kms.")
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    for name in (
        "nitro-enclaves-allocator",
        *(f"ephemeralml-proxy@{one}" for one in ("sqs", "s3", "metadata")),
    ):
        (tmp_path / f"{name}.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    units = sorted(str(one) for one in tmp_path.glob("ephemeralml-*.service"))
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "ephemeralml" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_the_enclave_fits_into_what_is_set_aside() -> None:
    import yaml

    aside = yaml.safe_load((HERE / "host/allocator.yaml").read_text())
    enclave = json.loads((HERE / "host/enclave.json").read_text())
    assert enclave["memory_mib"] <= aside["memory_mib"]
    assert enclave["cpu_count"] <= aside["cpu_count"]
    assert enclave["debug_mode"] is False


def test_what_the_parent_installs_is_packed_the_same_each_time(tmp_path: Path) -> None:
    packed = []
    for name in ("one", "two"):
        subprocess.run([HERE / "pack-host.sh", tmp_path / name], check=True)
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1]
    subprocess.run(["tar", "-xzf", tmp_path / "one", "-C", tmp_path], check=True)
    text = (HERE / "host/install.sh").read_text()
    for name in ("allocator.yaml", "enclave.json", "host.py", "bridge.py", "vsock-proxy.yaml"):
        assert (tmp_path / name).is_file()
        assert name in text


def test_a_parent_is_installed_whole(tmp_path: Path, surroundings: dict[str, str]) -> None:
    """As at an instance's boot: every unit that is started is there, and so is every file that it names."""
    subprocess.run([HERE / "pack-host.sh", tmp_path / "host.tar.gz"], check=True)
    folder, root = tmp_path / "unpacked", tmp_path / "root"
    folder.mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "host.tar.gz", "-C", folder], check=True)
    arguments = ["eu-central-1", "ephemeralml-small", "drain", "s3://artefacts/policies/small.bundle"]
    environment = {**surroundings, "DESTDIR": str(root)}
    subprocess.run(["./install.sh", *arguments], cwd=folder, env=environment, check=True)
    written = [one for one in root.rglob("*") if one.is_file()]
    settings = [one for one in written if one.suffix in (".env", ".yaml", ".json")]
    assert not any(re.search(r"^[^#]*REGION\.", one.read_text(), re.MULTILINE) for one in settings)
    units = {one.name: one.read_text() for one in (root / "etc/systemd/system").iterdir()}
    calls = (tmp_path / "calls").read_text().split("\n")
    started = {word for line in calls if "enable --now" in line for word in line.split()[3:]}
    foreign = {"nitro-enclaves-allocator.service"}
    assert {re.sub("@.*[.]", "@.", one) for one in started - foreign} == set(units)
    for text in units.values():
        for path in re.findall(r"(?<![\w}])(/(?:etc|opt)/[\w./%-]+)", text):
            assert (root / path.lstrip("/").replace("%i", "kms")).is_file(), path
    assert (root / "etc/ephemeralml/fleet.env").read_text().splitlines() == [
        "AWS_REGION=eu-central-1",
        "AUTO_SCALING_GROUP=ephemeralml-small",
        "LIFECYCLE_HOOK=drain",
        "POLICY_URL=s3://artefacts/policies/small.bundle",
    ]


@pytest.mark.parametrize("name", ["build-eif.sh", "pack-host.sh", "host/install.sh"])
def test_scripts_without_arguments_say_how_they_are_used(name: str) -> None:
    subprocess.run(["sh", "-n", HERE / name], check=True)
    done = subprocess.run([HERE / name], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert done.stderr
    assert os.access(HERE / name, os.X_OK)
