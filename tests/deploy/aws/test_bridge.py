"""The bridge of enclaves: bytes both ways, half-closed ends, a drain that is answered with a status."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from .render import HERE, script

BRIDGE = HERE / "enclave" / "bridge.py"
bridge: Any = script("enclave/bridge.py")
settings: Any = script("enclave/settings.py")


@contextmanager
def echo(path: Path) -> Iterator[None]:
    """Answer each connection, once its far end is closed, with what it said, backwards."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()

        def serve() -> None:
            while True:
                try:
                    one, _ = door.accept()
                except OSError:
                    return
                with one:
                    said = b""
                    while piece := one.recv(65_536):
                        said += piece
                    one.sendall(said[::-1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        door.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@contextmanager
def forwarding(listen: str, to: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(BRIDGE), "forward", listen, to]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.terminate()
            assert process.wait(20) == 0


def exchange(family: int, address: Any, data: bytes) -> bytes:
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(address)

        def say() -> None:
            with suppress(OSError):
                one.sendall(data)
                one.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=say)
        sender.start()
        got = b""
        while piece := one.recv(65_536):
            got += piece
        sender.join(20)
    return got


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_bytes_go_both_ways_and_ends_are_passed_on(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with echo(tmp_path / "far"), forwarding(f"unix:{tmp_path}/near", f"unix:{tmp_path}/far"):
        assert exchange(socket.AF_UNIX, f"{tmp_path}/near", data) == data[::-1]


def test_two_bridges_as_enclave_and_parent_have_them(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        echo(tmp_path / "service"),
        forwarding(f"unix:{tmp_path}/vsock", f"unix:{tmp_path}/service"),
        forwarding(f"tcp:127.0.0.1:{port}", f"unix:{tmp_path}/vsock"),
    ):
        for _ in range(5):
            assert exchange(socket.AF_INET, ("127.0.0.1", port), b"abc") == b"cba"


def test_where_nobody_listens_the_connection_ends_and_the_bridge_goes_on(tmp_path: Path) -> None:
    with forwarding(f"unix:{tmp_path}/near", f"unix:{tmp_path}/far"):
        with suppress(OSError):  # closed before all was said
            assert exchange(socket.AF_UNIX, f"{tmp_path}/near", b"x") == b""
        with echo(tmp_path / "far"):
            assert exchange(socket.AF_UNIX, f"{tmp_path}/near", b"xy") == b"yx"


def vsock_loopback() -> bool:
    if not hasattr(socket, "AF_VSOCK"):
        return False
    try:
        with socket.socket(socket.AF_VSOCK) as door, socket.socket(socket.AF_VSOCK) as one:
            door.bind((socket.VMADDR_CID_ANY, 39_999))
            door.listen()
            one.settimeout(1)
            one.connect((1, 39_999))
    except OSError:
        return False
    return True


def test_over_vsock_where_the_kernel_has_its_loopback(tmp_path: Path) -> None:
    if not vsock_loopback():
        pytest.skip("this kernel has no vsock loopback (module vsock_loopback)")
    with (
        echo(tmp_path / "service"),
        forwarding("vsock:39123", f"unix:{tmp_path}/service"),
        forwarding(f"unix:{tmp_path}/near", "vsock:1:39123"),
    ):
        assert exchange(socket.AF_UNIX, f"{tmp_path}/near", b"abc" * 50_000) == b"cba" * 50_000


WORKER = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[1])))\n"
    "print('up', flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.mark.parametrize("status", [0, 77])
def test_a_drain_ends_the_worker_and_tells_who_asked_and_who_watches(tmp_path: Path, status: int) -> None:
    async def run() -> tuple[int, int, int]:
        (tmp_path / "bundle").write_bytes(b"signed")
        door = await bridge.serve(f"unix:{tmp_path}/door", str(tmp_path / "bundle"))
        config = {
            "policy": {"from": f"unix:{tmp_path}/door", "to": str(tmp_path / "in/policy")},
            "forwards": [],
            "control": f"unix:{tmp_path}/control",
            "command": [sys.executable, "-c", WORKER, str(status)],
        }
        inside = asyncio.create_task(bridge.supervise(config))
        while not (tmp_path / "control").exists():
            await asyncio.sleep(0.01)
        watch = asyncio.create_task(bridge.ask(f"unix:{tmp_path}/control", "watch"))
        await asyncio.sleep(0.5)  # the worker sets its handler; sooner it would die of the signal
        assert (tmp_path / "in/policy").read_bytes() == b"signed"
        drained = await bridge.ask(f"unix:{tmp_path}/control", "drain")
        door.close()
        return drained, await watch, await inside

    assert asyncio.run(run()) == (status, status, status)


def test_a_policy_is_replaced_whole_and_never_by_nothing_or_too_much(tmp_path: Path) -> None:
    source, kept = tmp_path / "bundle", tmp_path / "in/policy"

    async def run() -> None:
        door = await bridge.serve(f"unix:{tmp_path}/door", str(source))
        for data, after in ((b"one", b"one"), (b"", b"one"), (b"two", b"two")):
            source.write_bytes(data)
            await bridge.fetch_policy(f"unix:{tmp_path}/door", kept)
            assert kept.read_bytes() == after
        source.write_bytes(bytes(bridge.MAX_POLICY_BYTES + 1))
        with pytest.raises(bridge.BadAddress):
            await bridge.fetch_policy(f"unix:{tmp_path}/door", kept)
        assert kept.read_bytes() == b"two"
        door.close()

    asyncio.run(run())


def test_control_does_nothing_for_other_words(tmp_path: Path) -> None:
    async def run() -> tuple[int, int | None]:
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, "0")
        server = await bridge.control(f"unix:{tmp_path}/control", worker)
        answer = await bridge.ask(f"unix:{tmp_path}/control", "DRAIN")
        seen = worker.returncode
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        server.close()
        return answer, seen

    assert asyncio.run(run()) == (1, None)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "tcp:localhost:1",
        "tcp:127.0.0.1",
        "tcp:127.0.0.1:70000",
        "unix:relative",
        "vsock:x:1",
        "udp:1",
        "vsock:",
    ],
)
def test_addresses_that_mean_nothing_are_refused(address: str) -> None:
    with pytest.raises(bridge.BadAddress):
        bridge.parse(address)


@pytest.mark.parametrize("text", ["[]", "{}", '{"forwards": [{}], "control": "vsock:1", "command": []}'])
def test_configurations_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    done = subprocess.run(
        [sys.executable, str(BRIDGE), "run", str(tmp_path / "c")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (64, 1)


def test_a_fresh_network_gets_its_loopback_and_the_metadata_address() -> None:
    """As in an enclave: nothing is up. Needs the right to make a network namespace."""
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespaces here")
    code = (
        f"import sys, socket; sys.path.insert(0, {str(BRIDGE.parent)!r}); import bridge\n"
        "bridge.loopback_up()\n"
        "for host in ('127.0.0.11', '169.254.169.254'):\n"
        "    door = socket.create_server((host, 80)); socket.create_connection((host, 80), 5)\n"
        "print('both')\n"
    )
    done = subprocess.run(
        [unshare, "-n", sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout == "both\n", done.stderr


ENV = """# a fleet
AWS_REGION=eu-central-1
EPHEMERALML_BLOB_URL=s3://my-bucket/small
EPHEMERALML_WORKER_POOL=small
EPHEMERALML_WORKER_POLICY_ROOT=00
EPHEMERALML_WORKER_MODEL=s3://my-models/models/aa/bb.eml
EPHEMERALML_WORKER_MODEL_SIGNER=11
EPHEMERALML_WORKER_FLEET_KEY_ID=alias/f
EPHEMERALML_WORKER_MODEL_KEY_ID=alias/m
"""


def test_settings_become_ways_out_names_and_a_command(tmp_path: Path) -> None:
    (tmp_path / "fleet.env").write_text(ENV)
    done = subprocess.run(
        [sys.executable, str(HERE / "enclave/settings.py"), str(tmp_path / "fleet.env")],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "bridge.json").write_text(done.stdout)
    config = bridge.read_config(str(tmp_path / "bridge.json"))
    assert bridge.hosts_lines(config).splitlines() == [
        "127.0.0.1 localhost",
        "127.0.0.11 kms.eu-central-1.amazonaws.com",
        "127.0.0.12 sqs.eu-central-1.amazonaws.com",
        "127.0.0.13 s3.eu-central-1.amazonaws.com",
        "127.0.0.13 my-bucket.s3.eu-central-1.amazonaws.com",
        "127.0.0.13 my-models.s3.eu-central-1.amazonaws.com",
    ]
    assert config["command"][-2:] == ["ephemeralml", "worker"]
    assert "EPHEMERALML_WORKER_PLATFORM=nitro" in config["command"]


class Asked(Exception):
    """Stands for the network: a request got as far as that."""


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
def test_every_host_that_boto3_asks_is_a_way_out(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no DNS in an enclave: a host that is not in /etc/hosts is not there."""
    config = settings.config(settings.read_env(ENV.replace("eu-central-1", region)))
    for line in config["command"][1:-2]:
        monkeypatch.setenv(*line.split("=", 1))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    hosts = []

    def note(request: Any, **_: Any) -> None:
        hosts.append(urlsplit(request.url).hostname)
        raise Asked

    session = boto3.Session()
    session.events.register("before-send", note)
    s3: Any = session.client("s3", region_name=region)
    sqs: Any = session.client("sqs", region_name=region)
    kms: Any = session.client("kms", region_name=region)
    calls: tuple[Callable[[], object], ...] = (
        lambda: s3.get_object(Bucket="my-bucket", Key="small/x"),
        lambda: s3.head_object(Bucket="my-models", Key="models/aa/bb.eml"),
        lambda: sqs.get_queue_url(QueueName="ephemeralml-jobs-small"),
        lambda: sqs.receive_message(QueueUrl=f"https://sqs.{region}.amazonaws.com/1/ephemeralml-jobs-small"),
        lambda: kms.generate_data_key(KeyId="alias/f", NumberOfBytes=32),
    )
    for call in calls:
        with pytest.raises(Asked):
            call()
    known = {line.split()[1] for line in bridge.hosts_lines(config).splitlines()}
    assert len(hosts) == 5
    assert set(hosts) <= known


def test_every_way_out_has_a_proxy_on_the_parent_and_is_allowed_there() -> None:
    import yaml

    ways = {
        int(one["to"].rpartition(":")[2]): (one.get("names"), int(one["listen"].rpartition(":")[2]))
        for one in settings.forwards("REGION", ["b"])
        if one["to"].startswith("vsock:3:")
    }
    unit = (HERE / "host/systemd/ephemeralml-policy-door.service").read_text()
    assert f" serve vsock:{settings.POLICY_PORT} " in unit
    proxies = {}
    for file in (HERE / "host/proxies").iterdir():
        values = dict(line.split("=", 1) for line in file.read_text().splitlines())
        proxies[int(values["VSOCK_PORT"])] = (values["REMOTE_HOST"], int(values["REMOTE_PORT"]))
    assert ways.keys() == proxies.keys()
    for port, (names, remote) in ways.items():
        assert proxies[port][1] == remote
        assert not names or proxies[port][0] in names
    allowed = yaml.safe_load((HERE / "host/vsock-proxy.yaml").read_text())["allowlist"]
    assert {(one["address"], one["port"]) for one in allowed} == set(proxies.values())


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("eu-central-1", "somewhere", "AWS_REGION"),
        ("s3://my-bucket/small", "redis", "BLOB_URL"),
        ("EPHEMERALML_WORKER_POOL=small\n", "", "POOL"),
        ("/models/aa/bb.eml", "/", "WORKER_MODEL "),
        ("EPHEMERALML_WORKER_FLEET_KEY_ID=alias/f\n", "", "FLEET_KEY_ID"),
        ("00", "00\nEPHEMERALML_BLOB_SECRET_ACCESS_KEY=hunter2", "secret"),
        ("00", "00\nPATH=/tmp", "line"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_without_their_values(
    tmp_path: Path, old: str, new: str, word: str
) -> None:
    (tmp_path / "fleet.env").write_text(ENV.replace(old, new))
    done = subprocess.run(
        [sys.executable, str(HERE / "enclave/settings.py"), str(tmp_path / "fleet.env")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (64, "")
    assert word in done.stderr
    assert "hunter2" not in done.stderr


def test_every_setting_of_the_example_is_one_that_the_worker_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    from ephemeralml.broker_config import BrokerSettings
    from ephemeralml.workers.settings import WorkerSettings

    text = (HERE / "enclave/fleet.env.example").read_text("ascii")
    config = settings.config(settings.read_env(text))
    for line in config["command"][1:-2]:
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
        fields = {"EPHEMERALML_LOG", "AWS_REGION", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT"}
        fields |= {f"EPHEMERALML_WORKER_{one.upper()}" for one in WorkerSettings.model_fields}
        fields |= {f"EPHEMERALML_{one.upper()}" for one in BrokerSettings.model_fields}
        assert name in fields
    worker, broker = WorkerSettings(), BrokerSettings()
    assert (worker.platform, worker.log, broker.profile) == ("nitro", "json", "sqs")
    assert json.dumps(config)
