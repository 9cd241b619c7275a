"""A place where sealed jobs run for real: laboratory, broker, workers, clients; no engine computes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ephemeralml.producer.cli.common import make_client, read_policy
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.producer.ticket import Ticket
from ephemeralml.workers.engines.base import EmbedRequest
from ephemeralml.workers.engines.noop_engine import NoopEngine

from ..models.forge import tensors
from .brokers import Broker
from .nursery import Nursery, Worker

#: Stands in every input, so that a search for it finds every plaintext.
CANARY: Final = "canary-8c1f55d0-OKAPI-patient-name"
_ENGINE: Final = NoopEngine()


@dataclass
class Site:
    """One laboratory with one broker.

    :param more: settings of every worker started here.
    """

    lab: Lab
    broker: Broker
    nursery: Nursery
    folder: Path
    more: dict[str, str] = field(default_factory=dict)

    def worker(self, *arguments: str, **more: str) -> Worker:
        """Start a worker; it may not be ready yet."""
        return self.nursery.start(self._environment(more), "worker", *arguments)

    def worker_of_its_own(self, **more: str) -> Worker:
        """Start a worker that is no fork, so that the loader reads its environment."""
        return self.nursery.run(self._environment(more), "worker")

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        own = {"EPHEMERALML_WORKER_BACKEND": "noop", "EPHEMERALML_WORKER_THREADS": "1"}
        environment = {**os.environ, **self.lab.worker_environment, **own}
        environment.pop("EPHEMERALML_STATE_DIR", None)
        return {**environment, **self.broker.environment, **self.more, **more}

    def client(self) -> Client:
        """A client of this broker."""
        return make_client(self.broker.settings, read_policy(self.lab.policy))

    def plan(self, client: Client, name: str, count: int, *, pack_jobs: int = 8) -> Ticket:
        """Seal ``count`` jobs; their inputs follow from ``name``."""
        items = [InputItem(str(n), (text(name, n),)) for n in range(count)]
        fleet = client.trust_pool(POOL)
        return client.plan(fleet, items, self.folder / f"{name}.ticket", pack_jobs=pack_jobs)


def text(name: str, number: int) -> str:
    """Return the input of one job."""
    return f"{CANARY} {name} {number}"


def right(name: str, result: JobResult) -> bool:
    """Return whether a success holds what the engine makes of that job's input."""
    (expected,) = _ENGINE.run([EmbedRequest((text(name, int(result.custom_id)),))])
    if result.status != "succeeded" or result.response is None:
        return False
    return [getattr(output, "vector", None) for output in result.response.outputs] == expected.vectors


@contextmanager
def laboratory(folder: Path) -> Iterator[Lab]:
    """A laboratory with a running KMS and a model of a few bytes, which the no-op engine never reads."""
    lab = Lab.create(folder / "lab")
    source = folder / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(tensors(a=b"weights" * 100))
    with lab.kms():
        lab.package(source)
        yield lab


@contextmanager
def site(lab: Lab, broker: Broker, folder: Path, **more: str) -> Iterator[Site]:
    """A site; every worker ends with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with Nursery(folder) as nursery:
        here = Site(lab, broker, nursery, folder, more)
        yield here
        for worker in nursery.workers:
            worker.signal(signal.SIGTERM)
