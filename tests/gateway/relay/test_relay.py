"""The relay's parts on both stores: what is stored, refused, asked for, ended."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import pytest

from ephemeralml.attestation.policy import TrustPolicy
from ephemeralml.attestation.policy_source import PolicyInForce
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.broker_config.blobs import LocalBlobStore, get_content
from ephemeralml.broker_config.blobs.collect import collect
from ephemeralml.broker_config.carriers import Depth
from ephemeralml.broker_config.replies import Delivery
from ephemeralml.cli import main
from ephemeralml.producer.gateway.relay.collect import Collector
from ephemeralml.producer.gateway.relay.dispatch import Dispatcher
from ephemeralml.producer.gateway.relay.drive import Driver, cancel_marker
from ephemeralml.producer.gateway.relay.seal import Sealing
from ephemeralml.producer.gateway.relay.service import Rest
from ephemeralml.producer.gateway.relay.worker_keys import WorkerKeys
from ephemeralml.producer.gateway.store import Store, batches, events, tenants
from ephemeralml.producer.lab import laboratory_policy
from ephemeralml.receipts.seal_request import SealAnswer, answer_key, decode_seal_request
from ephemeralml.wire.errors import AppraisalError, DeliveryError
from ephemeralml.wire.pack import PackReference, decode_jobs, decode_message
from ephemeralml.workers.cancel import Cancellations, marker

from ..uploads import NOW, POOL, SealedBatch
from .hand import IMAGE, ROOT, Hand, message, packs_of, put_batch, state_of


@dataclass
class Queue:
    """Takes messages; fails where told to."""

    sent: list[bytes] = field(default_factory=list)
    fail_after: int | None = None

    def submit(self, pool: str, data: bytes) -> None:
        """Keep a message."""
        assert pool == POOL
        if self.fail_after is not None and len(self.sent) >= self.fail_after:
            raise DeliveryError("BROKER_UNREACHABLE")
        self.sent.append(data)


@dataclass
class Works:
    """All parts of a relay, by hand."""

    store: Store
    blobs: LocalBlobStore
    hand: Hand
    tenant: int
    now: float = NOW
    queue: Queue = field(default_factory=Queue)
    waiting: Depth = field(default_factory=lambda: Depth(0, 0))

    def __post_init__(self) -> None:
        keys = WorkerKeys(self.blobs, now=self.clock)
        self.collector = Collector(self.store, self.blobs, keys, self.clock)
        self.dispatcher = self.another()
        sealing = Sealing(self.store, self.blobs, self.queue, keys, 900, 120)
        self.driver = Driver(self.store, self.blobs, self.queue, sealing, 1 << 20, 60, 30, self.clock)

    def clock(self) -> float:
        """Unix seconds."""
        return self.now

    def another(self) -> Dispatcher:
        """Make a dispatcher."""
        return Dispatcher(
            self.store, self.blobs, self.queue, lambda _: self.waiting, 1 << 20, 180, 30, self.clock
        )

    def take(self, *bodies: bytes) -> int:
        """Let the collector take messages; all must be acknowledged."""
        acknowledged: list[int] = []
        new = self.collector.take([Delivery(body, lambda: acknowledged.append(1)) for body in bodies])
        assert len(acknowledged) == len(bodies)
        return new

    def batch(self, jobs: int = 6, **more: object) -> tuple[SealedBatch, int]:
        """Accept a batch."""
        made = SealedBatch("reply." + "0" * 32, jobs, **more)  # type: ignore[arg-type]
        return made, put_batch(self.store, self.tenant, made)

    def drive(self) -> None:
        """Let the driver do what is due."""
        while self.driver.step():
            pass

    def events(self) -> list[str]:
        """Return the types of events that wait in the outbox."""
        with self.store.transaction() as connection:
            return [event.type for event in events.claim(connection, self.now, 0)]


@pytest.fixture
def works(store: Store, tmp_path: Path) -> Works:
    """A relay's parts on each kind of store."""
    with store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", NOW).id
    blobs = LocalBlobStore(tmp_path / "blobs")
    return Works(store, blobs, Hand(blobs, now=NOW), tenant)


def test_large_packs_are_kept_as_long_as_their_batch_needs_them(works: Works) -> None:
    works.dispatcher.inline_limit = 10
    batch, number = works.batch()
    assert works.dispatcher.step() == 3
    references = [decode_message(sent) for sent in works.queue.sent]
    assert all(isinstance(found, PackReference) for found in references)
    digests = [found.digest.hex() for found in references if isinstance(found, PackReference)]
    end = state_of(works.store, number).expires_at
    assert end == NOW + batch.window_s
    assert collect(works.blobs, end + 3_600).removed == 0
    assert [get_content(works.blobs, digest) for digest in digests] == packs_of(batch)
    assert collect(works.blobs, end + 86_400 + 2 * 3_600).removed == 3
    with pytest.raises(DeliveryError, match="BLOB_MISSING"):
        get_content(works.blobs, digests[0])


def test_the_last_call_puts_packs_back_that_were_collected(works: Works) -> None:
    works.driver.inline_limit = 10
    batch, number = works.batch()
    works.dispatcher.step()
    works.now = state_of(works.store, number).expires_at + 5 * 86_400  # a relay that was away for days
    works.queue.sent.clear()
    works.drive()
    assert len(works.queue.sent) == 3
    collect(works.blobs, works.now + 3_600)
    for sent, pack in zip(works.queue.sent, packs_of(batch), strict=True):
        found = decode_message(sent)
        assert isinstance(found, PackReference)
        assert get_content(works.blobs, found.digest.hex()) == pack


def test_replies_are_stored_once(works: Works) -> None:
    batch, number = works.batch()
    answers = [works.hand.answer(pack) for pack in packs_of(batch)]
    assert works.take(answers[0], answers[0], answers[1]) == 4
    assert works.take(*answers) == 2
    assert state_of(works.store, number).counts["succeeded"] == 6
    assert works.take(works.hand.answer(packs_of(batch)[0], "failed")) == 0
    assert works.collector.refused == 0


def test_what_no_worker_signed_is_refused(works: Works, tmp_path: Path) -> None:
    batch, number = works.batch()
    (pack, other, _) = packs_of(batch)
    stranger = Hand(LocalBlobStore(tmp_path / "elsewhere"), now=NOW)
    assert works.take(stranger.answer(pack)) == 0  # nobody has announced its evidence
    stranger.evidence_hash = works.hand.evidence_hash
    assert works.take(stranger.answer(pack)) == 0  # signed with another key
    first, second = (works.hand.reply(job) for job in decode_jobs(pack)[1])
    assert works.take(message([replace(first, outcome=second.outcome)])) == 0
    assert works.take(message([replace(first, header=second.header)])) == 0
    assert works.take(message([replace(first, header=None, sealed=None)])) == 0
    (job, _) = decode_jobs(pack)[1]
    altered = replace(job, sealed=replace(job.sealed, ciphertext=bytes(40)))
    assert works.take(message([works.hand.reply(altered, "rejected")])) == 0  # a sound answer to another job
    assert works.collector.refused == 8
    assert state_of(works.store, number).ended == 0
    assert works.take(works.hand.answer(other)) == 2


@dataclass
class Changing:
    """A source of policies, as a folder is whose policy is replaced, withdrawn, or ends."""

    policy: TrustPolicy | None

    def current(self, now: float) -> TrustPolicy:
        """Return the policy in force."""
        if self.policy is None:
            raise AppraisalError("POLICY_EXPIRED", "it has ended")
        return self.policy

    def in_force(self, now: float) -> PolicyInForce:
        """See :meth:`current`."""
        return PolicyInForce(self.current(now), "1", signed=False)


def test_with_a_policy_only_wanted_workers_count(works: Works) -> None:
    works.now = time.time()
    works.hand = Hand(works.blobs, now=works.now)
    wanted = laboratory_policy(ROOT.fingerprint, IMAGE, "m", bytes(32))
    source = Changing(laboratory_policy(ROOT.fingerprint, "another image", "m", bytes(32)))
    keys = WorkerKeys(works.blobs, source, endorsements_for(wanted), works.clock)
    works.collector = Collector(works.store, works.blobs, keys, works.clock)
    batch, number = works.batch(now=int(works.now))
    first, second, _ = (works.hand.answer(pack) for pack in packs_of(batch))
    assert works.take(first) == 0  # signed by a worker whose image nobody wants
    assert works.collector.refused == 2
    source.policy = wanted
    works.now += 11  # what was refused is looked at again
    assert works.take(first) == 2
    # Nothing can be judged without a policy in force: replies wait in their queue.
    source.policy = None
    works.now += 301
    acknowledged: list[int] = []
    with pytest.raises(DeliveryError, match="NO_POLICY_IN_FORCE") as caught:
        works.collector.take([Delivery(second, lambda: acknowledged.append(1))])
    assert caught.value.retriable
    assert acknowledged == []
    source.policy = wanted
    assert works.take(second) == 2
    assert state_of(works.store, number).counts["succeeded"] == 4


@pytest.mark.parametrize(
    ("text", "more", "code", "status"),
    [
        (None, (), "POLICY_UNREADABLE", 78),
        ("{", (), "BAD_POLICY", 65),
        ('{"version": "1"}', ("--policy-root", "00" * 32), "POLICY_NOT_SIGNED", 78),
        ('{"version": "1"}', ("--policy-root", "0"), "BAD_POLICY_ROOT", 78),
    ],
)
def test_a_relay_does_not_start_with_a_policy_that_is_none(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    more: tuple[str, ...],
    code: str,
    status: int,
) -> None:
    path = tmp_path / "policy.json"
    if text is not None:
        path.write_text(text)
    words = ["ephemeralml", "relay", "--policy", str(path), "--state-dir", str(tmp_path / "s"), *more]
    with patch.object(sys, "argv", words), pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err.split(":")[0]) == (status, f"error {code}")
    assert not (tmp_path / "s").exists()


def test_rests_grow_while_nothing_happens_and_end_with_the_first_work() -> None:
    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    waits: list[float | None] = []
    rest = Rest(Stopping(), 0.2)
    for worked in (0, 0, 0, 0, 3, 0):
        rest.after(worked)
    assert waits == [0.2, 0.4, 0.8, 1.0, 0.2]
    waits.clear()
    for _ in range(2):
        rest = Rest(Stopping(), 5)
        rest.after(None)
    assert waits == [5, 5]


@pytest.mark.parametrize("body", [b"", b"\xff", os.urandom(64), b"\x82\x00\x40"])
def test_what_is_no_message_is_dropped(works: Works, body: bytes) -> None:
    assert works.take(body) == 0
    assert works.collector.refused == 1


def test_replies_of_nobodys_batch_are_dropped(works: Works) -> None:
    assert works.take(works.hand.answer(packs_of(SealedBatch("reply." + "0" * 32, 2))[0])) == 0


def test_nothing_is_acknowledged_that_is_not_stored(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = works.batch()

    def lost(*_: object) -> bytes:
        raise DeliveryError("BLOB_STORE_UNAVAILABLE")

    monkeypatch.setattr(works.blobs, "get", lost)
    acknowledged: list[int] = []
    with pytest.raises(DeliveryError):
        works.collector.take(
            [Delivery(works.hand.answer(packs_of(batch)[0]), lambda: acknowledged.append(1))]
        )
    assert acknowledged == []


def test_two_dispatchers_share_the_packs(works: Works) -> None:
    works.batch(400)
    others = [works.another() for _ in range(2)]

    def run(each: Dispatcher) -> None:
        while each.step():
            pass

    threads = [threading.Thread(target=run, args=(each,)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(works.queue.sent) == len(set(works.queue.sent)) == 200


def test_a_lost_broker_gives_the_rest_back(works: Works) -> None:
    batch, number = works.batch()
    works.queue.fail_after = 1
    with pytest.raises(DeliveryError):
        works.dispatcher.step()
    works.queue.fail_after = None
    assert works.dispatcher.step() == 2
    assert sorted(map(decode_message, works.queue.sent)) == sorted(packs_of(batch))  # type: ignore[type-var]
    assert state_of(works.store, number).state == "in_progress"


def test_silent_packs_are_submitted_again_once_the_queue_is_empty(works: Works) -> None:
    batch, _ = works.batch()
    works.dispatcher.step()
    works.take(works.hand.answer(packs_of(batch)[0]))
    works.now += 181
    works.waiting = Depth(3, 0)
    assert works.dispatcher.again() == 0
    works.now += 181
    works.waiting = Depth(0, 0)
    assert works.dispatcher.again() == 2
    assert works.dispatcher.again() == 0


def test_a_whole_batch_is_sealed_and_completed(works: Works) -> None:
    batch, number = works.batch(input_root=os.urandom(32))
    works.dispatcher.step()
    works.take(*(works.hand.answer(pack) for pack in packs_of(batch)))
    works.drive()
    assert state_of(works.store, number).state == "finalizing"
    request = works.queue.sent[-1]
    asked = decode_seal_request(request)
    assert asked is not None
    works.blobs.put(answer_key(asked.digest), SealAnswer(statement=b"forged").encode())
    works.drive()
    works.blobs.put(answer_key(asked.digest), SealAnswer(code="NO", detail="").encode())
    works.drive()
    assert state_of(works.store, number).state == "finalizing"
    works.now += 121
    works.drive()
    assert works.queue.sent[-1] == request  # asked again
    assert works.hand.seal(request)
    works.drive()
    assert state_of(works.store, number).state == "completed"
    with works.store.reading() as connection:
        assert batches.statement_of(connection, number) is not None
    assert works.events() == ["batch.completed"]


def test_without_a_worker_that_seals_it_completes_in_the_end(works: Works) -> None:
    batch, number = works.batch(input_root=os.urandom(32))
    works.take(*(works.hand.answer(pack) for pack in packs_of(batch)))
    works.drive()
    works.now += 901
    works.drive()
    assert state_of(works.store, number).state == "completed"


def test_a_batch_out_of_time_keeps_what_it_has(works: Works) -> None:
    batch, number = works.batch()
    works.dispatcher.step()
    first, second, _ = packs_of(batch)
    works.take(works.hand.answer(first))
    works.now = NOW + 3601
    works.drive()
    assert len(works.queue.sent) == 5  # three, and two once more
    assert works.take(works.hand.answer(second, "expired")) == 2
    works.now += 60
    works.drive()
    found = state_of(works.store, number)
    assert (found.state, found.counts["succeeded"], found.counts["expired"], found.ended) == (
        "expired",
        2,
        2,
        4,
    )
    assert works.events() == ["batch.expired"]


def test_a_cancelled_batch_is_marked_until_its_end(works: Works) -> None:
    batch, number = works.batch()
    with works.store.transaction() as connection:
        batches.cancel(connection, works.tenant, batch.batch_id, works.now)
    seconds = [0.0]
    cancelled = Cancellations(works.blobs, POOL, lambda: seconds[0])
    assert not cancelled(batch.batch_id)
    works.drive()
    assert cancel_marker(POOL, batch.batch_id) == marker(POOL, batch.batch_id)
    assert not cancelled(batch.batch_id)  # remembered for a moment
    seconds[0] += 3
    assert cancelled(batch.batch_id)
    works.dispatcher.step()
    works.take(*(works.hand.answer(pack, "cancelled") for pack in packs_of(batch)))
    works.drive()
    found = state_of(works.store, number)
    assert (found.state, found.counts["cancelled"]) == ("cancelled", 6)
    assert works.events() == ["batch.cancelled"]
    assert not works.blobs.exists(marker(POOL, batch.batch_id))
