"""A launcher, STS, IAM and Cloud KMS on this machine, and the real client libraries between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.attestation.attest.launcher import Launcher
from ephemeralml.attestation.key_release.gcp import GcpKms
from ephemeralml.attestation.key_release.gcp_settings import GcpSettings

from ...attestation.confidential_space.launcher import StandInLauncher, launcher
from .google import KEY, PROVIDER, Addresses, Google, serve

Connect = Callable[..., GcpKms]


@pytest.fixture
def google() -> Google:
    """What the services know and do."""
    return Google()


@pytest.fixture
def addresses(google: Google) -> Iterator[Addresses]:
    """The services, running."""
    with serve(google) as running:
        yield running


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[StandInLauncher]:
    """The launcher of a worker's machine, running."""
    with launcher(tmp_path / "launcher.sock") as running:
        yield running


@pytest.fixture
def connect(tee: StandInLauncher, addresses: Addresses) -> Iterator[Connect]:
    """Make key releases; settings and clocks as keyword arguments."""
    made: list[GcpKms] = []

    def make(source: Any = None, **changes: Any) -> GcpKms:
        names = {"deadline_s", "patience", "random", "monotonic", "sleep"} & changes.keys()
        own: dict[str, Any] = {"sleep": lambda _: None} | {name: changes.pop(name) for name in names}
        fields: dict[str, Any] = {
            "key_name": KEY,
            "provider": PROVIDER,
            "kms_endpoint": addresses.kms,
            "sts_url": f"{addresses.web}/v1/token",
            "iam_endpoint": addresses.web,
        }
        release = GcpKms(
            GcpSettings(**(fields | changes)),
            Launcher(tee.path) if source is None else source,
            **own,
        )
        made.append(release)
        return release

    yield make
    for release in made:
        release.close()
