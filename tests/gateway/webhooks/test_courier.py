"""From the outbox to receivers, on both stores: at least once, never for others, given up in the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from ephemeralml.producer.gateway.store import Store, batches, events, tenants
from ephemeralml.producer.gateway.store.tenants import Tenant
from ephemeralml.producer.gateway.webhooks import deliveries, endpoints
from ephemeralml.producer.gateway.webhooks.courier import Courier
from ephemeralml.producer.gateway.webhooks.deliveries import Delivery
from ephemeralml.producer.gateway.webhooks.endpoints import Endpoint
from ephemeralml.producer.gateway.webhooks.keys import Master, shown
from ephemeralml.producer.gateway.webhooks.schedule import DELAYS, MAX_ATTEMPTS
from ephemeralml.producer.gateway.webhooks.sender import Answer, Sender
from ephemeralml.producer.gateway.webhooks.signing import ID, SIGNATURE, TIMESTAMP, read_verifying_key, verify
from ephemeralml.wire.pack import decode_replies

from ...delivery.brokers import until
from ..relay.hand import put_batch
from ..uploads import NOW, SealedBatch, answer

MASTER = Master(bytes(32))


@dataclass(frozen=True)
class Post(Sender):
    """A sender whose receivers answer as told."""

    sent: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Keep what is sent."""
        self.sent.append((url, headers, body))
        return self.answers.get(url, Answer(204, ""))


@dataclass
class Office:
    """A courier with a clock, on a store with one tenant."""

    store: Store
    tenant: Tenant
    post: Post
    courier: Courier
    now: float = NOW

    def endpoint(self, url: str, *wanted: str, signing: str = "v1") -> Endpoint:
        """Make an endpoint."""
        with self.store.transaction() as connection:
            return endpoints.create(
                connection,
                self.tenant.id,
                url,
                MASTER,
                self.now,
                wanted=wanted or ("batch.completed",),
                signing=signing,  # type: ignore[arg-type]
                limit=20,
            )

    def happen(self, kind: str, batch: int, index: int | None = None) -> None:
        """Leave an event in the outbox."""
        with self.store.transaction() as connection:
            events.add(connection, self.tenant.id, kind, self.now, batch=batch, index=index)

    def work(self) -> None:
        """Let the courier do what is due now."""
        while self.courier.step():
            until(lambda: not self.courier._counts())
        until(lambda: not self.courier._counts())

    def of(self, endpoint: Endpoint) -> list[Delivery]:
        """Return an endpoint's deliveries, the newest first."""
        with self.store.reading() as connection:
            return deliveries.page(connection, endpoint, 100)

    def again(self, endpoint: Endpoint) -> Endpoint:
        """Read an endpoint again."""
        with self.store.reading() as connection:
            found = endpoints.get(connection, endpoint.id)
        assert found is not None
        return found


@pytest.fixture
def office(store: Store) -> Iterator[Office]:
    """An office on each kind of store."""
    with store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", NOW)
    post = Post()
    courier = Courier(store, MASTER, post, chance=lambda: 0.0)
    made = Office(store, tenant, post, courier)
    courier.now = lambda: made.now
    yield made
    courier.close()


def batch_of(office: Office, jobs: int = 3, **more: object) -> tuple[SealedBatch, int]:
    """Accept a batch whose jobs have all succeeded."""
    batch = SealedBatch("reply." + "0" * 32, jobs, **more)  # type: ignore[arg-type]
    number = put_batch(office.store, office.tenant.id, batch)
    assert answer(office.store, batch, range(jobs)) == list(range(jobs))
    return batch, number


def test_an_event_reaches_those_who_listen(office: Office) -> None:
    ours, theirs = (
        office.endpoint("https://a.example/"),
        office.endpoint("https://b.example/", "batch.expired"),
    )
    with office.store.transaction() as connection:
        other = tenants.ensure(connection, "umbrella", NOW)
        endpoints.create(
            connection, other.id, "https://evil.example/", MASTER, NOW, wanted=["batch.completed"], limit=1
        )
    batch, number = batch_of(office)
    office.happen("batch.completed", number)
    office.work()
    ((url, head, body),) = office.post.sent
    assert url == "https://a.example/"
    value = json.loads(body)
    assert value["type"] == "batch.completed"
    assert value["data"]["batch_id"] == batch.name
    assert value["data"]["counts"]["succeeded"] == 3
    key = read_verifying_key(shown(MASTER.key("v1", ours.endpoint_id, 1)))
    verify([key], head[ID], head[TIMESTAMP], head[SIGNATURE], body, NOW)
    assert [each.state for each in office.of(ours)] == ["delivered"]
    assert office.of(theirs) == []


def test_a_jobs_event_holds_its_sealed_reply_and_a_large_one_a_link(office: Office) -> None:
    office.endpoint("https://a.example/", "job.completed", "job.failed")
    batch, number = batch_of(office)
    office.happen("job.completed", number, 1)
    office.work()
    data = json.loads(office.post.sent[0][2])["data"]
    assert (data["index"], data["custom_id"], data["status"]) == (1, "item-1", "succeeded")
    import base64

    pack = base64.urlsafe_b64decode(data["reply"] + "=" * (-len(data["reply"]) % 4))
    ((reply,),) = (decode_replies(pack)[1],)
    assert reply.job_id == batch.headers[1].job_id
    assert data["link"] is None


def test_large_replies_are_linked(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ephemeralml.producer.gateway.webhooks.payload.MAX_REPLY_BYTES", 100)
    office.endpoint("https://a.example/", "job.completed")
    batch, number = batch_of(office)
    office.happen("job.completed", number, 2)
    office.work()
    data = json.loads(office.post.sent[0][2])["data"]
    assert (data["reply"], data["link"]) == (None, f"/v1/batches/{batch.name}/results?after=2")


def test_failures_are_tried_for_75_hours_under_one_id(office: Office) -> None:
    endpoint, other = (
        office.endpoint("https://a.example/"),
        office.endpoint("https://b.example/", "job.failed"),
    )
    office.post.answers["https://a.example/"] = Answer(500, "REFUSED")
    _, number = batch_of(office)
    office.happen("batch.completed", number)
    for wait in (*DELAYS, 0):
        office.work()
        office.work()
        office.now += wait
    assert len(office.post.sent) == MAX_ATTEMPTS + 1  # and the notice to the other one
    (delivery,) = office.of(endpoint)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("failed", MAX_ATTEMPTS, 500)
    tried = [(head[ID], body) for url, head, body in office.post.sent if url == "https://a.example/"]
    assert len(set(tried)) == 1
    found = office.again(endpoint)
    assert (found.enabled, found.disabled_reason) == (False, "FAILING")
    notice = json.loads(office.post.sent[-1][2])
    assert office.post.sent[-1][0] == other.url
    assert notice["type"] == "webhook.disabled"
    assert notice["data"] == {"endpoint": endpoint.name, "reason": "FAILING"}


def test_gone_disables_at_once_and_enabling_sends_again(office: Office) -> None:
    endpoint = office.endpoint("https://a.example/")
    office.post.answers["https://a.example/"] = Answer(410, "REFUSED")
    _, number = batch_of(office)
    office.happen("batch.completed", number)
    office.work()
    assert office.again(endpoint).disabled_reason == "GONE"
    del office.post.answers["https://a.example/"]
    with office.store.transaction() as connection:
        endpoints.change(connection, endpoint, {"enabled": True})
        assert deliveries.replay(connection, endpoint, office.now, message_id=None, since=0) == 1
    office.work()
    assert [each.state for each in office.of(endpoint)] == ["delivered"]
    assert office.post.sent[0][1][ID] == office.post.sent[1][1][ID]
    assert office.again(endpoint).failing_since is None


def test_retry_after_is_respected(office: Office) -> None:
    endpoint = office.endpoint("https://a.example/")
    office.post.answers["https://a.example/"] = Answer(429, "REFUSED", 600.0)
    _, number = batch_of(office)
    office.happen("batch.completed", number)
    office.work()
    assert office.of(endpoint)[0].next_at == NOW + 600


def test_both_keys_sign_while_one_is_rotated(office: Office) -> None:
    endpoint = office.endpoint("https://a.example/", signing="v1a")
    with office.store.transaction() as connection:
        endpoints.rotate(connection, endpoint, office.now, 100)
    _, number = batch_of(office)
    office.happen("batch.completed", number)
    office.work()
    office.now += 101
    office.happen("batch.completed", number)
    office.work()
    signatures = [head[SIGNATURE].split(" ") for _, head, _ in office.post.sent]
    assert [len(each) for each in signatures] == [2, 1]
    _, head, body = office.post.sent[0]
    for version in (1, 2):
        key = read_verifying_key(shown(MASTER.key("v1a", endpoint.endpoint_id, version)))
        verify([key], head[ID], head[TIMESTAMP], head[SIGNATURE], body, NOW)


def test_another_master_secret_signs_nothing(office: Office) -> None:
    endpoint = office.endpoint("https://a.example/")
    _, number = batch_of(office)
    office.happen("batch.completed", number)
    wrong = Courier(office.store, Master(b"\x01" * 32), office.post, now=lambda: office.now)
    wrong.step()
    wrong.close()
    assert office.post.sent == []
    office.now += 100
    office.work()
    assert [each.state for each in office.of(endpoint)] == ["delivered"]


def test_a_deleted_batch_takes_its_deliveries_along(office: Office) -> None:
    endpoint = office.endpoint("https://a.example/")
    office.post.answers["https://a.example/"] = Answer(500, "REFUSED")
    batch, number = batch_of(office)
    with office.store.transaction() as connection:
        batches.move(connection, number, "completed", NOW, event="batch.completed")
    office.work()
    with office.store.transaction() as connection:
        assert batches.delete(connection, office.tenant.id, batch.batch_id)
    assert office.of(endpoint) == []
    office.now += 10
    office.work()


def test_a_slow_endpoint_leaves_room_for_others(office: Office) -> None:
    slow, quick = office.endpoint("https://slow.example/"), office.endpoint("https://quick.example/")
    hold = threading.Event()
    post = office.post

    class Slow(Post):
        def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            if "slow" in url:
                assert hold.wait(60)
            return post.send(url, headers, body)

    courier = Courier(office.store, MASTER, Slow(), 8, 2, now=lambda: office.now)
    _, number = batch_of(office)
    for _ in range(6):
        office.happen("batch.completed", number)
    try:

        def all_quick() -> bool:
            courier.step()
            return {each.state for each in office.of(quick)} == {"delivered"} and len(office.of(quick)) == 6

        until(all_quick)
        assert {each.state for each in office.of(slow)} == {"pending"}
    finally:
        hold.set()
        courier.close()


def test_two_couriers_at_once_send_each_delivery_once(office: Office) -> None:
    office.endpoint("https://a.example/")
    _, number = batch_of(office)
    for _ in range(40):
        office.happen("batch.completed", number)
    couriers = [Courier(office.store, MASTER, office.post, 4, 4, now=lambda: office.now) for _ in range(2)]

    def run(courier: Courier) -> None:
        until(lambda: courier.step() == 0 and len(office.post.sent) >= 40)

    threads = [threading.Thread(target=run, args=(courier,)) for courier in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for courier in couriers:
        courier.close()
    assert len({head[ID] for _, head, _ in office.post.sent}) == len(office.post.sent) == 40
