"""A worker boots from a model that lies in a store, and takes no other than it was told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ephemeralml.wire.errors import Error
from ephemeralml.workers.models.publish import publish_package
from ephemeralml.workers.models.stores import StoreSettings

from . import test_policy_reload as shared
from .test_policy_reload import Running, Site

site = shared.site  # the laboratory with a small packaged model


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")


def manifest_hash(site: Site) -> str:
    return site.policy.models[0].manifest_hash


def published(site: Site, place: str, s3: str) -> str:
    signer = shared.OWNER.public_key().public_bytes_raw()
    settings = StoreSettings(s3, None, "us-east-1")
    return publish_package(site.model, place, trusted_signers=(signer,), settings=settings).url


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_worker_boots_from_a_store(site: Site, tmp_path: Path, s3: str, kind: str) -> None:
    if kind == "s3":
        boto3.client("s3", endpoint_url=s3, region_name="us-east-1").create_bucket(Bucket="models")
    url = published(site, f"file://{tmp_path}/store" if kind == "file" else "s3://models/here", s3)
    running = Running(site, tmp_path)
    running.boot(model=url, model_s3_endpoint=s3, model_manifest_hash=manifest_hash(site))
    assert running.identity.model.manifest_hash.hex() == manifest_hash(site)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_manifest_hash": "ab" * 32}, "MODEL_UNEXPECTED"),
        ({"model": "s3://no-such-bucket/x.eml"}, "MODEL_NOT_FOUND"),
        ({"model": "file:///nowhere/x.eml"}, "MODEL_NOT_FOUND"),
        ({"model_signer": "ab" * 32}, "MODEL_SIGNER_UNTRUSTED"),
    ],
)
def test_another_model_is_not_taken(
    site: Site, tmp_path: Path, s3: str, changes: dict[str, object], code: str
) -> None:
    running = Running(site, tmp_path)
    with pytest.raises(Error) as caught:
        running.boot(model_s3_endpoint=s3, **changes)
    assert caught.value.code == code


def test_a_model_that_the_policy_does_not_want_is_not_asked_for(site: Site, tmp_path: Path, s3: str) -> None:
    running = Running(site, tmp_path)
    running.publish(running.refusing("model"))
    with pytest.raises(Error, match="MODEL_NOT_ALLOWED"):
        running.boot(model=published(site, f"file://{tmp_path}/store", s3))
