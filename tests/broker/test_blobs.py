from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from ephemeralml.broker_config import (
    BlobStore,
    BrokerSettings,
    LocalBlobStore,
    RedisBlobStore,
    broker_settings,
    make_blob_store,
)
from ephemeralml.broker_config.blobs import base as blobs_module
from ephemeralml.broker_config.blobs import check_key, collect, get_content, put_content
from ephemeralml.broker_config.blobs.collect import expired
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.wire.errors import ConfigurationError, DeliveryError, MalformedError, VerificationError

from ..servers.gcs import gcs_emulator
from ..servers.moto import moto_server
from .conftest import PROFILES, free_port, running

STORES = (*PROFILES, "s3", "gcs")
BUCKET = "a-bucket"


@contextmanager
def cloud_settings(kind: str, folder: Path) -> Iterator[BrokerSettings]:
    """Yield settings of a blob store in a cloud that runs on this machine."""
    if kind == "gcs":
        with gcs_emulator(folder, BUCKET) as endpoint:
            yield BrokerSettings(
                state_dir=folder, blob_url=f"gs://{BUCKET}/some/prefix", blob_endpoint=endpoint
            )
        return
    with moto_server(folder) as server:
        settings = BrokerSettings(
            state_dir=folder,
            blob_url=f"s3://{BUCKET}/some/prefix",
            blob_endpoint=server.url,
            blob_region="us-east-1",
            blob_access_key_id=SecretStr("key"),
            blob_secret_access_key=SecretStr("secret"),
        )
        maker = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        maker.create_bucket(Bucket=BUCKET)
        yield settings


@pytest.fixture(params=STORES, scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobStore]:
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    with cloud_settings(kind, folder) if kind in ("s3", "gcs") else running(kind, folder) as settings:
        yield make_blob_store(settings)


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 1000, bytes(1 << 20)])
def test_put_get_replace_delete(store: BlobStore, data: bytes) -> None:
    store.put("a/b", data)
    assert store.get("a/b") == data
    assert store.exists("a/b")
    store.put("a/b", b"new")
    assert store.get("a/b") == b"new"
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    with pytest.raises(DeliveryError) as caught:
        store.get("a/b")
    assert (caught.value.code, caught.value.retriable) == ("BLOB_MISSING", False)


def test_cloud_storage_is_asked_for_objects_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's client would ask for the bucket in the background, by a right that no role has."""
    cache = import_module("google.cloud.storage._bucket_metadata_cache")
    asked: list[str] = []
    for name in ("_fetch_background", "_verify_existence_background"):
        monkeypatch.setattr(cache.BucketMetadataCache, name, lambda _, bucket: asked.append(bucket))
    with cloud_settings("gcs", tmp_path) as settings:
        blobs = make_blob_store(settings)
        blobs.put("a/b", b"x")
        assert (blobs.get("a/b"), blobs.exists("a/c"), list(blobs.list("a/"))) == (b"x", False, ["a/b"])
    assert asked == []


def test_put_if_absent_has_one_winner(store: BlobStore) -> None:
    winners: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        if store.put_if_absent("race/key", str(number).encode()):
            winners.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.get("race/key") == str(winners[0]).encode()
    store.delete("race/key")
    assert store.put_if_absent("race/key", b"again")


def test_list_passes_over_what_others_wrote_there(store: BlobStore) -> None:
    """One name that is no text must not end the thread that reads orders."""
    store.put("foreign/good", b"")
    if isinstance(store, RedisBlobStore):
        for name in (b"blob:foreign/\xff", b"blob:foreign/UP", b"blob:foreign/../good"):
            store._client.set(name, b"")
    elif isinstance(store, LocalBlobStore):
        for local in (b"\xff", b"UP"):
            (store._directory / "foreign" / os.fsdecode(local)).touch()
    assert list(store.list("foreign/")) == ["foreign/good"]


def test_list_names_what_lies_under_a_prefix(store: BlobStore) -> None:
    for key in ("l/p/a", "l/p/b/c", "l/pq/d", "l/p.e"):
        store.put(key, b"x")
    assert sorted(store.list("l/p/")) == ["l/p/a", "l/p/b/c"]
    assert list(store.list("nothing/")) == []
    for prefix in ("l/p", "", "/", "../", "l//"):
        with pytest.raises(MalformedError, match="BAD_BLOB_KEY"):
            list(store.list(prefix))


def test_content_is_hashed_again_when_it_is_read(store: BlobStore) -> None:
    digest = put_content(store, b"content")
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert put_content(store, b"content") == digest
    assert get_content(store, digest) == b"content"
    store.put(f"sha256/{digest}", b"swapped by the host")
    with pytest.raises(VerificationError, match="BLOB_TAMPERED"):
        get_content(store, digest)
    with pytest.raises(DeliveryError, match="BLOB_MISSING"):
        get_content(store, "0" * 64)


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../b", "a..b", ".a", "a/.b", "A", "a b", "a\n", "ä", "a" * 201, "a*"],
)
def test_bad_keys_reach_no_store(store: BlobStore, key: str) -> None:
    calls = (
        store.get,
        store.exists,
        store.delete,
        lambda k: store.put(k, b""),
        lambda k: store.put_if_absent(k, b""),
    )
    for call in calls:
        with pytest.raises(MalformedError, match="BAD_BLOB_KEY"):
            call(key)


@given(st.text(max_size=40))
def test_a_key_never_leaves_its_folder(key: str) -> None:
    try:
        check_key(key)
    except MalformedError:
        return
    root = Path("/blobs")
    assert (root / key).resolve().is_relative_to(root)


def test_blobs_are_bounded(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("big/blob", b"x" * 100)
    monkeypatch.setattr(blobs_module, "MAX_BLOB_BYTES", 99)
    for call in (
        lambda: store.get("big/blob"),
        lambda: store.put("big/new", b"x" * 100),
        lambda: store.put_if_absent("big/new", b"x" * 100),
    ):
        with pytest.raises(MalformedError, match="BLOB_TOO_LARGE"):
            call()
    assert list(store.list("big/")) == ["big/blob"]


def test_a_local_store_is_private_and_leaves_no_drafts(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    store.put("a/b", b"1")
    store.put_if_absent("a/b", b"2")
    store.put_if_absent("a/c", b"3")
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "blobs").rglob("*")) == ["a", "b", "c"]
    with pytest.raises(DeliveryError, match="BLOB_MISSING"):
        store.get("a")
    with pytest.raises(DeliveryError, match="BLOB_MISSING"):
        store.get("a/b/c")
    with pytest.raises(DeliveryError, match="BLOB_STORE_UNAVAILABLE"):
        store.put("a/b/c", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeliveryError, match="BLOB_STORE_UNAVAILABLE"):
        LocalBlobStore(tmp_path / "file" / "blobs")


def test_an_unreachable_store_is_one_clear_error() -> None:
    store = make_blob_store(broker_settings(broker_url=f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(DeliveryError) as caught:
        store.get("a/b")
    assert (caught.value.code, caught.value.retriable) == ("BLOB_STORE_UNAVAILABLE", True)


# ------------------------------------------------------------------------------- large, false, full, expired


def test_a_large_blob_comes_in_pieces_and_is_whole(store: BlobStore) -> None:
    data = os.urandom(9 << 20)
    digest = put_content(store, data)
    pieces = list(store.pieces(f"sha256/{digest}"))
    assert len(pieces) > 1
    assert b"".join(pieces) == data
    assert get_content(store, digest, len(data)) == data
    store.put("large/replaced", data)
    store.put("large/replaced", data[::-1])
    assert store.get("large/replaced") == data[::-1]
    assert not store.put_if_absent("large/replaced", data)
    assert store.put_if_absent("large/new", data)
    assert sorted(store.list("large/")) == ["large/new", "large/replaced"]


class Counting:
    """Yields more than was agreed upon, and counts how much of it was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def pieces(self, key: str) -> Iterator[bytes]:
        while True:
            self.taken += 1
            yield bytes(1000)


def test_nothing_is_read_beyond_the_stated_size() -> None:
    lying = Counting()
    with pytest.raises(VerificationError, match="BLOB_TAMPERED"):
        get_content(lying, "0" * 64, 2500)  # type: ignore[arg-type]
    assert lying.taken == 3
    with pytest.raises(MalformedError, match="BLOB_TOO_LARGE"):
        get_content(lying, "0" * 64, 1 << 40)  # type: ignore[arg-type]
    assert lying.taken == 3


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"y" + d[1:]])
def test_a_blob_that_is_shorter_longer_or_other_is_refused(
    store: BlobStore, change: Callable[[bytes], bytes]
) -> None:
    data = os.urandom(1000)
    digest = put_content(store, data)
    store.put(f"sha256/{digest}", change(data))
    with pytest.raises(VerificationError, match="BLOB_TAMPERED"):
        get_content(store, digest, len(data))


KEPT = ("announcements/p/a", "sha256/" + "e" * 64, "dead/p/b", "ledger/p/c/start-1", "orders/p/d")


def test_what_has_expired_is_collected_and_nothing_else(store: BlobStore) -> None:
    now = int(time.time())
    for name in KEPT:
        store.put(name, b"stays")
    old, new, both = (put_content(store, os.urandom(20), now + 100) for _ in range(3))
    later = put_content(store, b"a content of two deadlines", now + 100)
    for until in (now + 30 * 3600, now + 100):
        assert put_content(store, b"a content of two deadlines", until) == later
    del new, both
    assert collect(store, now + 100).removed == 0
    assert collect(store, now + 3 * 3600, dry_run=True).removed == 3
    assert store.exists(f"sha256/{old}")
    done = collect(store, now + 3 * 3600)
    assert (done.removed, done.kept >= 1) == (3, True)
    assert not store.exists(f"sha256/{old}")
    assert get_content(store, later) == b"a content of two deadlines"
    assert collect(store, now + 3 * 3600).removed == 0
    collect(store, now + 40 * 86_400)
    assert not store.exists(f"sha256/{later}")
    assert list(store.list("expires/")) == []
    for name in KEPT:
        assert store.get(name) == b"stays"


@pytest.mark.parametrize(
    "mark", ["expires/../1", f"expires/{'A' * 64}/1", f"expires/{'0' * 64}/x", "expires/announcements/1"]
)
def test_a_mark_that_is_none_makes_nothing_disappear(tmp_path: Path, mark: str) -> None:
    store = LocalBlobStore(tmp_path)
    store.put("announcements/1", b"stays")
    if ".." not in mark and "A" not in mark:
        store.put(mark, b"")
    assert collect(store, 1e12).removed == 0
    assert store.get("announcements/1") == b"stays"


@given(st.dictionaries(st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 600_000)))
def test_no_blob_is_expired_before_its_hour(marks: dict[str, int]) -> None:
    now = 300_000 * 3600.0
    assert set(expired(marks, now)) == {digest for digest, hour in marks.items() if hour < 300_000 - 1}


def test_redis_forgets_expired_content_by_itself(tmp_path: Path) -> None:
    with running("redis", tmp_path) as settings:
        store = make_blob_store(settings)
        digest = put_content(store, b"x" * (5 << 20), int(time.time()) + 100)
        with redis_client(settings) as client:
            for key in (f"blob:sha256/{digest}", *client.scan_iter(match="blob:expires/*")):
                assert 0 < client.ttl(key) < 3 * 3600
        for size in (10, 5 << 20):
            data = os.urandom(size)
            key = f"blob:sha256/{put_content(store, data, int(time.time()) + 90_000)}"
            put_content(store, data, int(time.time()) + 100)
            with redis_client(settings) as client:
                assert client.ttl(key) > 80_000  # what somebody wants for longer stays for longer
            put_content(store, os.urandom(size), int(time.time()) - 90_000)  # after its time: no error
        store.put("stays", b"x" * (5 << 20))
        with redis_client(settings) as client:
            assert client.ttl("blob:stays") == -1


def test_a_full_store_is_one_error_to_try_again(tmp_path: Path) -> None:
    with running("redis", tmp_path) as settings, redis_client(settings) as client:
        store = make_blob_store(settings)
        store.put("a/b", b"old")
        client.config_set("maxmemory", "1")
        for data in (b"small", bytes(9 << 20)):
            with pytest.raises(DeliveryError) as caught:
                store.put("a/b", data)
            assert (caught.value.code, caught.value.retriable) == ("BLOB_STORE_FULL", True)
        client.config_set("maxmemory", "0")
        assert store.get("a/b") == b"old"
        assert list(client.scan_iter(match="blob-draft:*")) == []


def test_a_full_disk_is_one_error_to_try_again(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from ephemeralml.broker_config import LocalBlobStore\n"
        "from ephemeralml.wire.errors import DeliveryError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "store = LocalBlobStore(Path(sys.argv[1]))\n"
        "try: store.put('a/b', bytes(2000))\n"
        "except DeliveryError as error: print(error.code, error.retriable)\n"
        "store.put('a/b', b'fits')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["BLOB_STORE_FULL", "True"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


@pytest.mark.parametrize(
    "given",
    [
        {"blob_url": "ftp://a/b"},
        {"blob_url": "s3://"},
        {"blob_url": "file://relative"},
        {"blob_endpoint": "http://example.com"},
        {"blob_access_key_id": "only"},
        {"profile": "sqs", "blob_url": "redis"},
    ],
)
def test_bad_blob_settings_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        BrokerSettings(**given)  # type: ignore[arg-type]


def test_a_profile_without_a_store_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="EPHEMERALML_BLOB_URL"):
        make_blob_store(BrokerSettings(profile="sqs"))
