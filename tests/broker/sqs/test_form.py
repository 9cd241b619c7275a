"""The form of messages, the names of queues, the meaning of refusals and the rights of roles."""

from __future__ import annotations

import json
import os
import re
from copy import deepcopy
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.envelope import DELIVERIES, JOB_HEADERS
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.broker_config.settings import MAX_SQS_INLINE_BYTES
from ephemeralml.broker_config.sqs.calls import Calls, Denied, Exists, Lost, Missing, calls_of
from ephemeralml.broker_config.sqs.form import UNCOUNTED, packed, unpacked
from ephemeralml.broker_config.sqs.names import MAX_NAME, dead_queue, queue_name
from ephemeralml.broker_config.sqs.queues import MAX_MESSAGE_BYTES
from ephemeralml.broker_config.sqs.rights import ROLES
from ephemeralml.wire.errors import ConfigurationError, DeliveryError

from ...servers.moto import varied

JOBS, REPLY = "jobs.p", "reply." + "ab" * 16
IDENT = "0" * 31 + "1"
PLAIN = BrokerSettings(profile="sqs", sqs_region="eu-west-1", sqs_endpoint="http://127.0.0.1:1")


def message(body: bytes, queue: str) -> dict[str, Any]:
    """Return a message as kombu's virtual channel hands it over."""
    headers = {**deepcopy(JOB_HEADERS), "id": IDENT, "root_id": IDENT} if queue == JOBS else {}
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


def test_the_largest_inline_pack_fits_into_a_message() -> None:
    assert PLAIN.inline_limit_bytes == MAX_SQS_INLINE_BYTES
    overhead = 4096  # CBOR of message and task
    text = packed(message(b"x" * (MAX_SQS_INLINE_BYTES + overhead), JOBS), JOBS)
    assert len(text) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("count", [None, "", "0", "-1", "1.5", "x", "9" * 50, "\u0661"])
def test_an_unknown_number_of_deliveries_is_not_the_first(count: str | None) -> None:
    found = unpacked(packed(message(b"x", JOBS), JOBS), count, JOBS)
    assert found is not None
    assert found["headers"][DELIVERIES] == UNCOUNTED


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("", JOBS),
        ("{}", JOBS),
        ("1", JOBS),
        ("1 - eA==", JOBS),
        (f"1 {IDENT} eA==", REPLY),
        (f"2 {IDENT} eA==", JOBS),
        (f"1 {IDENT} eA==\n", JOBS),
        (f"1 {IDENT} eA=", JOBS),
        (f"1 {IDENT} e A==", JOBS),
        (f"1 {IDENT.upper()}A eA==", JOBS),
        (f"1 {IDENT[1:]} eA==", JOBS),
        (f"1 {IDENT} eA== more", JOBS),
        (f" 1 {IDENT} eA==", JOBS),
    ],
)
def test_what_a_host_writes_is_not_of_our_form(text: str, queue: str) -> None:
    assert unpacked(text, "1", queue) is None


@settings(max_examples=40)
@given(st.text(max_size=80))
def test_no_text_ends_a_puller(text: str) -> None:
    assert unpacked(text, "1", JOBS) is None or re.fullmatch(r"1 [0-9a-f]{32} \S*", text)


def test_names_fit_and_differ() -> None:
    pools = ["p", "a-b", "dead-p", "jobs-p", "x" * 63]
    queues = [jobs_queue(pool) for pool in pools] + [dead_queue(jobs_queue(pool)) for pool in pools] + [REPLY]
    names = [queue_name(PLAIN, queue) for queue in queues]
    assert len(set(names)) == len(queues)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) for name in names)
    assert max(map(len, names)) == MAX_NAME
    with pytest.raises(ConfigurationError, match="QUEUE_NAME_TOO_LONG"):
        queue_name(varied(PLAIN, sqs_prefix="thirteen-long"), jobs_queue("x" * 63))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sqs_endpoint": "http://sqs.eu-west-1.amazonaws.com"},
        {"sqs_endpoint": "http://127.0.0.1.example.org"},
        {"sqs_endpoint": "https://user:pass@host"},
        {"sqs_endpoint": "ftp://127.0.0.1"},
        {"sqs_endpoint": "https://host/path"},
        {"sqs_access_key_id": "x"},
        {"sqs_secret_access_key": "x"},
        {"sqs_session_token": "x"},
        {"sqs_prefix": "dotted."},
        {"sqs_wait_s": 0},
        {"sqs_wait_s": 21},
        {"inline_limit_bytes": MAX_SQS_INLINE_BYTES + 1},
        {"broker_url": "redis://h/0"},
    ],
)
def test_settings_that_weaken_or_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BrokerSettings(profile="sqs", **wrong)


def test_keys_are_never_shown() -> None:
    settings = BrokerSettings(profile="sqs", sqs_access_key_id="AKIAX", sqs_secret_access_key="CANARY")
    assert "CANARY" not in repr(settings) + str(settings)
    assert "AKIAX" not in repr(settings)


def test_endpoints_of_the_environment_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.setenv(name, "http://evil.example")
    own = {"sqs_access_key_id": "x", "sqs_secret_access_key": "y", "sqs_region": "eu-north-1"}
    client = calls_of(BrokerSettings(profile="sqs", **own))._client  # type: ignore[arg-type]
    assert client.meta.endpoint_url == "https://sqs.eu-north-1.amazonaws.com"
    assert client._endpoint.http_session._verify is True


def refusal(code: str, status: int = 400) -> ClientError:
    """Return what boto3 raises."""
    return ClientError(
        {"Error": {"Code": code, "Message": "CANARY"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "SendMessage",
    )


class Client:
    """Answers like boto3's client: a URL, then an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_queue_url(self, **_: object) -> dict[str, str]:
        """Return a URL."""
        return {"QueueUrl": "u"}

    def send_message(self, **_: object) -> None:
        """Fail."""
        raise self._error

    create_queue = send_message


@pytest.mark.parametrize(
    ("error", "kind", "code", "retriable"),
    [
        (refusal("AWS.SimpleQueueService.NonExistentQueue"), Missing, "QUEUE_MISSING", False),
        (refusal("QueueDoesNotExist"), Missing, "QUEUE_MISSING", False),
        (refusal("AccessDenied", 403), Denied, "BROKER_DENIED", True),
        (refusal("ExpiredToken", 403), DeliveryError, "BROKER_DENIED", True),
        (refusal("InvalidMessageContents"), DeliveryError, "BROKER_REFUSED", False),
        (refusal("\x1b[0m CANARY", 400), DeliveryError, "BROKER_REFUSED", False),
        (
            refusal("AWS.SimpleQueueService.QueueDeletedRecently"),
            DeliveryError,
            "QUEUE_DELETED_RECENTLY",
            True,
        ),
        (NoCredentialsError(), ConfigurationError, "NO_CREDENTIALS", False),
    ],
)
def test_each_refusal_has_a_meaning(
    error: Exception, kind: type[DeliveryError], code: str, retriable: bool
) -> None:
    client = Client(error)
    with pytest.raises(kind) as caught:
        Calls(client, client).send("q", "x")
    assert (caught.value.code, caught.value.retriable) == (code, retriable)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        refusal("InternalError", 500),
        refusal("ServiceUnavailable", 503),
        refusal("ThrottlingException"),
        refusal("OverLimit"),
        EndpointConnectionError(endpoint_url="u"),
        ReadTimeoutError(endpoint_url="u"),
        ConnectionResetError(),
    ],
)
def test_what_may_pass_is_a_lost_broker(error: Exception) -> None:
    client = Client(error)
    with pytest.raises(Lost):
        Calls(client, client).send("q", "x")


@pytest.mark.parametrize("code", ["QueueNameExists", "QueueAlreadyExists"])
def test_a_queue_with_other_attributes_is_told_apart(code: str) -> None:
    client = Client(refusal(code))
    with pytest.raises(Exists):
        Calls(client, client).create("q", {})


@pytest.mark.parametrize("role", ROLES)
def test_rights_name_actions_and_queues(role: str) -> None:
    policy = json.loads(carrier_of(PLAIN).rights(PLAIN, role))
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert all(re.fullmatch(r"sqs:[A-Z][A-Za-z]+", action) for action in statement["Action"])
        assert statement["Resource"].startswith("arn:aws:sqs:eu-west-1:ACCOUNT:ephemeralml-")
    makers = {action for one in policy["Statement"] for action in one["Action"] if "Create" in action}
    assert bool(makers) == (role != "worker")


def test_clients_that_must_not_make_queues_have_no_right_to() -> None:
    settings = varied(PLAIN, sqs_create_replies=False)
    assert "CreateQueue" not in carrier_of(settings).rights(settings, "client")
    assert "ReceiveMessage" in carrier_of(settings).rights(settings, "client")


def test_an_unknown_role_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="UNKNOWN_ROLE"):
        carrier_of(PLAIN).rights(PLAIN, "root")


def test_no_region_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ConfigurationError, match="NO_REGION"):
        calls_of(BrokerSettings(profile="sqs"))
