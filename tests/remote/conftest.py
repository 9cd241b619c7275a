"""One gateway with relay and worker for all tests that only use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ephemeralml.producer.lab import Lab

from ..delivery.brokers import BROKERS
from ..delivery.site import laboratory
from .stand import Stand, stand


@pytest.fixture(scope="session")
def remote_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A laboratory whose model is a few bytes."""
    with laboratory(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def there(remote_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A gateway, a relay and one worker on a Redis."""
    folder = tmp_path_factory.mktemp("remote")
    with BROKERS["redis"](folder / "broker") as broker, stand(remote_lab, broker, folder / "site") as made:
        made.site.worker().ready()
        yield made
