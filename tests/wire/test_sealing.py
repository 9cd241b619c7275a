"""Sealing and opening: both suites, every way to be wrong, rekeying, caches, threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.wire import opening, sealing
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import SealingError
from ephemeralml.wire.keys import SUITES, SuiteName
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.padding import pad
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import (
    REKEY_MESSAGES,
    REKEY_SECONDS,
    Purpose,
    Sealed,
    Sealer,
    content_aad,
    recipient_info,
    to_cose_encrypt,
)

from .strategies import mutations, private_key

HEADER = encode({1: 1, 2: bytes(16), 3: "minilm"})
TEXT = b"SECRET plaintext 0123456789"
both_suites = pytest.mark.parametrize("suite", SUITES)
both_purposes = pytest.mark.parametrize("purpose", ["job", "result"])


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sealer(suite: SuiteName, purpose: Purpose = "job", number: int = 1) -> Sealer:
    return Sealer(private_key(suite, number).public_key, purpose, monotonic=Clock())


def opener(suite: SuiteName, purpose: Purpose = "job", number: int = 1) -> Opener:
    return Opener([private_key(suite, number)], purpose)


def cannot(call: Callable[[], object]) -> None:
    """Assert the one error with the one text, and nothing chained that could tell causes apart."""
    with pytest.raises(SealingError) as caught:
        call()
    error = caught.value
    assert type(error) is SealingError
    assert str(error) == "SEALING_FAILED: could not be sealed or opened"
    assert error.code == "SEALING_FAILED"
    assert not error.retriable
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


@both_suites
@both_purposes
def test_round_trip(suite: SuiteName, purpose: Purpose) -> None:
    sealing_to, opening_by = sealer(suite, purpose), opener(suite, purpose)
    for size in (0, 1, 27, 1000, 100_000):
        content = os.urandom(size)
        sealed = sealing_to.seal(HEADER, content)
        assert opening_by.open(HEADER, sealed) == content
        assert len(sealed.ciphertext) == len(pad(content)) + 16
        assert content[:16] not in sealed.ciphertext or size < 16


@given(header=st.binary(max_size=300), content=st.binary(max_size=2000))
@settings(max_examples=60)
def test_any_header_and_content(header: bytes, content: bytes) -> None:
    for suite in ("xwing", "x25519"):
        name: SuiteName = "xwing" if suite == "xwing" else "x25519"
        assert opener(name).open(header, sealer(name).seal(header, content)) == content


@both_suites
def test_the_wrong_header_purpose_or_key(suite: SuiteName) -> None:
    sealed = sealer(suite).seal(HEADER, TEXT)
    right = opener(suite)
    assert right.open(HEADER, sealed) == TEXT
    for header in (b"", HEADER + b"\0", HEADER[:-1], HEADER.replace(b"minilm", b"minilX")):
        cannot(lambda header=header: right.open(header, sealed))  # type: ignore[misc]
    cannot(lambda: opener(suite, "result").open(HEADER, sealed))
    cannot(lambda: opener(suite, number=2).open(HEADER, sealed))
    cannot(lambda: Opener([], "job").open(HEADER, sealed))
    for other in SUITES:
        if other != suite:
            cannot(lambda other=other: opener(other).open(HEADER, sealed))  # type: ignore[misc]


@both_suites
def test_parts_of_two_messages_are_not_exchanged(suite: SuiteName) -> None:
    first, second = sealer(suite).seal(HEADER, TEXT), sealer(suite).seal(HEADER, b"another")
    other_key = sealer(suite, number=2).seal(HEADER, TEXT)
    by = Opener([private_key(suite, 1), private_key(suite, 2)], "job")
    assert by.open(HEADER, first) == by.open(HEADER, other_key) == TEXT
    cannot(lambda: by.open(HEADER, replace(first, recipient=second.recipient)))
    cannot(lambda: by.open(HEADER, replace(first, recipient=other_key.recipient)))
    cannot(lambda: by.open(HEADER, replace(first, iv=second.iv)))
    cannot(lambda: by.open(HEADER, replace(first, ciphertext=second.ciphertext)))


@both_suites
def test_a_recipient_renamed_to_another_key_does_not_open(suite: SuiteName) -> None:
    """The key id is in HPKE's info: a block cannot be relabelled, not even to a key of the same opener."""
    sealed = sealer(suite, number=1).seal(HEADER, TEXT)
    _, unprotected, wrapped = _parts(sealed.recipient)
    for name in SUITES.values():
        for number in (1, 2):
            key_id = private_key(suite, number).public_key.key_id
            renamed = encode({1: name.algorithm, 4: key_id})
            if (name.name, number) == (suite, 1):
                continue
            block = encode([renamed, unprotected, wrapped])
            by = Opener([private_key(suite, 1), private_key(suite, 2)], "job")
            cannot(lambda by=by, block=block: by.open(HEADER, replace(sealed, recipient=block)))  # type: ignore[misc]


def _parts(block: bytes) -> list[object]:
    value = decode(block)
    assert isinstance(value, list)
    return value


@both_suites
def test_every_mutation_is_one_error(suite: SuiteName) -> None:
    sealed = sealer(suite).seal(HEADER, TEXT)
    by = opener(suite)
    for part in ("recipient", "iv", "ciphertext"):
        original: bytes = getattr(sealed, part)
        for changed in mutations(original, 150):
            if changed == original:
                continue
            kept = replace(sealed, **{part: changed})
            cannot(lambda kept=kept: by.open(HEADER, kept))  # type: ignore[misc]


@both_suites
def test_every_byte_of_ciphertext_and_iv_counts(suite: SuiteName) -> None:
    sealed = sealer(suite).seal(HEADER, TEXT)
    by = opener(suite)
    for part in ("iv", "ciphertext"):
        original: bytes = getattr(sealed, part)
        for place in range(len(original)):
            changed = original[:place] + bytes([original[place] ^ 0x80]) + original[place + 1 :]
            kept = replace(sealed, **{part: changed})
            cannot(lambda kept=kept: by.open(HEADER, kept))  # type: ignore[misc]


@pytest.mark.parametrize(
    "block",
    [
        *(b"", b"\x80", b"\xa0", encode([b"", {}, b""]), encode([b"", {-4: b""}, b""]), b"\x83\x40\xa0\xf6"),
        encode([encode({1: 50}), {-4: bytes(32)}, bytes(48)]),
        encode([encode({1: 50, 4: [b"list"]}), {-4: bytes(32)}, bytes(48)]),
        encode([encode({1: 50, 4: private_key("x25519").public_key.key_id}), {-4: bytes(32)}, bytes(48)]),
        encode([encode({1: 50, 4: private_key("x25519").public_key.key_id}), {-4: bytes(32)}, b""]),
        encode([encode({1: 50, 4: private_key("x25519").public_key.key_id}), {-4: b"", 5: b""}, b""]),
        encode([b"\x01", {-4: bytes(32)}, bytes(48)]),
        encode([bytes(5000), {-4: bytes(32)}, bytes(48)]),
    ],
)
def test_blocks_that_are_none(block: bytes) -> None:
    cannot(lambda: opener("x25519").open(HEADER, Sealed(block, bytes(12), bytes(64))))


def test_short_ivs_and_ciphertexts() -> None:
    sealed = sealer("x25519").seal(HEADER, TEXT)
    for size in (0, 8, 11, 13, 16, 200):
        cannot(lambda size=size: opener("x25519").open(HEADER, replace(sealed, iv=bytes(size))))  # type: ignore[misc]
    for size in (0, 15, 16):
        changed = replace(sealed, ciphertext=bytes(size))
        cannot(lambda changed=changed: opener("x25519").open(HEADER, changed))  # type: ignore[misc]


@both_suites
def test_a_content_key_of_another_length_is_refused(suite: SuiteName) -> None:
    """A sender who wraps 16 bytes would make it AES-128: the announced algorithm must hold."""
    public, entry = private_key(suite).public_key, SUITES[suite]
    protected = encode({1: entry.algorithm, 4: public.key_id})
    info = recipient_info(entry, protected, "job")
    for size in (0, 16, 24, 31, 33):
        key = os.urandom(size)
        wrapped = entry.hpke.encrypt(key, public.hpke_key, info=info)
        block = encode(
            [protected, {-4: wrapped[: entry.encapsulated_bytes]}, wrapped[entry.encapsulated_bytes :]]
        )
        ciphertext = (
            AESGCM(key).encrypt(bytes(12), pad(TEXT), content_aad(HEADER)) if size in (16, 24) else TEXT * 4
        )
        sealed = Sealed(block, bytes(12), ciphertext)
        cannot(lambda sealed=sealed: opener(suite).open(HEADER, sealed))  # type: ignore[misc]


def test_plaintext_without_padding_is_refused() -> None:
    public, entry = private_key("x25519").public_key, SUITES["x25519"]
    protected = encode({1: entry.algorithm, 4: public.key_id})
    wrapped = entry.hpke.encrypt(bytes(32), public.hpke_key, info=recipient_info(entry, protected, "job"))
    block = encode([protected, {-4: wrapped[:32]}, wrapped[32:]])
    right = AESGCM(bytes(32)).encrypt(bytes(12), pad(TEXT), content_aad(HEADER))
    assert opener("x25519").open(HEADER, Sealed(block, bytes(12), right)) == TEXT
    wrong = AESGCM(bytes(32)).encrypt(bytes(12), TEXT, content_aad(HEADER))
    cannot(lambda: opener("x25519").open(HEADER, Sealed(block, bytes(12), wrong)))


def test_the_cose_encrypt_holds_the_message() -> None:
    sealed = sealer("xwing").seal(HEADER, TEXT)
    value = decode(to_cose_encrypt(sealed), tags=(96,))
    assert getattr(value, "tag", None) == 96
    assert getattr(value, "value", None) == [
        encode({1: 3}),
        {5: sealed.iv},
        sealed.ciphertext,
        [decode(sealed.recipient)],
    ]


# ---------------------------------------------------------------- sealer


def test_one_recipient_block_until_the_rekey() -> None:
    one = sealer("x25519")
    assert len({one.seal(HEADER, TEXT).recipient for _ in range(100)}) == 1
    assert sealer("x25519").seal(HEADER, TEXT).recipient != one.seal(HEADER, TEXT).recipient


def test_rekey_after_so_many_messages() -> None:
    assert REKEY_MESSAGES == 2**20
    one, by = sealer("x25519"), opener("x25519")
    first = one.seal(HEADER, TEXT)
    assert one._left == REKEY_MESSAGES - 1
    one._left = 1
    last = one.seal(HEADER, TEXT)
    following = one.seal(HEADER, TEXT)
    assert first.recipient == last.recipient != following.recipient
    assert one._left == REKEY_MESSAGES - 1
    assert all(by.open(HEADER, sealed) == TEXT for sealed in (first, last, following))


def test_rekey_after_one_hour() -> None:
    assert REKEY_SECONDS == 3600
    clock = Clock()
    one = Sealer(private_key("x25519").public_key, "job", monotonic=clock)
    first = one.seal(HEADER, TEXT)
    clock.now += 3599.9
    assert one.seal(HEADER, TEXT).recipient == first.recipient
    clock.now += 0.1
    second = one.seal(HEADER, TEXT)
    assert second.recipient != first.recipient
    clock.now += 3599.9
    assert one.seal(HEADER, TEXT).recipient == second.recipient
    assert opener("x25519").open(HEADER, second) == TEXT


def test_no_iv_repeats_in_a_hundred_thousand() -> None:
    one = sealer("x25519")
    assert len({one.seal(b"", b"").iv for _ in range(100_000)}) == 100_000


def test_a_forked_process_shares_no_iv() -> None:
    """Random IVs, so that the copy of a sealer in a child does not repeat the parent's."""
    one = sealer("x25519")
    state = dict(one.__dict__)
    copy = Sealer.__new__(Sealer)
    copy.__dict__.update(state)
    first, second = ([s.seal(HEADER, TEXT) for _ in range(100)] for s in (one, copy))
    assert {sealed.recipient for sealed in first} == {sealed.recipient for sealed in second}
    assert not {sealed.iv for sealed in first} & {sealed.iv for sealed in second}


def test_too_much_content_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ephemeralml.wire.padding.MAX_CONTENT_BYTES", 10)
    cannot(lambda: sealer("x25519").seal(HEADER, bytes(11)))


# ---------------------------------------------------------------- opener's cache


class Counting(Opener):
    """An opener that counts its decapsulations."""

    unwrapped = 0

    def _unwrap(self, block: bytes) -> tuple[bytes, bytes]:
        self.unwrapped += 1
        return super()._unwrap(block)


def test_one_decapsulation_per_recipient_block() -> None:
    one, by = sealer("xwing"), Counting([private_key("xwing")], "job")
    for number in range(50):
        assert by.open(HEADER, one.seal(HEADER, bytes(number))) == bytes(number)
    assert by.unwrapped == 1


def test_the_least_recently_used_content_key_leaves_first() -> None:
    by = Counting([private_key("x25519")], "job", cache_size=3)
    a, b, c, d = (sealer("x25519").seal(HEADER, TEXT) for _ in range(4))
    for sealed in (a, b, c, a, d):
        by.open(HEADER, sealed)
    assert (by.unwrapped, len(by._cache)) == (4, 3)
    for sealed in (a, c, d):
        by.open(HEADER, sealed)
    assert by.unwrapped == 4
    by.open(HEADER, b)
    assert (by.unwrapped, len(by._cache)) == (5, 3)


def test_the_cache_is_bounded_by_default() -> None:
    assert opening.DEFAULT_CACHE_SIZE == 1024
    by = Opener([private_key("x25519")], "job", cache_size=8)
    for _ in range(40):
        by.open(HEADER, sealer("x25519").seal(HEADER, TEXT))
    assert len(by._cache) == 8


def test_what_does_not_unwrap_is_not_kept() -> None:
    by = opener("x25519")
    sealed = sealer("x25519", number=2).seal(HEADER, TEXT)
    cannot(lambda: by.open(HEADER, sealed))
    assert not by._cache


def test_forgotten_keys_open_nothing() -> None:
    by, sealed = opener("x25519"), sealer("x25519").seal(HEADER, TEXT)
    assert by.open(HEADER, sealed) == TEXT
    by.forget()
    cannot(lambda: by.open(HEADER, sealed))


def test_several_keys_open_each_its_own() -> None:
    pairs: list[tuple[SuiteName, int]] = [("xwing", 1), ("xwing", 2), ("x25519", 1), ("x25519", 2)]
    by = Opener([private_key(*pair) for pair in pairs], "job")
    for pair in pairs:
        assert by.open(HEADER, sealer(pair[0], number=pair[1]).seal(HEADER, TEXT)) == TEXT


# ---------------------------------------------------------------- threads


def test_sealing_and_opening_from_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "REKEY_MESSAGES", 50)
    one, by = sealer("x25519"), Opener([private_key("x25519")], "job", cache_size=4)
    barrier = threading.Barrier(8)
    recipients: set[bytes] = set()

    def work(number: int) -> int:
        barrier.wait()
        for place in range(100):
            content = b"%d-%d" % (number, place)
            sealed = one.seal(HEADER, content)
            recipients.add(sealed.recipient)
            assert by.open(HEADER, sealed) == content
        return number

    one._left = 50
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8))) == list(range(8))
    assert len(recipients) == 8 * 100 // 50
    assert len(by._cache) <= 4


def test_generated_keys_seal_and_open() -> None:
    for suite in SUITES:
        name: SuiteName = "xwing" if suite == "xwing" else "x25519"
        key = PrivateKey.generate(name)
        sealed = Sealer(key.public_key, "result", monotonic=Clock()).seal(HEADER, TEXT)
        assert Opener([key], "result").open(HEADER, sealed) == TEXT
