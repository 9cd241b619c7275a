"""Sites on every broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeralml.producer.lab import Lab

from .brokers import BROKERS
from .site import Site, laboratory, site


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BROKER_URL", "STATE_DIR", "CONFIG", "PROFILE", "VISIBILITY_TIMEOUT_S"):
        monkeypatch.delenv(f"EPHEMERALML_{name}", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(scope="session")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A laboratory whose model is a few bytes."""
    with laboratory(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(params=BROKERS)
def place(request: pytest.FixtureRequest, small_lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """A site without workers, once per broker."""
    with (
        BROKERS[request.param](tmp_path / "broker") as broker,
        site(small_lab, broker, tmp_path / "site") as here,
    ):
        yield here
