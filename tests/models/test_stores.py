"""The three stores: pinned ranges, uploads that resume, and a name that is never overwritten."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ephemeralml.wire.errors import ConfigurationError, DeliveryError, ModelError
from ephemeralml.workers.models.publish import publish_package
from ephemeralml.workers.models.stores import ModelStore, StoreSettings, open_store
from ephemeralml.workers.models.stores import gcs as gcs_module
from ephemeralml.workers.models.where import package_bytes

from .forge import SIGNER, load, make
from .gcs_fake import Gcs, gcs_server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def gcs() -> Iterator[Gcs]:
    with gcs_server() as state:
        yield state


@pytest.fixture(params=["file", "s3", "gs"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, s3: str, gcs: Gcs, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, StoreSettings]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    settings = StoreSettings(s3, gcs.endpoint, "us-east-1", 5.0)
    bucket = f"b{os.urandom(6).hex()}"
    if request.param == "s3":
        _client(s3).create_bucket(Bucket=bucket)
    return f"file://{tmp_path}/store" if request.param == "file" else f"{request.param}://{bucket}", settings


def _client(endpoint: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")


@pytest.fixture
def sealed(folder: Path, tmp_path: Path) -> Path:
    make(folder, tmp_path / "m.eml")
    return tmp_path / "m.eml"


def test_published_once_and_opened_from_there(place: tuple[str, StoreSettings], sealed: Path) -> None:
    to, settings = place
    first = publish_package(sealed, to + "/models/", trusted_signers=(SIGNER,), settings=settings)
    again = publish_package(sealed, to + "/models", trusted_signers=(SIGNER,), settings=settings)
    assert (first.stored, again.stored) == (True, False)
    assert first.url == again.url
    with package_bytes(first.url, settings) as reader:
        assert load(reader).manifest_hash == first.manifest_hash


def test_other_content_under_a_name_is_not_overwritten(
    place: tuple[str, StoreSettings], sealed: Path, tmp_path: Path
) -> None:
    to, settings = place
    other = tmp_path / "other"
    other.write_bytes(b"other")
    for file, sha256 in ((sealed, _sha256(sealed)), (other, _sha256(other))):
        store = open_store(to + "/name", settings)
        if file is sealed:
            assert store.publish(file, sha256)
        else:
            with pytest.raises(ModelError, match="PACKAGE_EXISTS"):
                store.publish(file, sha256)
        store.close()


def test_swap_while_it_is_read_is_refused(
    place: tuple[str, StoreSettings], sealed: Path, gcs: Gcs, s3: str
) -> None:
    to, settings = place
    store = open_store(to + "/name", settings)
    store.publish(sealed, _sha256(sealed))
    version = store.stat()
    assert b"".join(store.read_range(version, 5, 50)) == sealed.read_bytes()[5:50]
    _replace(to, gcs, s3)
    with pytest.raises(ModelError, match="MODEL_SWAPPED"):
        list(store.read_range(version, 5, 50))
    store.close()


def test_missing_object(place: tuple[str, StoreSettings]) -> None:
    store: ModelStore = open_store(place[0] + "/nothing", place[1])
    with pytest.raises(ConfigurationError, match="MODEL_NOT_FOUND"):
        store.stat()
    store.close()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_store_that_is_down(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    down = "http://127.0.0.1:9"
    store = open_store(f"{scheme}://bucket/key", StoreSettings(down, down, "us-east-1", 1.0))
    with pytest.raises(DeliveryError, match="MODEL_STORE_UNAVAILABLE"):
        store.stat()
    store.close()


def test_gcs_upload_goes_on_where_it_broke(gcs: Gcs, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_module, "PART_BYTES", 4096)
    gcs.fail_puts = 2
    store = open_store("gs://resume/name", StoreSettings(gcs_endpoint=gcs.endpoint))
    assert store.publish(sealed, _sha256(sealed))
    store.close()
    assert gcs.objects["resume/name"][1] == sealed.read_bytes()
    assert gcs.fail_puts == 0


@pytest.mark.parametrize(
    ("status", "code"), [(401, "MODEL_STORE_DENIED"), (403, "MODEL_STORE_DENIED"), (500, "UNAVAILABLE")]
)
def test_gcs_that_refuses(gcs: Gcs, status: int, code: str) -> None:
    store = open_store("gs://b/o", StoreSettings(gcs_endpoint=gcs.endpoint))
    gcs.status = status
    try:
        with pytest.raises((ConfigurationError, DeliveryError), match=code):
            store.stat()
    finally:
        gcs.status = 0
        store.close()


def test_s3_upload_goes_on_with_the_parts_that_are_there(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    client = _client(s3)
    client.create_bucket(Bucket="resume")
    big = tmp_path / "big"
    big.write_bytes(os.urandom((8 << 20) + 5))
    sha256 = _sha256(big)
    made = client.create_multipart_upload(Bucket="resume", Key="k", Metadata={"sha256": sha256})
    client.upload_part(
        Bucket="resume", Key="k", UploadId=made["UploadId"], PartNumber=1, Body=big.read_bytes()[: 8 << 20]
    )
    store = open_store("s3://resume/k", StoreSettings(s3, region="us-east-1"))
    sent: list[int] = []
    client_of_store = store._client  # type: ignore[attr-defined]
    upload_part = client_of_store.upload_part

    def watched(**more: Any) -> Any:
        sent.append(more["PartNumber"])
        return upload_part(**more)

    monkeypatch.setattr(client_of_store, "upload_part", watched)
    assert store.publish(big, sha256)
    store.close()
    assert sent == [2]
    assert client.head_object(Bucket="resume", Key="k")["ContentLength"] == big.stat().st_size


@pytest.mark.parametrize(
    "url",
    ["http://x/y", "s3://bucket", "gs:///key", "file://host/x", "s3://b/k?x=1", "s3://u:p@b/k", "s3://b/"],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BAD_MODEL_URL"):
        open_store(url)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _replace(to: str, gcs: Gcs, s3: str) -> None:
    replace: dict[str, Callable[[str], object]] = {
        "file": lambda path: Path(path, "name").write_bytes(b"x" * 100),
        "s3": lambda bucket: _client(s3).put_object(Bucket=bucket, Key="name", Body=b"x" * 100),
        "gs": lambda bucket: gcs.store(f"{bucket}/name", b"x" * 100, {}),
    }
    scheme, rest = to.split("://")
    replace[scheme](rest)
