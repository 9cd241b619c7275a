"""Brings the proxy up: trust first, then the port."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn

from ...wire.errors import ConfigurationError
from ..client import Client
from ..session import Session
from .app import make_app
from .batch_runner import BatchRunner
from .batch_store import BatchStore
from .catalogue import Catalogue
from .service import Service
from .settings import ProxySettings
from .stores import Stores
from .token import load_token

TOKEN_FILE: Final = "token"  # noqa: S105 - a name
#: Requests that are in work when the proxy is stopped may end within so many seconds.
SHUTDOWN_SECONDS: Final = 5
SWITCH_SECONDS: Final = 0.0005


@dataclass
class Proxy:
    """A proxy whose port is open. ``url`` is the base address for clients; serve with :meth:`serve`."""

    settings: ProxySettings
    service: Service
    token: str | None
    url: str
    server: uvicorn.Server
    listener: socket.socket

    def serve(self) -> None:
        """Answer until SIGINT, SIGTERM or ``server.should_exit``."""
        # Threads here mostly wait for each other; at Python's 5 ms a hand-over would cost as much as a job.
        sys.setswitchinterval(SWITCH_SECONDS)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it caught again at its end
                signal.signal(number, lambda *_: None)
        self.server.run(sockets=[self.listener])


@contextmanager
def open_proxy(settings: ProxySettings, client: Client, *, new_token: bool = False) -> Iterator[Proxy]:
    """Establish trust in every pool, then open folder and port.

    :raises Error: as :meth:`.session.Session.__enter__`: then no port was opened.
    :raises ConfigurationError: ``PORT_UNUSABLE``, or the folder or the token cannot be used.
    """
    begun = Session(client, settings.pools, lifetime_s=settings.timeout_s)
    with begun as session, Stores(settings) as stores, ExitStack() as held:
        token = None
        if not settings.dangerous_no_token:
            token = load_token(settings.folder / TOKEN_FILE, renew=new_token)
        catalogue = Catalogue(session, settings.aliases)
        service = Service(settings, session, stores.receipts, catalogue)
        runner = held.enter_context(BatchRunner(service, stores, BatchStore(stores.database)))
        app = make_app(service, stores, runner, token)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        with _listen(settings.host, settings.port) as listener:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            url = f"http://{host}:{listener.getsockname()[1]}/v1"
            yield Proxy(settings, service, token, url, uvicorn.Server(config), listener)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
        # Inherited by connections; asyncio sets it only on sockets that name their protocol. Without it each
        # answer waits 40 ms for the caller's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no such port"
        raise ConfigurationError("PORT_UNUSABLE", f"cannot listen on port {port}: {reason}") from None


def ready_lines(proxy: Proxy, say: Callable[[str], None]) -> None:
    """Say what a user needs to know once the port is open."""
    for pool in proxy.settings.pools:
        fleet = proxy.service.session.known(pool)
        modes = {worker.appraisal.security_mode for worker in fleet.workers.values()}
        say(
            f"trusted: pool {pool}, model {fleet.model.id}, {len(fleet.workers)} worker(s), "
            f"{' and '.join(sorted(modes))}"
        )
    if proxy.token is None:
        say("token: none is asked for, whoever reaches the port may use it")
    else:
        say(f"token: {proxy.settings.folder / TOKEN_FILE}")
    say(f"ready: {proxy.url}")
