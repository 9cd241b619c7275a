"""A package streams from files and from pieces, into memory only, within bounds."""

from __future__ import annotations

import ctypes
import io
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ephemeralml.wire.errors import DeliveryError, ModelError
from ephemeralml.workers.models import inspect_package

from .forge import CHUNK, forge, load, tensors


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    place = turn = 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        yield data[place : place + size]
        place, turn = place + size, turn + 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=8).filter(any))
def test_pieces_of_any_size_give_the_same_model(package: bytes, sizes: list[int]) -> None:
    whole, pieced = load(package), load(cut(package, sizes))
    assert pieced.manifest == whole.manifest
    assert {n: bytes(c) for n, c in pieced.files.items()} == {n: bytes(c) for n, c in whole.files.items()}
    assert inspect_package(cut(package, sizes)) == inspect_package(io.BytesIO(package))


class OnlyRead:
    """What many HTTP bodies offer: read, a few bytes at a time, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 777))


class Dribble(io.RawIOBase):
    """A raw stream that fills buffers in part."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._file.readinto(buffer[:1000])


def test_streams_that_give_less_than_asked_for(package: bytes) -> None:
    for source in (cast(BinaryIO, OnlyRead(package)), cast(BinaryIO, Dribble(package))):
        assert load(source).manifest == load(package).manifest


def test_pieces_that_end_early_or_late(package: bytes) -> None:
    with pytest.raises(ModelError, match="PACKAGE_TRUNCATED"):
        load(cut(package[:-1], [5000]))
    with pytest.raises(ModelError, match="PACKAGE_MALFORMED"):
        load(iter([package, b"", b"\0"]))
    with pytest.raises(ModelError, match="PACKAGE_TRUNCATED"):
        load(iter([]))


def test_error_of_a_source_becomes_ours_and_names_no_path(package: bytes) -> None:
    def broken(error: Exception) -> Iterator[bytes]:
        yield package[: len(package) // 2]
        raise error

    for error in (OSError(5, "Input/output error", "/secret/place"), RuntimeError("https://secret")):
        with pytest.raises(ModelError, match="PACKAGE_UNREADABLE") as caught:
            load(broken(error))
        assert caught.value.retriable
        assert "secret" not in str(caught.value)
    with pytest.raises(DeliveryError, match="BLOB_GONE"):
        load(broken(DeliveryError("BLOB_GONE", "")))


def test_memory_is_the_model_and_a_chunk() -> None:
    package = forge({"model.safetensors": tensors(a=bytes(300 * CHUNK))})
    tracemalloc.start()
    try:
        model = load(cut(package, [CHUNK]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(model.files["model.safetensors"]) > 300 * CHUNK
    assert peak < 20 * CHUNK  # the model itself lies in anonymous memory, which is not counted


_watching: list[tuple[str, object]] = []
_watch = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _watch and (event in ("open", "mmap.__new__") or event.startswith(("os.", "tempfile.", "shutil."))):
        _watching.append((event, arguments[0]))


def test_opening_touches_no_file(package: bytes) -> None:
    global _watch  # noqa: PLW0603  (an audit hook cannot be taken off)
    load(package)
    sys.addaudithook(_audit)
    _watch = True
    try:
        model = load(package)
    finally:
        _watch = False
    assert _watching == [("mmap.__new__", -1)] * len(model.files)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_plaintext_is_private_and_in_no_core_dump(package: bytes) -> None:
    view = load(package).files["model.safetensors"]
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if ":" not in first:
            start, stop = (int(side, 16) for side in first.split("-"))
            inside = start <= address < stop
            if inside:
                assert rest[0][3] == "p"
        elif inside and first == "VmFlags:":
            assert "dd" in rest
            return
    pytest.fail("the memory was not found")
