"""A client whose policy changes, ends or is damaged while it works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from ephemeralml.attestation.policy import TrustPolicy
from ephemeralml.attestation.policy_bundle import canonical_policy
from ephemeralml.attestation.policy_source import PolicyEvent, open_policy
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer import client as client_module
from ephemeralml.producer.client import Client
from ephemeralml.producer.collecting import Collector
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.errors import AppraisalError, ConfigurationError
from ephemeralml.wire.pack import encode_message, encode_replies
from ephemeralml.wire.private_keys import PrivateKey

from ..attestation.policy.samples import DAY, ROOT, after, first
from ..way.harness import POOL, Stand, item


class Submitted:
    """Stands where the broker is: keeps what was submitted."""

    packs: list[bytes]

    def __init__(self, broker: object) -> None:
        pass

    def __enter__(self) -> Submitted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def submit(self, pool: str, message: bytes) -> None:
        type(self).packs.append(message)


class Bench:
    """A stand whose client lives under a signed policy."""

    def __init__(self, folder: Path) -> None:
        self.stand = Stand(folder)  # its evidence is of today
        self.path = folder / "policy.bundle"
        self.events: list[PolicyEvent] = []
        self.policy = self.stand.policy
        start = int(self.stand.now)
        self.end = start + DAY
        self.times = {"issued_at": start, "not_before": start, "expires": self.end}
        self.last = first(policy=canonical_policy(self.policy), **self.times)
        self.path.write_bytes(self.last)
        source = open_policy(
            self.path, policy_root=ROOT, now=self.stand.now, notify=self.events.append, poll_s=0
        )
        self.client = self.stand.client = Client(
            broker_settings(state_dir=folder / "state"),
            self.stand.blobs,
            source,
            endorsements_for(self.policy),
            lambda: self.stand.now,
        )

    def publish(self, policy: TrustPolicy, **changes: object) -> None:
        """Offer the next version."""
        self.last = after(self.last, policy=canonical_policy(policy), **self.times, **changes)  # type: ignore[arg-type]
        self.path.write_bytes(self.last)

    @property
    def nothing(self) -> TrustPolicy:
        """The policy without the model: wants none of the workers."""
        return self.policy.model_copy(update={"version": "none", "models": ()})

    def again(self) -> TrustPolicy:
        """Another policy that wants the same workers."""
        return self.policy.model_copy(update={"version": "again"})


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    Submitted.packs = []
    monkeypatch.setattr(client_module, "Submitter", Submitted)
    made = Bench(tmp_path)
    yield made
    made.stand.close()


def test_a_job_on_its_way_under_a_signed_policy(bench: Bench) -> None:
    ticket = bench.stand.plan(item())
    (reply,) = bench.stand.answer(ticket)
    bench.client.push(ticket)
    assert bench.stand.judge(ticket, reply.sealed).assurance == "provenance"
    assert ticket.head.signed_policy
    assert len(Submitted.packs) == 1


def test_a_policy_that_withdraws_trust_stops_the_next_submission(bench: Bench) -> None:
    fleet = bench.stand.fleet()
    ticket = bench.stand.plan(item())
    bench.publish(bench.nothing)
    for act in (
        lambda: bench.client.trust_pool(POOL),
        lambda: bench.client.plan(fleet, [item()], bench.stand.folder / "t"),
        lambda: bench.client.push(ticket),
    ):
        with pytest.raises(AppraisalError, match="NO_TRUSTED_WORKER") as caught:
            act()
        assert caught.value.findings[0][0] == "MODEL_NOT_ALLOWED"
    assert not (bench.stand.folder / "t").exists()
    assert Submitted.packs == []
    assert [event.code for event in bench.events] == ["POLICY_ACTIVATED"]


def test_a_policy_that_still_wants_the_workers_goes_on(bench: Bench) -> None:
    fleet = bench.stand.fleet()
    ticket = bench.stand.plan(item())
    bench.publish(bench.again())
    with bench.client.plan(fleet, [item()], bench.stand.folder / "t") as other:
        assert TrustPolicy.model_validate_json(other.head.policy) == bench.again()
    bench.client.push(ticket)
    assert len(Submitted.packs) == 1


def test_jobs_sealed_to_a_key_that_only_unwanted_workers_hold_are_not_submitted(bench: Bench) -> None:
    ticket = bench.stand.plan(item())
    for name in list(bench.stand.blobs.list("announcements/")):
        bench.stand.blobs.delete(name)
    bench.stand.fleet_key = PrivateKey.generate()
    bench.stand.worker()
    bench.publish(bench.again())
    with pytest.raises(AppraisalError, match="FLEET_KEY_NOT_WANTED"):
        bench.client.push(ticket)
    assert Submitted.packs == []


def test_results_are_judged_by_the_policy_in_force(bench: Bench) -> None:
    ticket = bench.stand.plan(item())
    (reply,) = bench.stand.answer(ticket)
    assert bench.stand.judge(ticket, reply.sealed).status == "succeeded"
    bench.publish(bench.nothing)
    with pytest.raises(AppraisalError, match="MODEL_NOT_ALLOWED"):
        bench.stand.judge(ticket, reply.sealed)
    bench.publish(bench.policy, rollback_of=1)
    assert bench.stand.judge(ticket, reply.sealed).status == "succeeded"


def take(bench: Bench, ticket: Ticket, message: bytes) -> tuple[int, bool]:
    client = bench.client
    taken = client._take(Collector(ticket, client.trust, client.now, client._discard), message)
    return len(taken.results), taken.judged


def test_a_reply_of_an_unwanted_worker_is_discarded_and_its_job_asked_again(bench: Bench) -> None:
    ticket = bench.stand.plan(item())
    message = encode_message(encode_replies(POOL, [reply.sealed for reply in bench.stand.answer(ticket)]))
    bench.publish(bench.nothing)
    assert take(bench, ticket, message) == (0, True)
    assert bench.client.discarded == 1
    assert len(ticket.missing) == 1
    assert len(ticket.unanswered_packs()) == 1


def test_without_a_policy_in_force_nothing_is_discarded(bench: Bench) -> None:
    ticket = bench.stand.plan(item())
    message = encode_message(encode_replies(POOL, [reply.sealed for reply in bench.stand.answer(ticket)]))
    bench.stand.now += DAY
    with pytest.raises(AppraisalError, match="POLICY_EXPIRED"):
        take(bench, ticket, message)
    assert bench.client.discarded == 0
    bench.stand.now -= DAY
    assert take(bench, ticket, message) == (1, True)


def test_stored_results_are_judged_again(bench: Bench) -> None:
    ticket = bench.stand.plan(item())
    message = encode_message(encode_replies(POOL, [reply.sealed for reply in bench.stand.answer(ticket)]))
    assert take(bench, ticket, message) == (1, True)
    assert [result.status for result in bench.client.results(ticket, 0)] == ["succeeded"]
    bench.publish(bench.nothing)
    assert list(bench.client.results(ticket, 0)) == []
    assert bench.client.discarded == 1
    bench.stand.now += DAY
    with pytest.raises(AppraisalError, match="POLICY_EXPIRED"):
        list(bench.client.results(ticket, 0))


def test_the_end_of_the_policy_stops_everything(bench: Bench) -> None:
    fleet = bench.stand.fleet()
    ticket = bench.stand.plan(item())
    bench.stand.now += DAY
    for act in (
        lambda: bench.client.trust_pool(POOL),
        lambda: bench.client.plan(fleet, [item()], bench.stand.folder / "t"),
        lambda: bench.client.push(ticket),
    ):
        with pytest.raises(AppraisalError, match="POLICY_EXPIRED"):
            act()
    assert Submitted.packs == []


@pytest.mark.parametrize("offer", [b"", b"{}", b"\xd2\x84"])
def test_a_bad_bundle_changes_nothing_and_is_said(bench: Bench, offer: bytes) -> None:
    bench.path.write_bytes(offer)
    ticket = bench.stand.plan(item())
    bench.client.push(ticket)
    assert len(bench.events) == 1
    assert "stays in force" in bench.events[0].message


def test_verdicts_are_kept_while_the_policy_stays(bench: Bench) -> None:
    before = bench.stand.fleet()
    assert bench.client.trust.renewed(before) is before
    after_it = bench.stand.fleet()
    known = next(iter(before.workers.values()))
    assert next(iter(after_it.workers.values())) is known
    bench.publish(bench.again())
    assert next(iter(bench.stand.fleet().workers.values())) is not known


def test_an_unknown_pool_is_no_verdict(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="POOL_UNKNOWN"):
        bench.client.trust_pool("another")
