"""Brokers that tests may stop and start: each is a real server on this machine, behind one small face."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import boto3
from pydantic import SecretStr

from ephemeralml.broker_config import BrokerSettings, ping
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.redis.embedded import find_server
from ephemeralml.producer.lab import POOL
from ephemeralml.wire.errors import DeliveryError

from ..servers.cut import line_to
from ..servers.gcs import gcs_emulator
from ..servers.moto import REGION, moto_server, settings_of
from ..servers.pstest import pstest
from ..servers.pstest import settings_of as pubsub_settings_of
from .host import Host
from .host_pubsub import PubsubHost
from .host_redis import RedisHost
from .host_sqs import SqsHost

PASSWORD: Final = "a-secret-password"
VISIBILITY_S: Final = 4.0


def environment(settings: BrokerSettings) -> dict[str, str]:
    """Return settings as a process's environment."""
    named = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            named[f"EPHEMERALML_{name.upper()}"] = text
    return named


@dataclass
class Broker:
    """A running broker.

    :param environment: what a process needs to use it.
    :param stop: ends it, without warning where asked to. :param start: brings it back with what it has kept.
    :param host: the broker's operator, for harm.
    """

    settings: BrokerSettings
    environment: dict[str, str]
    stop: Callable[[bool], None] | None = None
    start: Callable[[], None] | None = None
    host: Callable[[random.Random], Host] | None = None


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    """Return once ``what`` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "that did not happen in time"
        time.sleep(0.02)


def answers(settings: BrokerSettings) -> bool:
    """Return whether the broker answers."""
    try:
        ping(settings)
    except DeliveryError:
        return False
    return True


@contextmanager
def embedded(folder: Path) -> Iterator[Broker]:
    """The embedded profile: a private Redis that starts again by itself when it ends."""
    own = BrokerSettings(state_dir=folder / "state", visibility_timeout_s=VISIBILITY_S)
    with broker_running(own) as settings:
        yield Broker(settings, environment(own))


@contextmanager
def redis(folder: Path, appendfsync: str = "everysec") -> Iterator[Broker]:
    """A Redis of its own on a TCP port, with a password and an append-only file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "redis"
    data.mkdir(parents=True)
    command = [find_server(), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
    command += ["--dir", str(data), "--save", "", "--appendonly", "yes", "--appendfsync", appendfsync]
    command += ["--maxmemory-policy", "noeviction"]
    settings = BrokerSettings(
        profile="redis",
        broker_url=SecretStr(f"redis://:{PASSWORD}@127.0.0.1:{port}/0"),
        visibility_timeout_s=VISIBILITY_S,
    )
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        until(lambda: answers(settings))

    def stop(hard: bool) -> None:
        server = running.pop()
        server.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        server.wait(30)

    start()
    try:
        yield Broker(settings, environment(settings), stop, start, partial(RedisHost, settings))
    finally:
        for server in running:
            server.kill()
            server.wait(30)


@contextmanager
def sqs(folder: Path) -> Iterator[Broker]:
    """SQS and S3 by moto, slow and with the same calls; an outage cuts the line to its queues."""
    bucket = "a-bucket"
    with moto_server(folder) as server, line_to(server.address) as line:
        settings = settings_of(
            f"http://{line.address}",
            visibility_timeout_s=VISIBILITY_S,
            state_dir=folder,
            blob_url=f"s3://{bucket}",
            blob_endpoint=server.url,
            blob_region=REGION,
            blob_access_key_id=SecretStr("key"),
            blob_secret_access_key=SecretStr("secret"),
        )
        boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        ).create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        carrier_of(settings).create(settings, [POOL])
        host = partial(SqsHost, settings, server.url)
        yield Broker(settings, environment(settings), lambda _: line.cut(), line.mend, host)


@contextmanager
def pubsub(folder: Path) -> Iterator[Broker]:
    """Pub/Sub by Google's own fake, Cloud Storage by an emulator; an outage cuts the line to Pub/Sub."""
    bucket = "a-bucket"
    folder.mkdir(parents=True)
    with (
        pstest(folder, ack_deadline_s=int(VISIBILITY_S)) as server,
        line_to(server.admin) as line,
        gcs_emulator(folder, bucket) as endpoint,
    ):
        settings = pubsub_settings_of(
            line.address,
            visibility_timeout_s=VISIBILITY_S,
            state_dir=folder,
            blob_url=f"gs://{bucket}",
            blob_endpoint=endpoint,
        )
        carrier_of(settings).create(settings, [POOL])
        host = partial(PubsubHost, settings, server.admin)
        yield Broker(settings, environment(settings), lambda _: line.cut(), line.mend, host)


BROKERS: Final[dict[str, Callable[[Path], AbstractContextManager[Broker]]]] = {
    "embedded": embedded,
    "redis": redis,
    "sqs": sqs,
    "pubsub": pubsub,
}
