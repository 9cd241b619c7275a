"""A whole site behind a gateway: laboratory, broker, workers, gateway and relay, each a process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.producer.cli.common import read_policy
from ephemeralml.producer.gateway.store import Store, migrate, tenants
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.producer.remote import GatewayApi, GatewayClient
from ephemeralml.producer.ticket import Ticket

from ..delivery.brokers import Broker, until
from ..delivery.nursery import Worker
from ..delivery.site import Site, site, text
from ..gateway.process import free_port


@dataclass
class Stand:
    """A gateway in front of a site.

    :param key: API key of the tenant ``acme``.
    """

    site: Site
    store_url: str
    url: str
    key: str
    environment: dict[str, str]

    def relay(self) -> Worker:
        """Start a relay."""
        return self.site.nursery.start(self.environment, "relay")

    def client(self, url: str | None = None) -> GatewayClient:
        """Return a client of this gateway, or of one in front of it."""
        policy = read_policy(self.site.lab.policy)
        return GatewayClient(GatewayApi(url or self.url, self.key), policy, endorsements_for(policy))

    def plan(self, client: GatewayClient, name: str, count: int, *, pack_jobs: int = 8) -> Ticket:
        """Seal ``count`` jobs; their inputs follow from ``name``."""
        items = [InputItem(str(n), (text(name, n),)) for n in range(count)]
        fleet = client.trust_pool(POOL)
        return client.plan(fleet, items, self.site.folder / f"{name}.ticket", pack_jobs=pack_jobs)

    @property
    def cli(self) -> dict[str, str]:
        """What a command of a user's needs in its environment."""
        return {
            "EPHEMERALML_GATEWAY_URL": self.url,
            "EPHEMERALML_GATEWAY_KEY": self.key,
            "EPHEMERALML_POLICY": str(self.site.lab.policy),
        }


def answers(url: str) -> bool:
    """Return whether a gateway is ready."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def stand(
    lab: Lab, broker: Broker, folder: Path, store_url: str | None = None, **more: str
) -> Iterator[Stand]:
    """Run gateway and relay over a broker; no worker yet.

    :param store_url: of an empty store; a file of SQLite by default. :param more: settings of both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store_url = store_url or f"sqlite:///{folder / 'gateway.db'}"
    store = Store(store_url)
    migrate(store)
    with store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", time.time())
        key = tenants.make_key(connection, tenant, "test", ["read", "write"], time.time())
    store.close()
    with site(lab, broker, folder / "site") as place:
        port = free_port()
        environment = {
            **os.environ,
            **broker.environment,
            "EPHEMERALML_GATEWAY_STORE_URL": store_url,
            "EPHEMERALML_STATE_DIR": broker.environment.get("EPHEMERALML_STATE_DIR", str(folder / "state")),
            **more,
        }
        made = Stand(place, store_url, f"http://127.0.0.1:{port}", key, environment)
        place.nursery.start(environment, "gateway", "serve", "--port", str(port))
        made.relay()
        until(lambda: answers(made.url))
        yield made
