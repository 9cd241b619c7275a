"""Pub/Sub on this machine: Google's own fake, built once from Debian's packages of Go."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of

SOURCE = Path(__file__).parent / "pstest" / "main.go"
GO_PATH = Path("/usr/share/gocode")
FAKE = GO_PATH / "src/cloud.google.com/go/pubsub/pstest"
PACKAGES = "golang-go golang-google-cloud-dev"


def binary() -> Path:
    """Return the built server; skip the test where it cannot be built, but never in CI."""
    go = shutil.which("go")
    if go is None or not FAKE.is_dir():
        reason = f"Pub/Sub's fake cannot be built here: apt-get install {PACKAGES}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    built = Path(sys.prefix) / "pstest" / digest
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        draft = built.with_name(f"{digest}.{secrets.token_hex(4)}")
        environment = {
            "GOCACHE": str(built.parent / "cache"), **os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH)
        }  # fmt: skip
        subprocess.run(
            [go, "build", "-o", str(draft), SOURCE.name], cwd=SOURCE.parent, env=environment, check=True
        )
        draft.replace(built)
    return built


@dataclass(frozen=True)
class Server:
    """A running fake.

    :param admin: its address for callers with all rights. :param data: for callers that may publish and
        consume, and nothing else. :param record: the file that it writes calls down in.
    """

    admin: str
    data: str
    record: Path

    def calls(self, door: str) -> Counter[str]:
        """Return how often each method was called through ``admin`` or ``data``."""
        lines = (line.split() for line in self.record.read_text().splitlines())
        return Counter(method for by, method in lines if by == door)


@contextmanager
def pstest(folder: Path, *, ack_deadline_s: int = 0) -> Iterator[Server]:
    """Run a fake of its own.

    :param ack_deadline_s: how long every lease lasts, whatever a subscription asks for (10 at least).
    """
    record = folder / "calls"
    command = [str(binary()), "-calls", str(record), "-ack-deadline", str(ack_deadline_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            admin, data = process.stdout.readline().split()
            yield Server(admin, data, record)
        finally:
            process.kill()


def settings_of(endpoint: str, **options: object) -> BrokerSettings:
    """Return settings for an endpoint, with names of their own."""
    fresh = secrets.token_hex(4)
    given = {
        "pubsub_project": f"project-{fresh}",
        "pubsub_prefix": f"t{fresh}.",
        "state_dir": Path("/nowhere"),
    }
    return BrokerSettings(profile="pubsub", pubsub_endpoint=endpoint, **{**given, **options})  # type: ignore[arg-type]


@contextmanager
def pubsub_settings(
    folder: Path, pools: Sequence[str] = ("p",), *, ack_deadline_s: int = 2, **options: object
) -> Iterator[BrokerSettings]:
    """Yield settings of a running fake in which the queues of ``pools`` exist."""
    with pstest(folder, ack_deadline_s=ack_deadline_s) as server:
        settings = settings_of(server.admin, visibility_timeout_s=ack_deadline_s, **options)
        carrier_of(settings).create(settings, list(pools))
        yield settings


def environment(settings: BrokerSettings) -> dict[str, str]:
    """Return the variables by which another process has these settings."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {f"EPHEMERALML_{name.upper()}": str(value) for name, value in given.items() if value is not None}
