"""Epochs while jobs are in flight: rotation loses none, revocation opens none, what is drained is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ephemeralml.attestation.key_release.epochs import TURNS, epoch_at
from ephemeralml.attestation.key_release.stored import (
    claim_name,
    epochs_named,
    key_name,
    keys_prefix,
    retired_name,
)
from ephemeralml.producer.lab import POOL, laboratory_policy
from ephemeralml.wire.errors import DeliveryError, Error, SealingError
from ephemeralml.wire.keys import PublicKey
from ephemeralml.wire.sealing import Sealed, Sealer

from .pool import RULES, START, Pool, Ring, local_pool

EPOCH = epoch_at(START, RULES.epoch_seconds)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    pool = local_pool(tmp_path)
    yield pool
    pool.kms.close()


def job(key: PublicKey) -> Sealed:
    return Sealer(key, "job", monotonic=lambda: 0.0).seal(b"header", b"a job")


def opens(ring: Ring, sealed: Sealed) -> bool:
    try:
        return ring.opener.open(b"header", sealed) == b"a job"
    except SealingError:
        return False


def epochs_stored(pool: Pool) -> list[int]:
    return epochs_named(pool.blobs.list(keys_prefix(POOL)))


def test_rotation_loses_no_job(pool: Pool) -> None:
    """Jobs sealed to either key open at a worker that was told, one that was not, and a newcomer."""
    told, late = pool.ring(), pool.ring()
    old = told.open()
    late.open()
    in_flight = job(old.private_key.public_key)
    pool.order("rotate", EPOCH)
    told.poll()
    new = told.current
    assert new is not None
    assert (new.epoch, told.epochs) == (EPOCH + 1, [EPOCH, EPOCH + 1])
    assert told.moved.is_set()
    to_new = job(new.private_key.public_key)
    assert not opens(late, to_new)
    assert late.refusal(new.key_id, late.time) == ""  # a job names a key that this worker has not seen
    assert opens(late, to_new)
    assert late.current is not None
    assert late.current.key_id == new.key_id
    newcomer = pool.ring()
    assert newcomer.open().key_id == new.key_id
    assert newcomer.refusal(old.key_id, newcomer.time) == ""
    assert all(opens(ring, sealed) for ring in (told, late, newcomer) for sealed in (in_flight, to_new))


def test_a_new_period_does_the_same_without_an_order(pool: Pool) -> None:
    ring = pool.ring()
    old = ring.open()
    pool.now += RULES.epoch_seconds
    ring.poll()
    assert ring.epochs == [EPOCH, EPOCH + TURNS]
    assert opens(ring, job(old.private_key.public_key))


def test_an_ended_key_lives_until_its_last_job_has_expired_and_is_then_gone(pool: Pool) -> None:
    ring, other = pool.ring(), pool.ring()
    old = ring.open()
    in_flight = job(old.private_key.public_key)
    pool.order("rotate", EPOCH)
    ring.poll()
    other.open()
    other.poll()
    pool.now = START + RULES.announcement_seconds + RULES.job_seconds + 300
    ring.poll()
    assert opens(ring, in_flight)
    pool.now += 1
    ring.poll()
    assert not opens(ring, in_flight)
    assert ring.refusal(old.key_id, ring.time) == "KEY_RETIRED"
    assert ring.epochs == [EPOCH + 1]
    assert epochs_stored(pool) == [EPOCH + 1]
    assert not pool.blobs.exists(claim_name(POOL, EPOCH))
    other.poll()  # whoever comes second finds nothing left to do
    assert other.epochs == [EPOCH + 1]


def test_a_longer_job_that_was_opened_keeps_its_key(pool: Pool) -> None:
    ring = pool.ring()
    old = ring.open()
    pool.order("rotate", EPOCH)
    ring.poll()
    deadline = START + 10_000
    ring.opened(old.key_id, deadline)
    pool.now = deadline
    ring.poll()
    assert EPOCH in ring.epochs
    pool.now += 1
    ring.poll()
    assert EPOCH not in ring.epochs


def test_no_deadline_keeps_a_key_for_longer_than_any_queue_holds_a_message(pool: Pool) -> None:
    ring = pool.ring()
    ring.opened(ring.open().key_id, 1 << 39)
    pool.now += 14 * 86_400 + 1
    ring.poll()
    assert ring.epochs == [epoch_at(pool.now, RULES.epoch_seconds)]


@pytest.mark.parametrize("mark_left", [True, False])
def test_a_drained_blob_put_back_is_not_adopted(pool: Pool, mark_left: bool) -> None:
    ring = pool.ring()
    ring.open()
    blob = pool.blobs.get(key_name(POOL, EPOCH))
    pool.order("rotate", EPOCH)
    ring.poll()
    pool.now = START + RULES.announcement_seconds + RULES.job_seconds + 301
    ring.poll()
    pool.blobs.put(key_name(POOL, EPOCH), blob)
    if not mark_left:  # a host can take the mark away too: then the clock refuses, when the period is over
        pool.blobs.delete(retired_name(POOL, EPOCH))
        pool.now = RULES.needed_until(EPOCH) + 1
    ring.poll()
    newcomer = pool.ring()
    newcomer.open()
    newcomer.poll()
    assert EPOCH not in ring.epochs + newcomer.epochs
    assert EPOCH not in epochs_stored(pool)


def test_a_worker_that_dropped_a_key_never_takes_it_back(pool: Pool) -> None:
    ring = pool.ring()
    key = ring.open()
    blob = pool.blobs.get(key_name(POOL, EPOCH))
    pool.order("revoke", EPOCH, key.key_id)
    ring.poll()
    pool.blobs.delete(retired_name(POOL, EPOCH))
    pool.blobs.put(key_name(POOL, EPOCH), blob)
    ring.poll()
    assert ring.epochs == [EPOCH + 1]
    assert not pool.blobs.exists(key_name(POOL, EPOCH))


def test_revocation_drops_the_key_everywhere_at_once(pool: Pool) -> None:
    ring = pool.ring()
    old = ring.open()
    in_flight = job(old.private_key.public_key)
    assert opens(ring, in_flight)  # its content key is in the opener's cache now
    pool.order("revoke", EPOCH, old.key_id)
    ring.poll()
    assert not opens(ring, in_flight)
    assert ring.refusal(old.key_id, ring.time) == "KEY_REVOKED"
    assert ring.current is not None
    assert (ring.current.epoch, epochs_stored(pool)) == (EPOCH + 1, [EPOCH + 1])
    newcomer = pool.ring()
    newcomer.open()
    assert newcomer.refusal(old.key_id, newcomer.time) == "KEY_REVOKED"


def test_revocation_needs_no_kms(pool: Pool) -> None:
    ring = pool.ring()
    old = ring.open()
    pool.order("revoke", EPOCH, old.key_id)
    pool.down = True
    with pytest.raises(Error, match="KMS_UNAVAILABLE"):
        ring.poll()
    assert (ring.epochs, ring.current, ring.behind) == ([], None, True)
    assert ring.refusal(old.key_id, ring.time) == "KEY_REVOKED"
    assert epochs_stored(pool) == []
    pool.down = False
    ring.poll()
    assert (ring.epochs, ring.behind) == ([EPOCH + 1], False)


def test_an_ended_epoch_can_be_revoked_after_the_one_that_followed_it(pool: Pool) -> None:
    ring = pool.ring()
    old = ring.open()
    pool.order("rotate", EPOCH)
    ring.poll()
    pool.order("revoke", EPOCH, old.key_id)
    ring.poll()
    assert ring.epochs == [EPOCH + 1]
    pool.order("rotate", EPOCH + 1)
    assert pool.orders()[0].revoked == ((EPOCH, old.key_id),)  # later orders repeat it
    ring.poll()
    assert ring.epochs == [EPOCH + 1, EPOCH + 2]


def test_what_a_worker_has_seen_it_does_not_forget_when_the_host_hides_it(pool: Pool) -> None:
    ring = pool.ring()
    old = ring.open()
    pool.order("revoke", EPOCH, old.key_id)
    ring.poll()
    for name in list(pool.blobs.list(f"orders/{POOL}/")):
        pool.blobs.delete(name)
    ring.poll()
    assert ring.epochs == [EPOCH + 1]
    assert ring.refusal(old.key_id, ring.time) == "KEY_REVOKED"


def test_a_worker_from_whom_orders_are_hidden_follows_the_others_key(pool: Pool) -> None:
    """The next key itself tells of the order: a TEE made it, and nobody else could have."""
    told, blind = pool.ring(), pool.ring()
    blind.open()
    told.open()
    pool.order("rotate", EPOCH)
    told.poll()
    for name in list(pool.blobs.list(f"orders/{POOL}/")):
        pool.blobs.delete(name)
    blind.poll()
    assert blind.current is not None
    assert blind.current.epoch == EPOCH + 1


def test_a_newer_key_that_the_host_planted_moves_nobody(pool: Pool) -> None:
    ring = pool.ring()
    current = ring.open()
    pool.plant(EPOCH + 1, b"wrapped", pool.stored(EPOCH).birth)
    ring.poll()
    assert ring.current == current
    assert any("BIRTH_WRONG_BLOB" in line for line in ring.said)
    said = len(ring.said)
    ring.poll()
    assert len(ring.said) == said


def test_a_planted_old_key_is_not_adopted(pool: Pool) -> None:
    ring = pool.ring()
    ring.open()
    pool.plant(EPOCH - 1, b"wrapped", pool.stored(EPOCH).birth)
    ring.poll()
    assert ring.epochs == [EPOCH]


def test_a_host_that_plants_the_next_epochs_blob_only_stops_the_pool(pool: Pool) -> None:
    """It gets a pool that fades out, and never one under its own key."""
    ring = pool.ring()
    ring.open()
    pool.now += RULES.epoch_seconds
    pool.plant(EPOCH + TURNS, b"wrapped", pool.stored(EPOCH).birth)
    with pytest.raises(Error, match="BIRTH_WRONG_BLOB"):
        ring.poll()
    assert ring.behind  # Boot.renew announces nothing now
    assert ring.epochs == [EPOCH]


def test_only_so_many_keys_are_held(pool: Pool) -> None:
    for turn in range(20):
        pool.keys().obtain(EPOCH + turn)
    pool.order("rotate", EPOCH + 19)
    ring = pool.ring()
    ring.open()
    ring.poll()
    assert ring.epochs == list(range(EPOCH + 5, EPOCH + 21))


def test_junk_costs_one_look_and_a_repeated_key_none(pool: Pool) -> None:
    ring = pool.ring()
    ring.open()
    ids = [os.urandom(32) for _ in range(100)]
    taken = ring.time
    assert [ring.refusal(key_id, taken) for key_id in ids] == [""] * 100
    assert ring.slept <= 1
    before = pool.calls.total()
    assert [ring.refusal(key_id, ring.time) for key_id in ids] == [""] * 100
    assert ring.slept <= 1
    assert pool.calls.total() == before


def test_a_key_that_cannot_be_had_now_is_not_refused_for_good(pool: Pool) -> None:
    other, ring = pool.ring(), pool.ring()
    other.open()
    ring.open()
    pool.order("rotate", EPOCH)
    other.poll()
    assert other.current is not None
    pool.down = True
    with pytest.raises(DeliveryError, match="FLEET_KEY_NOT_NOW") as caught:
        ring.refusal(other.current.key_id, ring.time)
    assert caught.value.retriable
    pool.down = False
    assert ring.refusal(other.current.key_id, ring.time) == ""
    assert other.current.key_id in ring._held


def test_ended_keys_that_cannot_be_had_now_are_had_later(pool: Pool) -> None:
    first = pool.ring()
    first.open()
    pool.order("rotate", EPOCH)
    first.poll()
    ring = pool.ring()
    ring.open()
    pool.down = True
    with pytest.raises(DeliveryError, match="FLEET_KEY_NOT_NOW"):
        ring.poll()
    assert not ring.behind
    pool.down = False
    ring.poll()
    assert ring.epochs == [EPOCH, EPOCH + 1]


def test_marks_of_deleted_keys_do_not_pile_up(pool: Pool) -> None:
    ring = pool.ring()
    ring.open()
    for _ in range(5):
        pool.now += 8 * 86_400
        ring.poll()
    assert len(list(pool.blobs.list(f"fleet-retired/{POOL}/"))) == 1
    assert epochs_stored(pool) == ring.epochs


def test_births_of_held_keys_can_be_judged_again(pool: Pool) -> None:
    ring = pool.ring()
    ring.open()
    (stored,) = ring.births
    assert pool.check(stored.birth, stored.wrapped).epoch == EPOCH
    pool.policy = laboratory_policy(pool.root.fingerprint, "another-image", "m", bytes(32))
    with pytest.raises(Error, match="MEASUREMENT_MISMATCH"):
        pool.check(stored.birth, stored.wrapped)


def test_rules_must_be_the_pools(pool: Pool) -> None:
    """A worker with other epochs' lengths finds nothing of the others', and makes its own mistake alone."""
    ring = pool.ring()
    ring.open()
    pool.rules = replace(RULES, epoch_seconds=7200)
    assert pool.ring().open().epoch != EPOCH


def test_keys_end_by_the_clock_also_while_the_store_is_away(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = pool.ring()
    old = ring.open()
    pool.order("rotate", EPOCH)
    ring.poll()

    def away(_: str) -> Iterator[str]:
        raise DeliveryError("BLOB_STORE_UNAVAILABLE")

    monkeypatch.setattr(pool.blobs, "list", away)
    pool.now += RULES.announcement_seconds + RULES.job_seconds + 301
    with pytest.raises(DeliveryError):
        ring.poll()
    assert old.key_id not in ring._held
    assert not opens(ring, job(old.private_key.public_key))


def test_a_refused_epoch_is_looked_at_again_later(pool: Pool) -> None:
    """A new policy may want it, or the genuine one be put back: its jobs must not be refused for ever."""
    ring, other = pool.ring(), pool.ring()
    ring.open()
    genuine = other.open()
    pool.order("rotate", EPOCH)
    other.poll()
    newer = other.current
    assert newer is not None
    pool.plant(EPOCH + 1, b"wrapped", genuine.birth)
    with pytest.raises(Error, match="BIRTH_WRONG_BLOB"):
        ring.poll()
    pool.order("rotate", EPOCH + 1)
    ring.poll()
    pool.plant(EPOCH + 1, newer.stored.wrapped, newer.birth)
    ring.poll()
    assert not opens(ring, job(newer.private_key.public_key))
    ring.time += 601
    ring.poll()
    assert opens(ring, job(newer.private_key.public_key))
    assert sum("refused" in line for line in ring.said) == 1
