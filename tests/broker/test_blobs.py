from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.broker_config import (
    BlobStore,
    LocalBlobStore,
    RedisBlobStore,
    broker_settings,
    make_blob_store,
)
from ephemeralml.broker_config import blobs as blobs_module
from ephemeralml.broker_config.blobs import check_key, get_content, put_content
from ephemeralml.wire.errors import DeliveryError, MalformedError, VerificationError

from .conftest import PROFILES, free_port, running


@pytest.fixture(params=PROFILES, scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobStore]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as settings:
        store = make_blob_store(settings)
        assert isinstance(store, LocalBlobStore if request.param == "embedded" else RedisBlobStore)
        yield store


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
    else:
        assert isinstance(store, LocalBlobStore)
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
