"""AWS on this machine: moto's standalone server, a process of its own."""

from __future__ import annotations

import json
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of

REGION: Final = "eu-central-1"
#: moto believes everyone; the key id tells in its record who called.
KEY_ID: Final = "OPERATOR"
_CALLER: Final = re.compile(r"Credential=([^/]+)/")


@dataclass(frozen=True)
class Server:
    """A running server.

    :param address: its host and port. :param record: the file that it writes calls down in.
    """

    address: str
    record: Path

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{self.address}"

    def reset(self) -> None:
        """Forget all queues, buckets and calls."""
        self._ask("POST", "/moto-api/reset")
        self.record.write_text("")

    def actions(self) -> dict[str, set[str]]:
        """Return which actions of SQS each caller asked for."""
        seen: dict[str, set[str]] = defaultdict(set)
        for line in self.record.read_text().splitlines():
            headers = {name.lower(): value for name, value in json.loads(line)["headers"].items()}
            caller = _CALLER.search(headers.get("authorization", ""))
            service, _, action = headers.get("x-amz-target", "").partition(".")
            if caller and service == "AmazonSQS":
                seen[caller[1]].add(action)
        return seen

    def _ask(self, method: str, path: str) -> None:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - http, this machine
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            answer.read()


@contextmanager
def moto_server(folder: Path) -> Iterator[Server]:
    """Run a server of its own; it writes into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(f"127.0.0.1:{port}", folder / "calls")
    server.record.touch()
    environment = {"MOTO_ENABLE_RECORDING": "1", "MOTO_RECORDER_FILEPATH": str(server.record)}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait(process, port)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "moto ended"
        assert time.monotonic() < deadline, "moto does not answer"
        time.sleep(0.05)


def settings_of(endpoint: str, **options: Any) -> BrokerSettings:
    """Return settings for an endpoint, with queue names of their own."""
    given: dict[str, Any] = {
        "sqs_region": REGION,
        "sqs_access_key_id": SecretStr(KEY_ID),
        "sqs_secret_access_key": SecretStr("secret"),
        "sqs_prefix": f"t{secrets.token_hex(4)}-",
        "sqs_wait_s": 1,
        "state_dir": Path("/nowhere"),
    }
    return BrokerSettings(profile="sqs", sqs_endpoint=endpoint, **{**given, **options})


def varied(settings: BrokerSettings, **options: Any) -> BrokerSettings:
    """Return the same settings but for some, checked and known as set."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return BrokerSettings(**{**given, **options})


@contextmanager
def sqs_settings(
    server: Server, pools: Sequence[str] = ("p",), *, visibility_timeout_s: float = 2, **options: Any
) -> Iterator[BrokerSettings]:
    """Yield settings of fresh names on a running server, where the queues of ``pools`` exist."""
    settings = settings_of(server.url, visibility_timeout_s=visibility_timeout_s, **options)
    carrier_of(settings).create(settings, list(pools))
    yield settings


def environment(settings: BrokerSettings) -> dict[str, str]:
    """Return the variables by which another process has these settings."""
    named = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            named[f"EPHEMERALML_{name.upper()}"] = text
    return named
