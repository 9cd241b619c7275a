"""The forms in which messages lie in queues, one per broker: what is sent comes out, nothing else does."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.broker_config.envelope import DELIVERIES, JOB_HEADERS
from ephemeralml.broker_config.pubsub import form as pubsub
from ephemeralml.broker_config.redis import form as redis
from ephemeralml.broker_config.sqs import form as sqs
from ephemeralml.wire.errors import MalformedError

JOBS, REPLY = "jobs.p", "reply." + "ab" * 16
IDENT = "0" * 31 + "1"
TAG = "45f6824c-6a0a-4536-9496-c7c0075f20e2"


@dataclass(frozen=True)
class Form:
    """One broker's: there and back again."""

    packed: Callable[[dict[str, Any], str], Any]
    unpacked: Callable[[Any, int, str], dict[str, Any] | None]


FORMS = {
    "redis": Form(redis.packed, redis.unpacked),
    "sqs": Form(sqs.packed, lambda text, count, queue: sqs.unpacked(text, str(count), queue)),
    "pubsub": Form(
        pubsub.packed, lambda packed, count, queue: pubsub.unpacked(packed[0], packed[1], count, queue)
    ),
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def message(body: object = b"body", queue: str = JOBS) -> dict[str, Any]:
    """Return a message as kombu's virtual channel hands it over."""
    headers = {**deepcopy(JOB_HEADERS), "id": IDENT, "root_id": IDENT} if queue == JOBS else {}
    return {
        "body": body,
        "content-encoding": "binary",
        "content-type": "application/cbor",
        "headers": headers,
        "properties": {
            "correlation_id": "0" * 32,
            "delivery_tag": TAG,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": None,
            "priority": 0,
        },
    }


@forms
@pytest.mark.parametrize("queue", [JOBS, REPLY])
@given(body=st.binary(min_size=1, max_size=200), count=st.integers(1, 1000))
def test_what_is_packed_comes_out_again(form: Form, queue: str, body: bytes, count: int) -> None:
    sent = message(body, queue)
    found = form.unpacked(form.packed(sent, queue), count, queue)
    assert found is not None
    assert found["headers"].pop(DELIVERIES) == count
    assert (found["body"], found["headers"]) == (body, sent["headers"])
    assert found["properties"]["body_encoding"] is None


@forms
def test_a_job_is_no_reply_and_a_reply_no_job(form: Form) -> None:
    assert form.unpacked(form.packed(message(), JOBS), 1, REPLY) is None
    assert form.unpacked(form.packed(message(queue=REPLY), REPLY), 1, JOBS) is None


@forms
@given(value=JSON, data=st.data())
def test_nothing_is_sent_with_another_header(form: Form, value: object, data: st.DataObject) -> None:
    sent = message()
    name = data.draw(st.sampled_from(sorted(sent["headers"])) | st.text(max_size=8))
    if name in sent["headers"] and sent["headers"][name] == value:
        return
    sent["headers"][name] = value
    with pytest.raises(MalformedError, match="BAD_ENVELOPE"):
        form.packed(sent, JOBS)


@forms
@pytest.mark.parametrize(
    "change",
    [
        {"body": b""},
        {"body": "text"},
        {"content-type": "application/json"},
        {"content-encoding": "utf-8"},
    ],
    ids=str,
)
def test_nothing_else_is_sent(form: Form, change: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match="BAD_ENVELOPE"):
        form.packed({**message(), **change}, JOBS)


GOOD = f"1{TAG}{IDENT}".encode()


@given(st.binary(max_size=120) | st.binary(max_size=40).map(GOOD.__add__))
def test_no_bytes_on_redis_are_taken_for_more_than_they_are(entry: bytes) -> None:
    found = redis.unpacked(entry, 1, JOBS)
    matched = re.fullmatch(rb"1[0-9a-f-]{36}[0-9a-f]{32}(?s:.+)", entry)
    assert (found is None) == (matched is None)
    if found is not None:
        assert found["body"] == entry[69:]


@pytest.mark.parametrize(
    "entry",
    [
        GOOD,
        GOOD[1:] + b"body",
        b"2" + GOOD[1:] + b"body",
        GOOD.upper() + b"body",
        GOOD[:-1] + b"-body",
        b"{}",
    ],
)
def test_what_a_host_writes_on_redis_is_not_of_our_form(entry: bytes) -> None:
    assert redis.unpacked(entry, 1, JOBS) is None
