"""A simulated TEE, a local KMS and real boto3 between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ephemeralml.attestation.key_release.aws import AwsKms
from ephemeralml.attestation.key_release.local_kms import (
    LocalKms,
    LocalKmsConfig,
    Principal,
    development_policies,
)
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs

WORKER: Final = Principal("worker", "AKIAWORKER00000000", "worker/secret+with=odd")
OWNER: Final = Principal("owner", "AKIAOWNER000000000", "owner-secret")
STRANGER: Final = Principal("stranger", "AKIASTRANGER000000", "stranger-secret")
CONTEXT: Final = {"purpose": "fleet", "pool": "minilm", "epoch": "1"}
IMAGE: Final = "worker-image"

StartKms = Callable[..., LocalKms]
Connect = Callable[..., AwsKms]


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own AWS settings and proxies out."""
    for name in (
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_KMS",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(scope="session")
def root() -> DevelopmentRoot:
    """The root that the KMS accepts."""
    # Older than any time that a test module read when it was imported.
    return DevelopmentRoot.create(now=time.time() - 86_400)


@pytest.fixture
def attester(root: DevelopmentRoot) -> SimulatedAttester:
    """A TEE whose image the policies name."""
    return SimulatedAttester(root, development_pcrs(IMAGE))


@pytest.fixture
def start_kms(tmp_path: Path, root: DevelopmentRoot) -> Iterator[StartKms]:
    """Start local KMSs; settings as keyword arguments."""
    running: list[LocalKms] = []

    def start(*, now: Callable[[], float] | None = None, **settings: Any) -> LocalKms:
        values: dict[str, Any] = {
            "directory": tmp_path / "kms",
            "roots": (root.fingerprint,),
            "policies": development_policies(image_sha384=[development_pcrs(IMAGE)[0].hex()]),
            "principals": {one.name: one for one in (WORKER, OWNER, STRANGER)},
        }
        config = LocalKmsConfig(**(values | settings))
        kms = LocalKms(config) if now is None else LocalKms(config, now=now)
        kms.start()
        running.append(kms)
        return kms

    yield start
    for kms in running:
        kms.stop()


@pytest.fixture
def kms(start_kms: StartKms) -> LocalKms:
    """A local KMS with the development policies."""
    return start_kms()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make AwsKms for a TEE and a KMS."""
    made: list[AwsKms] = []

    def make(attester: Any, kms: LocalKms | str, key_id: str = "alias/fleet", **settings: Any) -> AwsKms:
        who: Principal = settings.pop("principal", WORKER)
        client = AwsKms(
            attester,
            key_id,
            endpoint_url=kms if isinstance(kms, str) else kms.endpoint,
            region="us-east-1",
            access_key_id=who.access_key_id,
            secret_access_key=who.secret_access_key,
            **settings,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def raw_client(kms: LocalKms) -> Iterator[Callable[[Principal], Any]]:
    """Make bare boto3 KMS clients."""
    from ephemeralml.attestation.key_release.aws_settings import AwsSettings
    from ephemeralml.attestation.key_release.boto import make_client

    made: list[Any] = []

    def make(principal: Principal) -> Any:
        settings = AwsSettings(
            endpoint_url=kms.endpoint,
            region="us-east-1",
            access_key_id=principal.access_key_id,
            secret_access_key=principal.secret_access_key,
        )
        client = make_client(settings)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
