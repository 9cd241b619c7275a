"""Every store of seen receipts keeps the same promise: each ``cti`` is new once, whoever asks."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.policy import ReceiptPolicy
from ephemeralml.receipts.replay import MemoryReplayStore, ReplayStore, SqliteReplayStore
from ephemeralml.receipts.replay_redis import RedisReplayStore
from ephemeralml.receipts.verify import verify_receipt
from ephemeralml.wire.errors import EndorsementsError

from .samples import CLAIMS, KEY, NOW, PUBLIC

Opener = Callable[[], ReplayStore]


@pytest.fixture(scope="module")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Redis of its own that listens on a unix socket only."""
    path = shutil.which("redis-server")
    if path is None:
        pytest.fail("redis-server is needed (see CONTRIBUTING)")
    socket = tmp_path_factory.mktemp("redis") / "s"
    command = [path, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(socket.parent)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(socket)
        yield socket
    finally:
        server.terminate()
        server.wait(10)


def wait_for(socket: Path) -> None:
    for _ in range(200):
        with redis.Redis(unix_socket_path=str(socket)) as client:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
    pytest.fail("the Redis did not start")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """What opens the store once more: another verifier, where the kind allows several."""
    if request.param == "memory":
        one = MemoryReplayStore()
        yield lambda: one
        return
    if request.param == "sqlite":
        files: list[SqliteReplayStore] = []

        def open_file() -> ReplayStore:
            files.append(SqliteReplayStore(tmp_path / "seen.db"))
            return files[-1]

        yield open_file
        for file in files:
            file.close()
        return
    socket = request.getfixturevalue("redis_socket")
    clients: list[redis.Redis] = []

    def connect() -> ReplayStore:
        clients.append(redis.Redis(unix_socket_path=str(socket)))
        return RedisReplayStore(clients[-1], prefix=f"{tmp_path.name}:")

    yield connect
    for client in clients:
        client.close()


def test_each_is_new_once(opener: Opener) -> None:
    store, other = opener(), opener()
    assert store.add(b"\x01" * 16, now=NOW, expires=NOW + 10)
    assert not store.add(b"\x01" * 16, now=NOW, expires=NOW + 10)
    assert not other.add(b"\x01" * 16, now=NOW, expires=None)
    assert other.add(b"\x02" * 16, now=NOW, expires=None)


@pytest.mark.parametrize("expires", [NOW - 1, NOW, NOW + (1 << 40), (1 << 64) - 1, None])
def test_any_end_is_taken(opener: Opener, expires: int | None) -> None:
    store = opener()
    assert store.add(b"\x03" * 16, now=NOW, expires=expires)
    assert not store.add(b"\x03" * 16, now=NOW, expires=expires)


def test_one_of_many_at_once_wins(opener: Opener) -> None:
    stores = [opener() for _ in range(4)]
    names = [index.to_bytes(16, "big") for index in range(1, 41)]
    asked = [(store, name) for name in names for store in stores]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda pair: pair[0].add(pair[1], now=NOW, expires=NOW + 60), asked))
    assert sum(won) == len(names)
    for start in range(0, len(won), len(stores)):
        assert sum(won[start : start + len(stores)]) == 1


def test_a_receipt_is_accepted_once(opener: Opener) -> None:
    receipt = issue(CLAIMS, KEY)
    policy = ReceiptPolicy(max_age_s=3600, replay_store=opener())
    assert verify_receipt(receipt, PUBLIC, policy, NOW).passed
    again = verify_receipt(receipt, PUBLIC, policy, NOW)
    assert again.codes == ("REPLAY_CTI",)
    assert again.failed_layer == 4


def test_redis_keeps_a_key_as_long_as_its_receipt_is_fresh(redis_socket: Path) -> None:
    with redis.Redis(unix_socket_path=str(redis_socket)) as client:
        store = RedisReplayStore(client, prefix="life:", margin_s=7)
        store.add(b"\x01" * 16, now=NOW, expires=NOW + 100)
        store.add(b"\x02" * 16, now=NOW, expires=None)
        assert 105 <= int(client.ttl("life:" + "01" * 16)) <= 108
        assert client.ttl("life:" + "02" * 16) == -1


def test_a_store_that_is_gone_judges_nothing(tmp_path: Path) -> None:
    with redis.Redis(unix_socket_path=str(tmp_path / "none")) as client:
        store = RedisReplayStore(client)
        with pytest.raises(EndorsementsError, match="REPLAY_STORE_UNAVAILABLE"):
            store.add(b"\x01" * 16, now=NOW, expires=None)
        found = verify_receipt(issue(CLAIMS, KEY), PUBLIC, ReceiptPolicy(replay_store=store), NOW)
    assert found.codes == ("REPLAY_STORE_UNAVAILABLE",)
    assert found.level == "none"
