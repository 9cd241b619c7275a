"""Which keys an opener opens with: added, removed, forgotten, also while others open."""

from __future__ import annotations

import threading

import pytest

from ephemeralml.wire.errors import SealingError
from ephemeralml.wire.keys import SuiteName
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealed, Sealer


def seal(key: PrivateKey) -> Sealed:
    return Sealer(key.public_key, "job", monotonic=lambda: 0.0).seal(b"header", b"text")


@pytest.mark.parametrize("suite", ["xwing", "x25519"])
def test_a_key_opens_from_when_it_is_added_until_it_is_removed(suite: SuiteName) -> None:
    key, other = PrivateKey.generate(suite), PrivateKey.generate(suite)
    sealed, to_other = seal(key), seal(other)
    opener = Opener([other], "job")
    with pytest.raises(SealingError):
        opener.open(b"header", sealed)
    opener.add(key)
    assert opener.open(b"header", sealed) == opener.open(b"header", to_other) == b"text"
    opener.remove(key.public_key.key_id)  # what it has unwrapped is in the cache by now
    for message in (sealed, seal(key)):
        with pytest.raises(SealingError):
            opener.open(b"header", message)
    assert opener.open(b"header", to_other) == b"text"
    opener.add(key)
    assert opener.open(b"header", sealed) == b"text"


def test_removing_a_key_takes_all_that_it_unwrapped_and_nothing_else() -> None:
    key, other = PrivateKey.generate("x25519"), PrivateKey.generate("x25519")
    opener = Opener([key, other], "job")
    for one in (key, other, key, other, key):
        opener.open(b"header", seal(one))
    assert len(opener._cache) == 5
    opener.remove(key.public_key.key_id)
    assert len(opener._cache) == 2


def test_removing_what_is_not_there_is_harmless() -> None:
    key = PrivateKey.generate("x25519")
    opener = Opener([key], "job")
    opener.remove(bytes(32))
    opener.remove(key.public_key.key_id)
    opener.remove(key.public_key.key_id)


def test_forget_takes_everything() -> None:
    key = PrivateKey.generate("x25519")
    opener = Opener([key], "job")
    sealed = seal(key)
    opener.open(b"header", sealed)
    opener.forget()
    with pytest.raises(SealingError):
        opener.open(b"header", sealed)


def test_a_key_that_is_removed_while_it_unwraps_leaves_nothing_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = PrivateKey.generate("x25519")
    opener = Opener([key], "job")
    unwrap = opener._unwrap

    def slow(block: bytes) -> tuple[bytes, bytes]:
        found = unwrap(block)
        opener.remove(key.public_key.key_id)
        return found

    monkeypatch.setattr(opener, "_unwrap", slow)
    with pytest.raises(SealingError):
        opener.open(b"header", seal(key))
    assert not opener._cache


def test_keys_come_and_go_while_others_open() -> None:
    kept, passing = PrivateKey.generate("x25519"), PrivateKey.generate("x25519")
    opener = Opener([kept], "job")
    messages = [seal(kept) for _ in range(50)]
    answers: list[bytes] = []

    def work() -> None:
        answers.extend(opener.open(b"header", message) for message in messages)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        opener.add(passing)
        opener.remove(passing.public_key.key_id)
    for thread in threads:
        thread.join()
    assert answers == [b"text"] * 200
