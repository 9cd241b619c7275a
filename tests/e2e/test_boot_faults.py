"""Whatever goes wrong before the gate: one line, the right exit code, and a queue that was not touched.

Real worker processes, the wrong thing done to what they read. One worker at a time, all with one broker.
Their processes are forked, so that they need not import everything again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ephemeralml.attestation.key_release.epochs import epoch_at
from ephemeralml.attestation.key_release.stored import key_name, keys_prefix
from ephemeralml.broker_config.blobs import make_blob_store
from ephemeralml.broker_config.health import depth
from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.settings import BrokerSettings, broker_settings
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.wire.exit_codes import BAD_DATA, CONFIGURATION, DENIED, UNAVAILABLE, UNSOUND
from ephemeralml.wire.pack import encode_message

from ..models.forge import tensors

PREFIX = "EPHEMERALML_WORKER_"


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Site:
    """A laboratory with a small package, and a broker whose queue holds one job."""

    lab: Lab
    broker: BrokerSettings
    folder: Path
    zygote: subprocess.Popen[str]

    @property
    def blobs(self) -> Path:
        """The blob store's folder."""
        return self.folder / "state" / "blobs"

    def worker(self, max_file_bytes: int | None = None, **more: str) -> Ended:
        """Run a worker to its end, in a process of its own."""
        own = {
            "EPHEMERALML_STATE_DIR": str(self.folder / "state"),
            PREFIX + "BACKEND": "noop",
            PREFIX + "KMS_DEADLINE_SECONDS": "3",
        }
        environment = {**os.environ, **self.lab.worker_environment, **own, **more}
        job: dict[str, object] = {"arguments": ["worker"], "environment": environment}
        job |= {"folder": str(self.folder), "max_file_bytes": max_file_bytes}
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(job) + "\n")
        self.zygote.stdin.flush()
        code = int(self.zygote.stdout.readline())
        return Ended(code, (self.folder / "stdout").read_text(), (self.folder / "stderr").read_text())

    def untouched(self) -> bool:
        """Whether the job still waits, taken by nobody."""
        with redis_client(self.broker) as client:
            leases = [key for key in client.scan_iter(match="*") if b"unacked" in key and client.exists(key)]
        return depth(self.broker, POOL).waiting == 1 and leases == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    lab = Lab.create(folder / "lab")
    with lab.kms(), broker_running(broker_settings(state_dir=folder / "state")) as broker:
        lab.package(_small_model(folder / "source"))
        with Submitter(broker) as submitter:
            submitter.submit(POOL, encode_message(b"a message that must stay"))
        command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zygote:
            yield Site(lab, broker, folder, zygote)


def _small_model(folder: Path) -> Path:
    """A model of a few bytes: the engine of these tests reads none of them."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(tensors(a=b"weights" * 100))
    return folder


@dataclass(frozen=True)
class Fault:
    """Something wrong: what is done to the site and which settings are given; how the worker must end."""

    name: str
    code: str
    exit: int
    settings: Callable[[Site], dict[str, str]] = lambda _: {}
    max_file_bytes: int | None = None


def changed_package(change: Callable[[bytearray], bytes]) -> Callable[[Site], dict[str, str]]:
    def settings(site: Site) -> dict[str, str]:
        path = site.folder / "changed.eml"
        path.write_bytes(change(bytearray((site.lab.folder / "model.eml").read_bytes())))
        return {PREFIX + "MODEL": str(path)}

    return settings


def flipped(data: bytearray) -> bytes:
    data[-20] ^= 1
    return bytes(data)


def changed_policy(change: Callable[[Site], bytes]) -> Callable[[Site], dict[str, str]]:
    def settings(site: Site) -> dict[str, str]:
        path = site.folder / "changed.policy"
        path.write_bytes(change(site))
        return {PREFIX + "POLICY": str(path)}

    return settings


def unwanted(site: Site) -> bytes:
    policy = json.loads(site.lab.policy.read_bytes())
    policy["platforms"]["simulated"]["measurement_sets"][0]["pcr0"] = "ab" * 48
    return json.dumps(policy).encode()


def in_the_store(prepare: Callable[[Path], None]) -> Callable[[Site], dict[str, str]]:
    def settings(site: Site) -> dict[str, str]:
        prepare(site.blobs)
        return {}

    return settings


def half_written(blobs: Path) -> None:
    path = blobs / key_name(POOL, epoch_at(time.time(), 86_400))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x83\x01\x59\x01")


def in_the_way(blobs: Path) -> None:
    """A file where a folder must be: nobody can write there, root neither."""
    path = blobs / keys_prefix(POOL).rstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


FAULTS = [
    Fault(
        "KMS down", "KMS_UNAVAILABLE", UNAVAILABLE, lambda _: {PREFIX + "KMS_ENDPOINT": "http://127.0.0.1:9"}
    ),
    Fault("another image", "KMS_DENIED", DENIED, lambda _: {PREFIX + "SIMULATED_IMAGE": "another-image"}),
    Fault(
        "credentials of nobody",
        "KMS_CREDENTIALS",
        DENIED,
        lambda _: {PREFIX + "KMS_SECRET_ACCESS_KEY": "wrong"},
    ),
    Fault("no such key", "KMS_KEY_UNUSABLE", DENIED, lambda _: {PREFIX + "FLEET_KEY_ID": "alias/none"}),
    Fault(
        "another key for the model",
        "KMS_WRONG_KEY",
        DENIED,
        lambda _: {PREFIX + "MODEL_KEY_ID": "alias/fleet"},
    ),
    Fault("tampered package", "PACKAGE_TAMPERED", BAD_DATA, changed_package(flipped)),
    Fault(
        "truncated package", "PACKAGE_TRUNCATED", BAD_DATA, changed_package(lambda data: bytes(data[:-100]))
    ),
    Fault("empty package", "PACKAGE_TRUNCATED", BAD_DATA, changed_package(lambda _: b"")),
    Fault(
        "another signer", "MODEL_SIGNER_UNTRUSTED", BAD_DATA, lambda _: {PREFIX + "MODEL_SIGNER": "ab" * 32}
    ),
    Fault(
        "no package",
        "MODEL_UNREADABLE",
        CONFIGURATION,
        lambda site: {PREFIX + "MODEL": str(site.folder / "no")},
    ),
    Fault(
        "no policy",
        "POLICY_UNREADABLE",
        CONFIGURATION,
        lambda site: {PREFIX + "POLICY": str(site.folder / "no")},
    ),
    Fault(
        "half a policy",
        "BAD_POLICY",
        BAD_DATA,
        changed_policy(lambda site: site.lab.policy.read_bytes()[:99]),
    ),
    Fault("a policy that wants others", "MEASUREMENT_MISMATCH", UNSOUND, changed_policy(unwanted)),
    Fault("half-written fleet key", "CBOR_TRUNCATED", BAD_DATA, in_the_store(half_written)),
    Fault("disk full", "BLOB_STORE_FULL", UNAVAILABLE, max_file_bytes=2000),
    Fault("blob store cannot be written", "BLOB_STORE_UNAVAILABLE", UNAVAILABLE, in_the_store(in_the_way)),
    Fault(
        "broker down",
        "BROKER_UNREACHABLE",
        UNAVAILABLE,
        lambda _: {"EPHEMERALML_BROKER_URL": "redis://127.0.0.1:9"},
    ),
    Fault("bad setting", "BAD_SETTINGS", CONFIGURATION, lambda _: {PREFIX + "CONCURRENCY": "many"}),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_boot_that_fails_says_why_in_one_line_and_takes_nothing(site: Site, fault: Fault) -> None:
    done = site.worker(fault.max_file_bytes, **fault.settings(site))
    left = [path.name for path in site.blobs.rglob(".*")]
    shutil.rmtree(site.blobs, ignore_errors=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"error {fault.code}"), lines[0]
    assert done.returncode == fault.exit
    assert "ready:" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert str(site.folder) not in done.stderr
    assert left == []
    assert site.untouched()


def test_the_faults_are_what_kept_the_workers_out(site: Site) -> None:
    """The same worker without a fault opens its gate and takes the message."""
    assert site.untouched()
    environment = {**os.environ, **site.lab.worker_environment}
    environment |= {"EPHEMERALML_STATE_DIR": str(site.folder / "state"), PREFIX + "BACKEND": "noop"}
    environment |= {PREFIX + "DRAIN_IDLE_SECONDS": "0.3"}
    command = [sys.executable, "-m", "ephemeralml", "worker", "--drain"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "ready:" in done.stdout
    assert depth(site.broker, POOL).waiting == 0
    assert len(list(make_blob_store(site.broker).list(keys_prefix(POOL)))) == 1
