"""A proxy in this process in front of :class:`.host.Host`, and OpenAI's own client."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import BrokerSettings, broker_settings
from ephemeralml.producer.proxy.server import Proxy, open_proxy
from ephemeralml.producer.proxy.settings import ProxySettings

from .host import Host


@dataclass
class Stand:
    """A pool, and a proxy that serves it."""

    host: Host
    proxy: Proxy

    @contextmanager
    def hastened(self) -> Iterator[None]:
        """Let deadlines pass as soon as answers were refused; how long that takes is the machine's matter."""
        session, done = self.proxy.service.session, threading.Event()

        def hasten() -> None:
            while not done.wait(0.02):
                entries = list(session._pending.values())
                if entries and all(entry.refusal for entry in entries):
                    self.host.ahead += 100
                    # Until these have ended: the next may be waiting already.
                    while not done.wait(0.02) and any(
                        entry is other for entry in entries for other in list(session._pending.values())
                    ):
                        continue

        thread = threading.Thread(target=hasten, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @property
    def openai(self) -> openai.OpenAI:
        """OpenAI's client, unmodified; fails at once where the proxy refuses."""
        return openai.OpenAI(base_url=self.proxy.url, api_key=self.proxy.token or "none", max_retries=0)

    def http(self, **more: Any) -> httpx.Client:
        """A plain client with the token."""
        headers = {"authorization": f"Bearer {self.proxy.token}"} | more.pop("headers", {})
        base = self.proxy.url.removesuffix("/v1")
        return httpx.Client(base_url=base, headers=headers, timeout=60, **more)


@contextmanager
def serving(host: Host, folder: Path, **more: Any) -> Iterator[Proxy]:
    """Serve a pool in a thread."""
    settings = ProxySettings(
        pools=(host.pool,), folder=folder, port=0, aliases={"text-embedding-3-small": host.pool}, **more
    )
    with open_proxy(settings, host.client()) as proxy:
        thread = threading.Thread(target=proxy.serve, name="proxy", daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSettings]:
    """A broker for all tests of this folder; each has a pool of its own."""
    with broker_running(broker_settings(state_dir=tmp_path_factory.mktemp("broker"))) as running:
        yield running


@pytest.fixture(scope="module")
def shared(broker: BrokerSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A pool and a proxy that the tests of a module leave as they find them."""
    folder = tmp_path_factory.mktemp("shared")
    with Host(folder, broker, pool="p" + os.urandom(4).hex()) as host, serving(host, folder / "p") as proxy:
        yield Stand(host, proxy)
        host.stop()


@pytest.fixture
def client(shared: Stand) -> Iterator[openai.OpenAI]:
    """OpenAI's client of the shared proxy."""
    with shared.openai as client:
        yield client


@pytest.fixture
def http(shared: Stand) -> Iterator[httpx.Client]:
    """A plain client of the shared proxy."""
    with shared.http() as client:
        yield client


@pytest.fixture
def stand(broker: BrokerSettings, tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Returns what makes a pool and a proxy that a test may break."""
    made: list[Stand] = []
    with ExitStack() as stack:

        def make(host: dict[str, Any] | None = None, **settings: Any) -> Stand:
            served = stack.enter_context(
                Host(tmp_path, broker, pool="p" + os.urandom(4).hex(), **(host or {}))
            )
            made.append(Stand(served, stack.enter_context(serving(served, tmp_path / "proxy", **settings))))
            return made[-1]

        yield make
        for served in made:
            served.host.stop()  # while the proxies end
