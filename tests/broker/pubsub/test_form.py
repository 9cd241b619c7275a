"""What travels in a Pub/Sub message, and what a host may not write into one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.broker_config.envelope import DELIVERIES, JOB_HEADERS
from ephemeralml.broker_config.pubsub.form import UNCOUNTED, packed, unpacked
from ephemeralml.wire.errors import MalformedError

JOBS, REPLY, IDENT = "jobs.p", "reply." + "0a" * 16, "ab" * 16
GOOD = {"form": "1", "id": IDENT}


def message(queue: str = JOBS, body: bytes = b"body") -> dict[str, Any]:
    headers = {**JOB_HEADERS, "id": IDENT, "root_id": IDENT} if queue == JOBS else {}
    return {
        "body": body,
        "content-encoding": "binary",
        "content-type": "application/cbor",
        "headers": headers,
        "properties": {
            "delivery_tag": "0" * 36,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": None,
            "priority": 0,
        },
    }


@given(
    body=st.binary(min_size=1, max_size=200),
    queue=st.sampled_from([JOBS, REPLY]),
    attempt=st.integers(0, 100),
)
def test_a_message_arrives_as_it_was_sent(body: bytes, queue: str, attempt: int) -> None:
    data, attributes = packed(message(queue, body), queue)
    assert data == body
    assert set(attributes) == ({"form", "id"} if queue == JOBS else {"form"})
    back = unpacked(data, attributes, attempt, queue)
    assert back is not None
    assert back["body"] == body
    assert back["headers"].pop(DELIVERIES) == (attempt or UNCOUNTED)
    assert back["headers"] == message(queue)["headers"]


def test_what_pubsub_does_not_count_is_never_a_first_delivery() -> None:
    back = unpacked(b"body", GOOD, 0, JOBS)
    assert back is not None
    assert back["headers"][DELIVERIES] > 1


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"form": "1"},
        {"id": IDENT},
        {"form": "2", "id": IDENT},
        {"form": "1", "id": "AB" * 16},
        {"form": "1", "id": "ab" * 15},
        {"form": "1", "id": ""},
        {**GOOD, "task": "celery.map"},
        {**GOOD, "eta": "5"},
        {**GOOD, "googclient_deliveryattempt": "1"},
    ],
    ids=str,
)
def test_other_attributes_are_no_job(attributes: dict[str, str]) -> None:
    assert unpacked(b"body", attributes, 1, JOBS) is None


@pytest.mark.parametrize("attributes", [{}, GOOD, {"form": "1", "x": ""}, {"form": "01"}], ids=str)
def test_other_attributes_are_no_reply(attributes: dict[str, str]) -> None:
    assert unpacked(b"body", attributes, 1, REPLY) is None


@pytest.mark.parametrize("queue", [JOBS, REPLY])
def test_an_empty_body_is_none(queue: str) -> None:
    attributes = GOOD if queue == JOBS else {"form": "1"}
    assert unpacked(b"", attributes, 1, queue) is None
    assert unpacked(b"x", attributes, 1, queue) is not None
    with pytest.raises(MalformedError, match="BAD_ENVELOPE"):
        packed(message(queue, b""), queue)


def test_one_message_s_headers_are_not_another_s() -> None:
    first, second = (unpacked(b"body", GOOD, 1, JOBS) for _ in range(2))
    assert first is not None
    assert second is not None
    first["headers"]["timelimit"].append(1)
    assert second["headers"]["timelimit"] == [None, None]
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {}},
        {"headers": {**JOB_HEADERS, "id": IDENT, "root_id": IDENT, "argsrepr": "secret"}},
        {"content-type": "application/json"},
        {"body": "not base64"},
    ],
    ids=str,
)
def test_nothing_else_is_sent(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="BAD_ENVELOPE"):
        packed({**message(), **changes}, JOBS)
