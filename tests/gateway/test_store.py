"""The store: tables as migrated, claims by one at a time, replies once and in an order without gaps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from ephemeralml.producer.gateway.api.app import tidy
from ephemeralml.producer.gateway.api.context import Gateway
from ephemeralml.producer.gateway.settings import GatewaySettings
from ephemeralml.producer.gateway.store import (
    Store,
    batches,
    check_migrated,
    events,
    migrate,
    packs,
    replies,
    tenants,
)
from ephemeralml.producer.gateway.store.models import jobs, metadata
from ephemeralml.producer.gateway.store.models import packs as pack_table
from ephemeralml.wire.errors import ConfigurationError, DeliveryError
from ephemeralml.wire.pack import decode_replies

from ..servers.postgres import Postgres
from .conftest import Site
from .uploads import NOW, answer, number_of


def test_migrations_make_the_tables_of_the_code(store: Store) -> None:
    """Both ways of saying what the tables are agree, on both databases."""
    check_migrated(store)
    assert not migrate(store)
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        known = set(metadata.tables)
        found = [change for change in compare_metadata(context, metadata) if _of(change, known)]
    assert found == []


def _of(change: object, known: set[str]) -> bool:
    """Leave out tables that other packages add with migrations of their own."""
    if isinstance(change, tuple) and change[0] == "remove_table":
        return change[1].name in known
    if isinstance(change, tuple) and change[0] == "remove_index":
        return change[1].table.name in known
    return True


def test_store_of_another_version_is_refused(lite: Site) -> None:
    with lite.store.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'later'")
    for check in (check_migrated, migrate):
        with pytest.raises(ConfigurationError, match="STORE_NEWER"):
            check(lite.store)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_store_is_migrated_once_by_many(server: Postgres, tmp_path: Path, kind: str) -> None:
    url = server.database() if kind == "postgresql" else f"sqlite:///{tmp_path / 'new.db'}"
    done: list[bool] = []
    stores = [Store(url) for _ in range(3)]
    together([lambda store=store: done.append(migrate(store)) for store in stores])  # type: ignore[misc]
    assert sorted(done) == [False, False, True]
    for store in stores:
        store.close()


def together(calls: list[Callable[[], object]]) -> None:
    """Run calls in threads at once; the first error is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        try:
            barrier.wait(30)
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://h/d", "x", "", "sqlite:////a?mode=ro"]
)
def test_address_is_of_a_store(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BAD_STORE_URL"):
        Store(url)


def test_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    with pytest.raises(DeliveryError, match="STORE_UNAVAILABLE"), store.transaction():
        pass
    assert str(tmp_path) not in repr(store)


def test_failed_transaction_leaves_nothing(store: Store) -> None:
    def half() -> None:
        with store.transaction() as connection:
            tenants.ensure(connection, "half", NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with store.reading() as connection:
        assert tenants.keys(connection) == []
        assert connection.exec_driver_sql("SELECT count(*) FROM tenants").scalar() == 0


def test_packs_are_claimed_by_one_at_a_time(site: Site) -> None:
    batch = site.batch(40)
    site.upload(batch)
    claimed: list[int] = []

    def claim() -> None:
        for _ in range(10):
            with site.store.transaction() as connection:
                claimed.extend(pack.id for pack in packs.claim(connection, NOW, 30, limit=3))

    together([claim, claim, claim])
    assert len(claimed) == len(set(claimed)) == 20


def test_pack_comes_again_until_it_was_submitted(site: Site) -> None:
    batch = site.batch(4)
    site.upload(batch)
    with site.store.transaction() as connection:
        first, second = packs.claim(connection, NOW, 30)
        assert (first.batch_id, first.number, second.number, first.attempts) == (batch.batch_id, 0, 1, 1)
        packs.release(connection, [first.id])
        assert [pack.id for pack in packs.claim(connection, NOW + 1, 30)] == [first.id]
        again = packs.claim(connection, NOW + 40, 30)
        assert [(pack.id, pack.attempts) for pack in again] == [(first.id, 3), (second.id, 2)]
        packs.submitted(connection, [first.id, second.id], NOW + 41)
        assert packs.claim(connection, NOW + 999, 30) == []
        found = batches.get(connection, first.batch)
        assert found is not None
        assert (found.state, found.packs_submitted, found.times["in_progress"]) == (
            "in_progress",
            2,
            NOW + 41,
        )
    answer(site.store, batch, [0, 1, 2])
    with site.store.transaction() as connection:
        assert packs.claim_unanswered(connection, NOW + 50, 30, before=NOW + 41) == []
        silent = packs.claim_unanswered(connection, NOW + 50, 30, before=NOW + 42)
        assert [pack.number for pack in silent] == [1]
        packs.submitted(connection, [silent[0].id], NOW + 51)
        found = batches.get(connection, first.batch)
        assert found is not None
        assert found.packs_submitted == 2
        # An expired batch is not submitted any more.
        assert packs.claim_unanswered(connection, found.expires_at + 1, 30, before=NOW + 99) == []


def test_claim_is_bounded_in_bytes(lite: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    lite.upload(lite.batch(6, ciphertext_bytes=1000))
    monkeypatch.setattr(packs, "MAX_CLAIM_BYTES", 3000)
    with lite.store.transaction() as connection:
        assert [len(packs.claim(connection, NOW, 30)) for _ in range(4)] == [1, 1, 1, 0]


def test_first_reply_stays(site: Site) -> None:
    batch, other = site.batch(5), site.batch(5)
    site.upload(batch)
    assert answer(site.store, batch, [3, 1, 3]) == [3, 1]
    assert answer(site.store, batch, [1, 2], "failed") == [2]
    # A reply under the index of one job with the id of another is nobody's.
    batch.headers[0], batch.headers[4] = batch.headers[4], batch.headers[0]
    assert answer(site.store, batch, [0, 4]) == []
    batch.headers[0], batch.headers[4] = batch.headers[4], batch.headers[0]
    other.batch_id = batch.batch_id
    assert answer(site.store, other, [0]) == []
    number = number_of(site.store, batch)
    with site.store.reading() as connection:
        found = batches.get(connection, number)
        assert found is not None
        assert (found.ended, found.counts["succeeded"], found.counts["failed"]) == (3, 2, 1)
        first, second = replies.after(connection, number, 0, max_bytes=1 << 20)
        assert (first.first, first.indexes, second.first, second.indexes) == (0, (3, 1), 2, (2,))
        assert [reply.job_id for reply in decode_replies(first.data)[1]] == [
            batch.headers[3].job_id,
            batch.headers[1].job_id,
        ]
        assert [end.index for end in replies.ends(connection, number, [2, 1, 3, 0])] == [3, 1, 2]
        assert [replies.place(connection, number, index) for index in (3, 1, 2, 0)] == [0, 1, 2, None]
        assert len(replies.after(connection, number, 0, max_bytes=1)) == 1
        assert replies.after(connection, number, 3, max_bytes=1) == []


def test_replies_at_once_leave_no_gap(site: Site) -> None:
    """Two relays record the same and different replies at once; each job ends once, in one order."""
    batch = site.batch(24, pack_jobs=4)
    site.upload(batch)
    new: list[int] = []

    def relay(order: list[int]) -> None:
        for index in order:
            new.extend(answer(site.store, batch, [index, (index + 1) % 24]))

    together([lambda: relay(list(range(24))), lambda: relay(list(range(23, -1, -1)))])
    assert sorted(new) == list(range(24))
    number = number_of(site.store, batch)
    with site.store.reading() as connection:
        seen = 0
        for pack in replies.after(connection, number, 0, max_bytes=1 << 20):
            assert pack.first == seen
            assert [end.index for end in replies.ends(connection, number, pack.indexes)] == list(pack.indexes)
            seen += len(pack.indexes)
        assert seen == 24
        ordinals = connection.execute(select(jobs.c.ordinal)).scalars().all()
        assert sorted(ordinals) == list(range(24))
        # Answered packs keep no bytes; what is stored is what is counted.
        assert connection.execute(select(pack_table.c.data)).scalars().all() == [None] * 6
        found = batches.get(connection, number)
        assert found is not None
        sizes = connection.exec_driver_sql("SELECT sum(size) FROM replies").scalar_one()
        assert found.bytes_stored == sizes


def test_batch_that_has_ended_takes_no_replies(site: Site) -> None:
    batch = site.batch(2)
    site.upload(batch)
    answer(site.store, batch, [0])
    with site.store.transaction() as connection:
        assert batches.move(
            connection, number_of(site.store, batch), "expired", NOW + 5, event="batch.expired"
        )
    assert answer(site.store, batch, [1]) == []
    with site.store.reading() as connection:
        # Partial results survive expiry.
        assert len(replies.after(connection, number_of(site.store, batch), 0, max_bytes=1)) == 1


def test_events_are_done_once(site: Site) -> None:
    with site.store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", NOW).id
        for kind in ("a", "b", "a"):
            events.add(connection, tenant, kind, NOW, data={"n": 1})
    taken: list[int] = []

    def claim() -> None:
        for _ in range(4):
            with site.store.transaction() as connection:
                taken.extend(event.id for event in events.claim(connection, NOW, 30, limit=1))

    together([claim, claim])
    assert len(taken) == len(set(taken)) == 3
    with site.store.transaction() as connection:
        assert events.claim(connection, NOW + 1, 30) == []
        events.done(connection, taken[:1], NOW + 2)
        again = events.claim(connection, NOW + 31, 30, kinds=["a"])
        assert {event.type for event in again} <= {"a"}
        assert all(event.attempts == 2 and event.data == {"n": 1} for event in again)
        assert events.forget_done(connection, NOW + 3) == 1


def test_statement_is_kept_once(site: Site) -> None:
    batch = site.batch(1)
    site.upload(batch)
    number = number_of(site.store, batch)
    with site.store.transaction() as connection:
        assert batches.statement_of(connection, number) is None
        for statement in (b"first", b"second"):
            batches.keep_statement(connection, number, statement, NOW)
        assert batches.statement_of(connection, number) == b"first"


def test_old_batches_are_forgotten(site: Site) -> None:
    batch, kept = site.batch(1), site.batch(1)
    site.upload(batch)
    site.upload(kept)
    with site.store.transaction() as connection:
        assert batches.move(
            connection, number_of(site.store, batch), "completed", NOW, event="batch.completed"
        )
    gateway = Gateway(site.store, site.blobs, GatewaySettings(retention_s=3600), site.clock)
    site.clock.now = NOW + 3600
    assert tidy(gateway) == (0, 0)
    site.clock.now = NOW + 3601
    assert tidy(gateway) == (0, 1)
    names = [found["id"] for found in site.client.get("/v1/batches", headers=site.auth()).json()["data"]]
    assert names == [kept.name]


def test_quota_holds_against_uploads_at_once(site: Site) -> None:
    """Each of them would fit alone; the check at acceptance is under the tenant's lock."""
    with site.store.transaction() as connection:
        tenants.set_limits(connection, tenants.ensure(connection, "acme", NOW).id, max_jobs=10)
    statuses: list[int] = []
    bodies = [site.batch(6).cbor() for _ in range(3)]
    headers = {"Content-Type": "application/cbor-seq"} | site.auth()

    def post(body: bytes) -> None:
        statuses.append(site.client.post("/v1/batches", content=body, headers=headers).status_code)

    together([lambda body=body: post(body) for body in bodies])  # type: ignore[misc]
    assert sorted(statuses) == [201, 429, 429]
