"""Fleet keys: one per epoch, adopted by everyone, and no key that a host planted."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pycddl
import pytest

from ephemeralml.attestation.key_release.epochs import TURNS, EpochRules, epoch_at, next_epoch
from ephemeralml.attestation.key_release.local_kms import development_policies
from ephemeralml.attestation.key_release.stored import StoredKey, epochs_named, key_name
from ephemeralml.attestation.simulated import DevelopmentRoot, development_pcrs
from ephemeralml.broker_config.blobs import BlobStore, LocalBlobStore, RedisBlobStore
from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer.lab import IMAGE, POOL
from ephemeralml.wire.announcement import MAX_BIRTH_BYTES
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import Error, KeyReleaseError, MalformedError
from ephemeralml.wire.private_keys import PrivateKey

from .pool import RULES, START, Pool, host_key, local_pool

EPOCH = epoch_at(START, RULES.epoch_seconds)
CROWD = 200


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    pool = local_pool(tmp_path)
    yield pool
    pool.kms.close()


def code(pool: Pool, epoch: int = EPOCH) -> str:
    """Return with which code a worker refuses an epoch's key."""
    with pytest.raises(Error) as caught:
        pool.keys().obtain(epoch)
    return caught.value.code


def test_second_worker_adopts_the_first_ones_key(pool: Pool) -> None:
    made, adopted = pool.keys().obtain(EPOCH), pool.keys().obtain(EPOCH)
    assert made.private_key.public_key == adopted.private_key.public_key
    assert made.stored == adopted.stored
    assert made.created_at == adopted.created_at == START
    assert pool.keys().adopt(EPOCH - TURNS) is None


@contextmanager
def stores(kind: str, folder: Path) -> Iterator[Callable[[], BlobStore]]:
    """Yield what gives each worker its own way to one store."""
    if kind == "local":
        yield lambda: LocalBlobStore(folder / "blobs")
        return
    with broker_running(broker_settings(state_dir=folder)) as settings:
        yield lambda: RedisBlobStore(settings)


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_two_hundred_workers_that_start_at_once_end_with_one_key(kind: str, tmp_path: Path) -> None:
    with stores(kind, tmp_path) as store:
        pool = Pool(tmp_path, store())
        found: list[bytes] = []
        barrier = threading.Barrier(CROWD)

        def start() -> None:
            keys = replace(pool.keys("xwing"), blobs=store())
            barrier.wait()
            found.append(keys.obtain(EPOCH).private_key.public_key.raw)

        threads = [threading.Thread(target=start) for _ in range(CROWD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.kms.close()
        stored = pool.check(pool.stored(EPOCH).birth, pool.stored(EPOCH).wrapped)
    assert len(found) == CROWD
    assert set(found) == {stored.public_key.raw}
    # Whoever says first that it makes the key spares the KMS the others' keys; none of those was used.
    assert pool.calls["Decrypt"] == CROWD - pool.calls["GenerateDataKey"] + (
        pool.calls["GenerateDataKey"] - 1
    )


def test_a_worker_that_died_while_making_the_key_holds_up_nobody(pool: Pool) -> None:
    assert pool.keys()._claim(EPOCH)  # and then it is gone
    waited: list[float] = []
    clock = iter(range(100))
    keys = replace(pool.keys(), monotonic=lambda: float(next(clock)), sleep=waited.append)
    assert keys.obtain(EPOCH).epoch == EPOCH
    assert waited


def test_losers_of_the_put_use_the_winners_key(pool: Pool) -> None:
    """Both made a key, because neither saw the other's claim."""
    first, second = pool.keys(), pool.keys()
    winner = first._make(EPOCH)
    assert winner is not None
    assert second._make(EPOCH) is None
    assert pool.keys().obtain(EPOCH).key_id == winner.key_id


# ------------------------------------------------------------------------------ what a host may plant


def lax(tmp_path: Path) -> Pool:
    """A pool whose key policy is wrong: anyone may encrypt, and make data keys without attestation."""
    policies = development_policies(image_sha384=[development_pcrs(IMAGE)[0].hex()])
    actions = ["kms:Encrypt", "kms:GenerateDataKey", "kms:Decrypt"]
    policies["alias/fleet"]["Statement"].append({"Effect": "Allow", "Principal": "*", "Action": actions})
    return local_pool(tmp_path, policies=policies)


def context(epoch: int, pool: str = POOL) -> dict[str, str]:
    return {"purpose": "fleet", "pool": pool, "epoch": str(epoch)}


def wrapped_by_host(pool: Pool, how: str, epoch: int = EPOCH) -> tuple[bytes, PrivateKey]:
    """Return a blob that the KMS will give to every worker, and the key that the host knows."""
    seed, key = host_key()
    given = {"KeyId": "alias/fleet", "EncryptionContext": context(epoch)}
    if how == "Encrypt":
        answer = pool.call(how, {**given, "Plaintext": base64.b64encode(seed).decode()})
    else:
        answer = pool.call(how, {**given, "NumberOfBytes": 32})
        key = PrivateKey.from_seed("x25519", base64.b64decode(answer["Plaintext"]))
    return base64.b64decode(answer["CiphertextBlob"]), key


Plant = Callable[[Pool, bytes, PrivateKey], bytes]


def own_image(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    return pool.birth(EPOCH, key.public_key, wrapped, attester=pool.attester("the-hosts-own"))


def own_root(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    root = DevelopmentRoot.create(now=START - 86_400)
    return pool.birth(EPOCH, key.public_key, wrapped, attester=pool.attester(root=root))


def genuine_of_another_blob(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    return pool.keys().obtain(EPOCH).birth


def genuine_of_another_pool(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    return pool.birth(EPOCH, key.public_key, wrapped, pool="other")


def genuine_of_another_epoch(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    return pool.birth(EPOCH + 1, key.public_key, wrapped)


def none_at_all(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    return b""


def genuine_evidence_of_an_announcement(pool: Pool, wrapped: bytes, key: PrivateKey) -> bytes:
    """The host signs itself, and shows evidence that a real worker made for something else."""
    forged = pool.birth(EPOCH, key.public_key, wrapped, attester=pool.attester("the-hosts-own"))
    genuine = pool.keys().obtain(EPOCH).birth
    match decode(forged), decode(genuine):
        case [bytes() as signed, _], [_, list() as evidence]:
            return encode([signed, evidence])
    raise AssertionError


PLANTS: list[tuple[Plant, str]] = [
    (own_image, "MEASUREMENT_MISMATCH"),
    (own_root, "UNKNOWN_ROOT"),
    (genuine_of_another_blob, "BIRTH_WRONG_BLOB"),
    (genuine_of_another_pool, "BIRTH_WRONG_POOL"),
    (genuine_of_another_epoch, "FLEET_KEY_EPOCH"),
    (genuine_evidence_of_an_announcement, "KEY_BINDING_FAILED"),
    (none_at_all, "CBOR_TRUNCATED"),
]


@pytest.mark.parametrize("how", ["Encrypt", "GenerateDataKey"])
@pytest.mark.parametrize(("plant", "expected"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_key_that_the_host_planted_is_refused_by_every_worker(
    tmp_path: Path, how: str, plant: Plant, expected: str
) -> None:
    """The host knows the seed, and the key policy is so wrong that the KMS would give it to all workers."""
    pool = lax(tmp_path)
    wrapped, key = wrapped_by_host(pool, how)
    seed = pool.release().decrypt(wrapped, context(EPOCH))
    assert PrivateKey.from_seed("x25519", seed).public_key == key.public_key
    pool.plant(EPOCH, wrapped, plant(pool, wrapped, key))
    assert [code(pool) for _ in range(3)] == [expected] * 3
    ring = pool.ring()
    with pytest.raises(Error, match=expected):
        ring.open()
    assert ring.epochs == []
    pool.kms.close()


def test_the_planters_tool_makes_adoptable_keys_too(tmp_path: Path) -> None:
    """The tests above fail by what they say, and not because nothing planted is ever adopted."""
    pool = lax(tmp_path)
    wrapped, key = wrapped_by_host(pool, "Encrypt")
    pool.plant(EPOCH, wrapped, pool.birth(EPOCH, key.public_key, wrapped))
    assert pool.keys().obtain(EPOCH).private_key.public_key == key.public_key
    pool.kms.close()


def test_births_swapped_between_blobs_are_refused(pool: Pool) -> None:
    first, second = pool.keys().obtain(EPOCH).stored, pool.keys().obtain(EPOCH + 1).stored
    pool.plant(EPOCH, first.wrapped, second.birth)
    pool.plant(EPOCH + 1, second.wrapped, first.birth)
    assert (code(pool, EPOCH), code(pool, EPOCH + 1)) == ("BIRTH_WRONG_BLOB", "BIRTH_WRONG_BLOB")


def test_old_epochs_blob_put_back_is_refused(pool: Pool) -> None:
    old = pool.keys().obtain(EPOCH).stored
    pool.now += RULES.epoch_seconds
    pool.plant(EPOCH + TURNS, old.wrapped, old.birth)
    assert code(pool, EPOCH + TURNS) == "FLEET_KEY_EPOCH"


def test_certificate_that_lies_about_the_public_key_is_refused(pool: Pool) -> None:
    """Even a wanted worker cannot make others use a key that is not the released one."""
    data_key = pool.release().generate_data_key(context(EPOCH))
    pool.plant(
        EPOCH, data_key.wrapped, pool.birth(EPOCH, PrivateKey.generate("x25519").public_key, data_key.wrapped)
    )
    assert code(pool) == "FLEET_KEY_MISMATCH"


def test_a_key_of_another_context_is_not_unwrapped(pool: Pool) -> None:
    data_key = pool.release().generate_data_key(context(EPOCH + 1))
    key = PrivateKey.from_seed("x25519", data_key.plaintext)
    pool.plant(EPOCH, data_key.wrapped, pool.birth(EPOCH, key.public_key, data_key.wrapped))
    assert code(pool) == "KMS_DENIED"


def test_a_key_that_was_made_at_another_time_than_its_epochs_is_refused(pool: Pool) -> None:
    data_key = pool.release().generate_data_key(context(EPOCH + 2 * TURNS))
    key = PrivateKey.from_seed("x25519", data_key.plaintext)
    ahead = EPOCH + 2 * TURNS
    pool.plant(ahead, data_key.wrapped, pool.birth(ahead, key.public_key, data_key.wrapped))
    assert code(pool, ahead) == "FLEET_KEY_TIME"


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_half_written_blob_is_refused(pool: Pool, cut: int) -> None:
    whole = pool.keys().obtain(EPOCH).stored.encode()
    pool.blobs.put(key_name(POOL, EPOCH), whole[:cut])
    with pytest.raises(MalformedError):
        pool.keys().obtain(EPOCH)


@pytest.mark.parametrize(
    "junk",
    [b"\x80", b"\x83\x01A\x00A\x00", b"\x83\xf5A\x00A\x00", b"\x83\xf9<\x00A\x00A\x00", os.urandom(64)],
)
def test_junk_in_the_store_is_refused_by_our_errors(pool: Pool, junk: bytes) -> None:
    pool.blobs.put(key_name(POOL, EPOCH), junk)
    with pytest.raises(Error):
        pool.keys().obtain(EPOCH)


def test_a_worker_that_others_would_refuse_makes_no_key(pool: Pool) -> None:
    unwanted = pool.attester("other")
    keys = replace(
        pool.keys(),
        certify=lambda epoch, public, wrapped: pool.birth(epoch, public, wrapped, attester=unwanted),
    )
    with pytest.raises(Error, match="MEASUREMENT_MISMATCH"):
        keys.obtain(EPOCH)
    assert not pool.blobs.exists(key_name(POOL, EPOCH))


def test_a_blob_that_vanishes_while_it_is_adopted_ends_in_our_error(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(KeyReleaseError, match="FLEET_KEY_GONE"):
        replace(pool.keys(), blobs=Vanishing(tmp_path)).obtain(EPOCH)


class Vanishing(LocalBlobStore):
    """A store where every key's name is taken and nothing is found."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return not key.startswith("fleet/")

    def exists(self, key: str) -> bool:
        return False


# --------------------------------------------------------------------------------------- the formats


def test_grammar_of_the_specification(pool: Pool) -> None:
    grammar = (Path(__file__).parents[2] / "spec" / "fleet-key.cddl").read_text()
    stored = pool.keys().obtain(EPOCH).stored
    match decode(stored.birth):
        case [bytes() as envelope, [str(), bytes(), [], []]]:
            signed = decode_sign1(envelope)
        case _:
            pytest.fail("the birth certificate is not of its form")
    order = decode_sign1(pool.order("revoke", EPOCH, bytes(32)))
    rules = {
        "stored-fleet-key": stored.encode(),
        "birth-certificate": stored.birth,
        "birth-protected": signed.protected_bytes,
        "birth-payload": signed.payload,
        "order-protected": order.protected_bytes,
        "order-payload": order.payload,
    }
    for rule, data in rules.items():
        schema = pycddl.Schema(f"root = {rule}\n{grammar}")
        schema.validate_cbor(data)
        with pytest.raises(pycddl.ValidationError):
            schema.validate_cbor(encode({99: 1}))


def test_epochs_of_the_clock() -> None:
    assert [epoch_at(now, 100) // TURNS for now in (0, 99.9, 100, 250)] == [1, 1, 2, 3]
    assert epoch_at(0, 100) % TURNS == 0
    assert next_epoch(TURNS) == TURNS + 1
    assert next_epoch(2 * TURNS - 1) is None


def test_rules_of_epochs() -> None:
    rules = EpochRules(1000, 100, 50)
    first = epoch_at(5000, 1000)
    assert rules.current(5000, 0) == first
    assert rules.current(5000, first) == first + 1
    assert rules.current(6000, first) == first + TURNS
    assert rules.born_in_its_period(first, 5500)
    assert rules.born_in_its_period(first, 4700)
    assert not rules.born_in_its_period(first, 4699)
    assert rules.born_in_its_period(first, 6299)
    assert not rules.born_in_its_period(first, 6300)
    assert rules.needed_until(first) == 6000 + 150 + 300
    assert rules.needed_until(first, 5200) == 5200 + 150 + 300
    assert rules.needed_until(first, 9000) == rules.needed_until(first)
    assert rules.newest(5699) == first + TURNS - 1
    assert rules.newest(5700) == first + 2 * TURNS - 1


def test_names_in_the_store_are_read_strictly() -> None:
    names = ["7", "10", "07", "-1", "x", "9" * 40, "0", "1e3", str((1 << 53) - 1), str(1 << 53)]
    assert epochs_named(f"fleet/p/{name}" for name in names) == [(1 << 53) - 1, 10, 7]


def test_stored_form_round_trip() -> None:
    assert StoredKey.decode(StoredKey(b"w", b"b").encode()) == StoredKey(b"w", b"b")


def test_a_birth_with_all_its_collateral_can_be_read_back() -> None:
    """What a worker stores every other one must be able to read."""
    stored = StoredKey(os.urandom(6144), os.urandom(MAX_BIRTH_BYTES))
    assert StoredKey.decode(stored.encode()) == stored
