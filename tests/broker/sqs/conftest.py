"""One moto for all tests here; each has queues of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ephemeralml.broker_config import BrokerSettings

from ...servers.moto import Server, moto_server, sqs_settings


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running moto."""
    with moto_server(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def settings(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerSettings]:
    """Settings under which the queue of the pool ``p`` exists."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with sqs_settings(server) as made:
        yield made
