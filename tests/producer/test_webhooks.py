"""Opening webhooks: what a genuine one yields, and everything that must not pass."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.producer.gateway.webhooks import payload
from ephemeralml.producer.gateway.webhooks.signing import HmacKey, headers
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.ticket import Ticket
from ephemeralml.producer.webhooks import BatchKeys, Receiver, SeenIds, book_of, open_event
from ephemeralml.wire.errors import ConfigurationError, DeliveryError, Error, VerificationError
from ephemeralml.wire.pack import SealedReply, encode_replies

from ..way.harness import POOL, Stand, item

KEY = HmacKey(bytes(range(32)))


@dataclass
class Post:
    """A batch whose replies have come, and the gateway that tells of them."""

    stand: Stand
    ticket: Ticket
    replies: list[SealedReply]
    receiver: Receiver

    def data(self, place: int = 0, **changes: object) -> dict[str, Any]:
        """Return what an event about a job says."""
        reply = self.replies[place]
        pack = base64.urlsafe_b64encode(encode_replies(POOL, [reply])).rstrip(b"=").decode()
        name = f"batch_{self.ticket.head.batch_id}"
        about = {"batch_id": name, "pool": POOL, "index": place, "job_id": reply.job_id.hex()}
        return {**about, "status": "succeeded", "code": "", "reply": pack, "link": None, **changes}

    def sent(
        self, kind: str, data: dict[str, Any], *, number: int = 1, key: HmacKey = KEY, at: float | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """Return body and headers as a gateway would send them."""
        body = payload.encode(kind, self.stand.now, data)
        made = headers([key], f"msg_{number:032x}", int(self.stand.now if at is None else at), body)
        return body, {name.title(): value for name, value in made.items()}


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A batch of three jobs, of which the last one failed."""
    stand = Stand(tmp_path)
    items: list[InputItem] = [item("a", "1"), item("bb", "2"), item("c", "3", fail=True)]
    ticket = stand.client.plan(stand.fleet(), items, tmp_path / "batch.ticket", batch=True)
    stand.tickets.append(ticket)
    replies = [reply.sealed for reply in stand.answer(ticket)]
    receiver = Receiver([KEY], book_of([ticket]), stand.client.trust, now=lambda: stand.now)
    yield Post(stand, ticket, replies, receiver)
    stand.close()


def test_a_genuine_event_yields_the_verified_result(post: Post) -> None:
    with post.receiver.open(*post.sent("job.completed", post.data(1))) as event:
        assert event.result is not None
        assert (event.result.custom_id, event.result.status) == ("2", "succeeded")
        assert event.result.response is not None
        assert event.result.receipt is not None
    with post.receiver.open(*post.sent("job.failed", post.data(2), number=2)) as event:
        assert event.result is not None
        assert (event.result.status, event.result.code) == ("failed", "ENGINE_BAD_PARAMETERS")


def test_events_of_batches_and_trials_carry_the_gateways_word(post: Post) -> None:
    for number, kind in enumerate(("batch.completed", "batch.expired", "webhook.test", "webhook.disabled")):
        with post.receiver.open(*post.sent(kind, {"x": {"y": 1}}, number=number)) as event:
            assert (event.type, event.result) == (kind, None)


def test_what_was_dealt_with_does_not_come_again(post: Post) -> None:
    sent = post.sent("job.completed", post.data())
    with pytest.raises(ZeroDivisionError), post.receiver.open(*sent):
        raise ZeroDivisionError  # the handler failed: it may come again
    with post.receiver.open(*sent), pytest.raises(DeliveryError, match="WEBHOOK_IN_WORK") as busy:
        post.receiver.open(*sent).__enter__()
    assert post.receiver.status(busy.value) == 503
    post.stand.now += 60
    again = post.sent("job.completed", post.data())  # another attempt, signed anew
    for same in (sent, again):
        with pytest.raises(DeliveryError, match="WEBHOOK_SEEN") as seen:
            post.receiver.open(*same).__enter__()
        assert post.receiver.status(seen.value) == 204


def test_ids_are_forgotten_in_order() -> None:
    seen = SeenIds(2)
    for name in ("a", "b", "c"):
        seen.begin(name)
        seen.done(name)
    seen.begin("a")
    with pytest.raises(DeliveryError, match="WEBHOOK_SEEN"):
        seen.begin("c")


def refused(post: Post, code: str, sent: tuple[bytes, dict[str, str]]) -> None:
    """Assert that a webhook is refused, and leaves no trace."""
    with pytest.raises(Error) as found:
        post.receiver.open(*sent).__enter__()
    assert found.value.code == code
    with post.receiver.open(*post.sent("job.completed", post.data(), number=99)):
        pass


def test_forged_and_old_ones_are_refused(post: Post) -> None:
    data = post.data()
    refused(post, "WEBHOOK_SIGNATURE", post.sent("job.completed", data, key=HmacKey(os.urandom(32))))


def test_old_ones_are_refused(post: Post) -> None:
    refused(post, "WEBHOOK_TIMESTAMP", post.sent("job.completed", post.data(), at=post.stand.now - 301))


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_no_header_may_be_missing(post: Post, name: str) -> None:
    body, head = post.sent("job.completed", post.data())
    del head[name]
    with pytest.raises(VerificationError, match=r"WEBHOOK_(HEADERS|SIGNATURE)"):
        post.receiver.open(body, head).__enter__()


@pytest.mark.parametrize(
    ("kind", "place", "changes", "code"),
    [
        ("job.failed", 0, {}, "EVENT_MISMATCH"),
        ("job.completed", 2, {}, "EVENT_MISMATCH"),
        ("job.completed", 0, {"job_id": "00" * 16}, "JOB_UNKNOWN"),
        ("job.completed", 0, {"batch_id": "batch_" + "0" * 32}, "TICKET_MISSING"),
        ("job.completed", 0, {"batch_id": "../x"}, "WEBHOOK_BODY"),
        ("job.completed", 0, {"reply": None}, "WEBHOOK_BODY"),
        ("job.completed", 0, {"reply": "%%%"}, "WEBHOOK_BODY"),
        ("job.completed", 0, {"reply": None, "link": "https://evil.example/"}, "WEBHOOK_BODY"),
        ("job.finished", 0, {}, "WEBHOOK_BODY"),
    ],
)
def test_what_the_gateway_must_not_say(
    post: Post, kind: str, place: int, changes: dict[str, object], code: str
) -> None:
    refused(post, code, post.sent(kind, post.data(place, **changes)))


def test_a_gateway_that_swaps_replies_is_refused(post: Post) -> None:
    swapped = post.data(0, job_id=post.replies[1].job_id.hex())
    refused(post, "EVENT_MISMATCH", post.sent("job.completed", swapped))
    first, second = post.replies[:2]
    post.replies[0] = replace(second, job_id=first.job_id)
    with pytest.raises(VerificationError, match="OUTCOME_MISMATCH"):
        post.receiver.open(*post.sent("job.completed", post.data(0))).__enter__()


def test_no_byte_of_a_reply_may_change(post: Post) -> None:
    reply = post.replies[0]
    assert reply.sealed is not None
    for place in range(0, len(reply.sealed.ciphertext), 97):
        broken = bytearray(reply.sealed.ciphertext)
        broken[place] ^= 1
        post.replies[0] = replace(reply, sealed=replace(reply.sealed, ciphertext=bytes(broken)))
        with pytest.raises(Error, match="SEALING_FAILED"):
            post.receiver.open(*post.sent("job.completed", post.data(0))).__enter__()


def test_large_replies_are_fetched_and_judged_alike(post: Post) -> None:
    reply = post.replies[0]
    assert reply.sealed is not None
    assert reply.header is not None
    names = ("outcome", "header", "recipient", "iv", "ciphertext")
    parts = (reply.outcome, reply.header, reply.sealed.recipient, reply.sealed.iv, reply.sealed.ciphertext)
    line: dict[str, str] = {"job_id": reply.job_id.hex()}
    for name, part in zip(names, parts, strict=True):
        line[name] = base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    link = f"/v1/batches/batch_{post.ticket.head.batch_id}/results?after=0"
    sent = post.sent("job.completed", post.data(reply=None, link=link))
    with pytest.raises(ConfigurationError, match="NO_FETCH"):
        post.receiver.open(*sent).__enter__()
    asked: list[str] = []

    def fetch(path: str) -> bytes:
        asked.append(path)
        return json.dumps(line).encode() + b"\nmore"

    post.receiver.fetch = fetch
    with post.receiver.open(*sent) as event:
        assert event.result is not None
        assert event.result.custom_id == "1"
    assert asked == [link]


def test_a_ticket_file_is_read_and_left_to_others(post: Post, tmp_path: Path) -> None:
    post.ticket.close()
    keys = BatchKeys.load(tmp_path / "batch.ticket")
    with Ticket.load(tmp_path / "batch.ticket"):
        body, head = post.sent("job.completed", post.data())
        event = open_event(
            body, head, [KEY], lambda _: keys, post.stand.client.trust, now=post.stand.now, seen=SeenIds()
        )
    assert event.result is not None
    post.stand.tickets.clear()


def test_a_receiver_without_a_key_is_none(post: Post) -> None:
    with pytest.raises(ConfigurationError, match="BAD_WEBHOOK_KEY"):
        Receiver([], lambda _: None, post.stand.client.trust)


def snippet(mark: str) -> dict[str, Any]:
    """Run the example of docs/webhooks.md that holds a mark, and return its names."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()
    (code,) = (part.partition("```")[0] for part in text.split("```python\n")[1:] if mark in part)
    names: dict[str, Any] = {"__name__": __name__}
    exec(code, names)  # noqa: S102 - our own page
    return names


def test_the_documented_receiver_for_fastapi(post: Post, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    post.ticket.close()
    app = snippet("FastAPI(")["make_app"](KEY.text, [tmp_path / "batch.ticket"], post.stand.client.trust)
    body, head = post.sent("job.completed", post.data())
    with TestClient(app) as client:
        assert client.post("/ephemeralml", content=body, headers=head).status_code == 204
        assert client.post("/ephemeralml", content=body, headers=head).status_code == 204
        assert client.post("/ephemeralml", content=body + b" ", headers=head).status_code == 400
    post.stand.tickets.clear()


def test_the_documented_receiver_for_flask(post: Post, tmp_path: Path) -> None:
    pytest.importorskip("flask")
    post.ticket.close()
    app = snippet("Flask(")["make_app"](KEY.text, [tmp_path / "batch.ticket"], post.stand.client.trust)
    body, head = post.sent("job.completed", post.data())
    client = app.test_client()
    assert client.post("/ephemeralml", data=body, headers=head).status_code == 204
    assert client.post("/ephemeralml", data=body, headers=head).status_code == 204
    assert client.post("/ephemeralml", data=body + b" ", headers=head).status_code == 400
    post.stand.tickets.clear()
