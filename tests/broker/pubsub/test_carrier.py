"""The carrier against Google's fake: queues, reply queues, rights, and every failure's meaning."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.pubsub_v1 import types

from ephemeralml.broker_config import BrokerSettings, broker_settings, depth, ping
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.pubsub import admin
from ephemeralml.broker_config.pubsub.calls import Calls, Exists, Lost, Missing, Waited, calls_of, is_loopback
from ephemeralml.broker_config.pubsub.names import Names
from ephemeralml.broker_config.pubsub.replies import GRACE_SECONDS, MAX_REMEMBERED, Gone
from ephemeralml.broker_config.replies import ReplyPublisher, ReplyQueue, make_reply_queue
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.wire.errors import ConfigurationError, DeliveryError

from ...servers.cut import line_to
from ...servers.pstest import Server, pstest, settings_of

REPLY = "reply." + "5c" * 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with pstest(tmp_path, ack_deadline_s=2) as running:
        yield running


@pytest.fixture
def settings(server: Server) -> BrokerSettings:
    return settings_of(server.admin, visibility_timeout_s=2)


def found(settings: BrokerSettings, queue: str) -> types.Subscription:
    name = Names.of(settings).subscription(queue)
    request = types.GetSubscriptionRequest(subscription=name)
    answer: types.Subscription = calls_of(settings).call("GetSubscription", request, subscription=name)
    return answer


def test_creating_queues_is_idempotent_and_mends_what_differs(settings: BrokerSettings) -> None:
    carrier = carrier_of(settings)
    made = carrier.create(settings, ["p"])
    assert [line.rpartition(" ")[2] for line in made[:4]] == ["made"] * 4
    assert all(line.endswith("was there") for line in carrier.create(settings, ["p"])[:4])
    jobs = found(settings, "jobs.p")
    assert jobs.dead_letter_policy.dead_letter_topic == Names.of(settings).topic("dead.p")
    assert jobs.dead_letter_policy.max_delivery_attempts == 100
    assert jobs.message_retention_duration.days == 7
    assert not jobs.expiration_policy.ttl
    other = settings.model_copy(update={"visibility_timeout_s": 60.0, "pubsub_retention_s": 86_400})
    assert carrier.create(other, ["p"])[3].endswith("changed")
    mended = found(settings, "jobs.p")
    assert (mended.ack_deadline_seconds, mended.message_retention_duration.days) == (60, 1)


def test_a_subscription_of_something_else_is_not_taken_over(settings: BrokerSettings) -> None:
    calls, names = calls_of(settings), Names.of(settings)
    for queue in ("jobs.p", "other"):
        calls.call("CreateTopic", types.Topic(name=names.topic(queue)), name=names.topic(queue))
    foreign = types.Subscription(
        name=names.subscription("jobs.p"), topic=names.topic("other"), ack_deadline_seconds=10
    )
    calls.call("CreateSubscription", foreign, name=foreign.name)
    with pytest.raises(ConfigurationError, match="QUEUE_DIFFERS"):
        carrier_of(settings).create(settings, ["p"])


def test_replies_go_to_a_queue_that_its_client_makes_and_deletes(
    server: Server, settings: BrokerSettings
) -> None:
    make_reply_queue(settings, REPLY)
    make_reply_queue(settings, REPLY)
    publisher = ReplyPublisher(settings.model_copy(update={"pubsub_endpoint": server.data}))
    publisher.publish(REPLY, b"one")
    publisher.publish(REPLY, b"two")
    with ReplyQueue(settings, REPLY) as queue:
        first = queue.receive(30)
        assert first is not None
        first.ack()
    # What was received but not acknowledged is given back.
    with ReplyQueue(settings, REPLY) as queue:
        second = queue.receive(30)
        assert second is not None
        second.ack()
        queue.done()
    assert {first.body, second.body} == {b"one", b"two"}
    with pytest.raises(Missing):
        found(settings, REPLY)
    assert not set(server.calls("data")) - {"Publish", "TestIamPermissions"}
    with pytest.raises(DeliveryError, match="REPLY_QUEUE_MISSING") as caught:
        publisher.publish(REPLY, b"three")
    assert caught.value.retriable
    publisher.close()


def test_reply_queues_last_as_long_as_replies(settings: BrokerSettings) -> None:
    make_reply_queue(settings, REPLY)
    made = found(settings, REPLY)
    assert made.message_retention_duration.total_seconds() == settings.reply_ttl_s
    assert made.expiration_policy.ttl > made.message_retention_duration
    assert admin.prune_replies(settings) == 0
    name = Names.of(settings).subscription(REPLY)
    calls_of(settings).call(
        "DeleteSubscription", types.DeleteSubscriptionRequest(subscription=name), subscription=name
    )
    assert admin.prune_replies(settings) == 1
    assert admin.prune_replies(settings) == 0


def test_a_client_that_may_make_nothing_makes_nothing(server: Server, settings: BrokerSettings) -> None:
    humble = settings.model_copy(update={"pubsub_endpoint": server.data, "pubsub_create_replies": False})
    with pytest.raises(DeliveryError, match="QUEUE_MISSING"):
        make_reply_queue(humble, REPLY)
    make_reply_queue(settings, REPLY)
    make_reply_queue(humble, REPLY)
    with ReplyQueue(humble, REPLY) as queue:
        assert queue.receive(0.05) is None
        queue.done()
    assert found(settings, REPLY)
    assert not any(method.startswith(("Create", "Delete")) for method in server.calls("data"))


def test_the_data_door_has_no_administrative_rights(server: Server, settings: BrokerSettings) -> None:
    humble = settings.model_copy(update={"pubsub_endpoint": server.data})
    with pytest.raises(DeliveryError, match="BROKER_DENIED"):
        carrier_of(humble).create(humble, ["p"])


def test_without_its_queue_a_job_is_not_submitted(settings: BrokerSettings) -> None:
    with Submitter(settings) as submitter, pytest.raises(DeliveryError, match="QUEUE_MISSING"):
        submitter.submit("p", b"job")


def test_what_pubsub_cannot_say_is_not_said(settings: BrokerSettings) -> None:
    carrier_of(settings).create(settings, ["p"])
    assert (depth(settings, "p").waiting, depth(settings, "p").exact) == (None, False)


def test_a_broker_that_is_away_is_unreachable(server: Server, tmp_path: Path) -> None:
    with line_to(server.admin) as line:
        settings = settings_of(line.address)
        ping(settings)
        make_reply_queue(settings, REPLY)
        with ReplyQueue(settings, REPLY) as queue:
            line.cut()
            for act in (lambda: ping(settings), lambda: depth(settings, "p"), lambda: queue.receive(60)):
                with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
                    act()


def test_too_much_is_refused_for_good(settings: BrokerSettings) -> None:
    make_reply_queue(settings, REPLY)
    with pytest.raises(DeliveryError) as caught:
        calls_of(settings).lease(Names.of(settings).subscription(REPLY), ["unknown id"], 10)
    assert (caught.value.code, caught.value.retriable) == ("BROKER_REFUSED", False)


def test_a_missing_reply_topic_gets_its_grace_once() -> None:
    now = 0.0
    gone = Gone(lambda: now)
    assert gone.missed("a").retriable
    now = GRACE_SECONDS - 1
    assert gone.missed("a").retriable
    now = GRACE_SECONDS
    assert not gone.missed("a").retriable
    assert gone.missed("b").retriable
    gone.found("a")
    assert gone.missed("a").retriable
    for number in range(MAX_REMEMBERED):
        gone.missed(str(number))
    assert gone.missed("b").retriable


class Answer(grpc.RpcError):  # type: ignore[misc]
    """A failure of gRPC's."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


class Failing:
    """A channel on which every call fails in one way."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise Answer(self._code)

        return fail


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_status_has_a_meaning(code: grpc.StatusCode) -> None:
    calls = Calls(Failing(code), 1)
    meanings = {
        grpc.StatusCode.DEADLINE_EXCEEDED: Waited,
        grpc.StatusCode.ALREADY_EXISTS: Exists,
        grpc.StatusCode.UNIMPLEMENTED: NotImplementedError,
        grpc.StatusCode.NOT_FOUND: Missing,
        grpc.StatusCode.UNAVAILABLE: Lost,
        grpc.StatusCode.INTERNAL: Lost,
    }
    with pytest.raises(meanings.get(code, (Lost, DeliveryError))):
        calls.publish("topic", b"", {})


@pytest.mark.parametrize("role", ["worker", "client", "relay", "operator"])
def test_only_operators_are_editors(settings: BrokerSettings, role: str) -> None:
    text = carrier_of(settings).rights(settings, role)
    assert settings.pubsub_project is not None
    assert settings.pubsub_project in text
    assert ("roles/pubsub.editor" in text) == (role == "operator")
    assert ("topics.create" in text) == (role in ("client", "relay"))
    assert "roles/owner" not in text


def test_an_unknown_role_has_no_rights(settings: BrokerSettings) -> None:
    with pytest.raises(ConfigurationError, match="UNKNOWN_ROLE"):
        carrier_of(settings).rights(settings, "stranger")


@pytest.mark.parametrize(
    ("endpoint", "is_here"),
    [
        ("127.0.0.1:8085", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("pubsub.googleapis.com:443", False),
        ("127.0.0.1.example.com:443", False),
        ("10.0.0.1:443", False),
        ("localhost.example.com:1", False),
    ],
)
def test_only_this_machine_is_spoken_to_without_tls(endpoint: str, is_here: bool) -> None:
    assert is_loopback(endpoint) is is_here


def test_another_host_needs_credentials_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="NO_CREDENTIALS"):
        ping(settings_of("pubsub.example.com:443"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBSUB_PROJECT", "UPPER/../x"),
        ("PUBSUB_ENDPOINT", "http://x:1"),
        ("PUBSUB_PREFIX", "goog-x"),
        ("PUBSUB_PREFIX", "1x"),
        ("VISIBILITY_TIMEOUT_S", "601"),
        ("INLINE_LIMIT_BYTES", str(10 << 20)),
        ("PUBSUB_RETENTION_S", str(32 * 86_400)),
    ],
)
def test_settings_beyond_pubsub_s_limits_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("EPHEMERALML_PROFILE", "pubsub")
    monkeypatch.setenv("EPHEMERALML_PUBSUB_PROJECT", "a-project")
    assert broker_settings().pubsub_project == "a-project"
    monkeypatch.setenv(f"EPHEMERALML_{name}", value)
    with pytest.raises(ConfigurationError, match="BAD_SETTINGS") as caught:
        broker_settings()
    assert value not in str(caught.value)
    assert os.environ["EPHEMERALML_PROFILE"] == "pubsub"
