"""Ranges arrive in order, go on where they broke, and never become another object or more memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ephemeralml.wire.errors import ConfigurationError, DeliveryError, Error, ModelError
from ephemeralml.workers.models.fetch import FetchRules, RangedReader
from ephemeralml.workers.models.stores.base import ObjectVersion, denied, swapped, unavailable

from .forge import load

DATA = os.urandom(10_000)
RULES = FetchRules(range_bytes=700, window=3, attempts=3, deadline_s=20, wait_s=0.001)


class Scripted:
    """A store whose every range goes through ``script(start, stop)``."""

    def __init__(
        self, script: Callable[[int, int], Iterator[bytes]] | None = None, data: bytes = DATA
    ) -> None:
        self.data, self.asked, self.lock = data, list[tuple[int, int]](), threading.Lock()
        self.script = script or (lambda start, stop: iter([data[start:stop]]))

    def stat(self) -> ObjectVersion:
        return ObjectVersion(len(self.data), "1")

    def read_range(self, version: ObjectVersion, start: int, stop: int) -> Iterator[bytes]:
        with self.lock:
            self.asked.append((start, stop))
        return self.script(start, stop)

    def publish(self, package: Path, sha256: str) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        pass


def read(store: Scripted, rules: FetchRules = RULES) -> bytes:
    out, buffer = bytearray(), memoryview(bytearray(333))
    with RangedReader(store, rules) as reader:
        while count := reader.readinto(buffer):
            out += buffer[:count]
    return bytes(out)


def test_bytes_come_in_order() -> None:
    assert read(Scripted()) == DATA
    assert read(Scripted(data=b"")) == b""


def test_package_opens_through_ranges(package: bytes) -> None:
    store = Scripted(data=package)
    seen: list[tuple[int, int]] = []
    with RangedReader(store, RULES, progress=lambda done, size: seen.append((done, size))) as reader:
        load(reader)  # type: ignore[arg-type]
    assert seen[-1] == (len(package), len(package))


def test_broken_range_goes_on_at_the_byte_where_it_broke() -> None:
    broken: list[int] = []

    def script(start: int, stop: int) -> Iterator[bytes]:
        if not broken and start == 1400:
            broken.append(start)
            yield DATA[start : start + 123]
            raise unavailable()
        yield DATA[start:stop]

    store = Scripted(script)
    assert read(store) == DATA
    assert (1523, 2100) in store.asked


def short(start: int, stop: int) -> Iterator[bytes]:
    return iter([b""])


def long(start: int, stop: int) -> Iterator[bytes]:
    return iter([DATA[start:stop], b"more"])


def raising(error: Error) -> Callable[[int, int], Iterator[bytes]]:
    def script(start: int, stop: int) -> Iterator[bytes]:
        yield b""
        raise error

    return script


@pytest.mark.parametrize(
    ("script", "kind", "code", "asked"),
    [
        (short, DeliveryError, "MODEL_STORE_UNAVAILABLE", 3),
        (long, DeliveryError, "MODEL_STORE_BAD_ANSWER", 1),
        (raising(unavailable()), DeliveryError, "MODEL_STORE_UNAVAILABLE", 3),
        (raising(swapped()), ModelError, "MODEL_SWAPPED", 1),
        (raising(denied()), ConfigurationError, "MODEL_STORE_DENIED", 1),
    ],
)
def test_refusals(
    script: Callable[[int, int], Iterator[bytes]], kind: type[Error], code: str, asked: int
) -> None:
    store = Scripted(script)
    with pytest.raises(kind, match=code):
        read(store, FetchRules(700, 1, 3, 20, 0.001))
    assert len(store.asked) == asked


def test_store_that_never_answers_ends_at_the_deadline() -> None:
    held = threading.Event()

    def script(start: int, stop: int) -> Iterator[bytes]:
        held.wait(20)
        yield DATA[start:stop]

    with pytest.raises(DeliveryError, match="MODEL_STORE_DEADLINE"):
        read(Scripted(script), FetchRules(700, 2, 3, 0.05, 0.001))
    held.set()


def test_body_that_drips_ends_at_the_deadline() -> None:
    now = [0.0]

    def script(start: int, stop: int) -> Iterator[bytes]:
        for place in range(start, stop):
            now[0] += 1
            yield DATA[place : place + 1]

    with (
        RangedReader(Scripted(script), FetchRules(700, 1, 3, 100, 0.001), clock=lambda: now[0]) as reader,
        pytest.raises(DeliveryError, match="MODEL_STORE_DEADLINE"),
    ):
        reader.readinto(memoryview(bytearray(10)))


def test_no_more_than_the_window_is_asked_ahead() -> None:
    store = Scripted()
    with RangedReader(store, RULES) as reader:
        reader.readinto(memoryview(bytearray(1)))
        assert all(start < 3 * 700 for start, _ in store.asked)
