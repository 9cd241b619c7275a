"""Queues as operators make them and reply queues as clients do, on moto."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.health import depth, ping
from ephemeralml.broker_config.replies import ReplyPublisher, ReplyQueue, make_reply_queue
from ephemeralml.broker_config.sqs.calls import Missing, calls_of
from ephemeralml.broker_config.sqs.names import queue_name
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.producer.cli.queues import app
from ephemeralml.wire.errors import DeliveryError

from ...servers.moto import Server, environment, settings_of, varied

REPLY = "reply." + "0f" * 16


def attributes(settings: BrokerSettings, queue: str) -> dict[str, str]:
    """Return all attributes of a queue."""
    return calls_of(settings).attributes(queue_name(settings, queue), ["All"])


def test_queues_are_made_as_the_page_says_and_made_again_unchanged(settings: BrokerSettings) -> None:
    jobs, dead = attributes(settings, "jobs.p"), attributes(settings, "dead.p")
    for queue in (jobs, dead):
        assert queue["MessageRetentionPeriod"] == str(14 * 86_400)
        assert queue["MaximumMessageSize"] == str(1 << 20)
        assert queue["SqsManagedSseEnabled"] == "true"
        statement = json.loads(queue["Policy"])["Statement"][0]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert json.loads(jobs["RedrivePolicy"])["deadLetterTargetArn"] == dead["QueueArn"]
    assert int(json.loads(jobs["RedrivePolicy"])["maxReceiveCount"]) == 1000
    assert "RedrivePolicy" not in dead
    again = carrier_of(settings).create(settings, ["p"])
    assert [line.rpartition(": ")[2] for line in again] == ["was there", "was there"]
    longer = varied(settings, visibility_timeout_s=77.5)
    changed = carrier_of(longer).create(longer, ["p"])
    assert [line.rpartition(": ")[2] for line in changed] == ["changed", "changed"]
    assert attributes(settings, "jobs.p")["VisibilityTimeout"] == "78"


def test_a_policy_of_the_owner_s_is_left_alone(settings: BrokerSettings) -> None:
    name = queue_name(settings, "jobs.p")
    statement = {
        "Sid": "Own",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "sqs:SendMessage",
        "Resource": "*",
    }
    own = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    calls_of(settings).set_attributes(name, {"Policy": own})
    carrier_of(settings).create(settings, ["p"])
    assert json.loads(attributes(settings, "jobs.p")["Policy"])["Statement"][0]["Sid"] == "Own"


def test_replies_find_their_client_whose_queue_goes_with_it(settings: BrokerSettings) -> None:
    make_reply_queue(settings, REPLY)
    make_reply_queue(varied(settings, visibility_timeout_s=9, reply_ttl_s=600), REPLY)  # under other settings
    assert attributes(settings, REPLY)["MessageRetentionPeriod"] == str(settings.reply_ttl_s)
    publisher = ReplyPublisher(settings)
    publisher.publish(REPLY, b"one")
    with ReplyQueue(settings, REPLY) as queue:
        first = queue.receive(20)
        assert first is not None
        assert first.body == b"one"
    with ReplyQueue(settings, REPLY) as queue:  # it was not acknowledged
        again = queue.receive(20)
        assert again is not None
        assert again.body == b"one"
        again.ack()
        queue.done()
    with pytest.raises(Missing):
        calls_of(settings).there(queue_name(settings, REPLY))
    with pytest.raises(DeliveryError) as caught:
        publisher.publish(REPLY, b"two")
    publisher.close()
    assert (caught.value.code, caught.value.retriable) == ("REPLY_QUEUE_MISSING", True)


def test_a_client_that_must_not_make_queues_uses_what_is_there(settings: BrokerSettings) -> None:
    careful = varied(settings, sqs_create_replies=False)
    with pytest.raises(DeliveryError, match="QUEUE_MISSING"):
        make_reply_queue(careful, REPLY)
    make_reply_queue(settings, REPLY)
    with ReplyQueue(careful, REPLY) as queue:
        queue.done()
    calls_of(settings).there(queue_name(settings, REPLY))


def test_a_full_message_travels_and_is_counted(settings: BrokerSettings) -> None:
    with Submitter(settings) as submitter:
        submitter.submit("p", b"x" * settings.inline_limit_bytes)
    found = depth(settings, "p")
    assert (found.waiting, found.in_flight, found.exact) == (1, 0, False)
    with Submitter(settings) as submitter, pytest.raises(DeliveryError) as caught:
        submitter.submit("p", b"x" * (1 << 20))
    assert caught.value.retriable is False


def test_missing_queues_are_one_clear_error(server: Server) -> None:
    unmade = settings_of(server.url)
    ping(unmade)
    with Submitter(unmade) as submitter, pytest.raises(DeliveryError, match="queues create") as caught:
        submitter.submit("p", b"x")
    assert caught.value.code == "QUEUE_MISSING"
    with pytest.raises(DeliveryError, match="QUEUE_MISSING"):
        depth(unmade, "p")


def test_a_broker_that_is_away_is_one_clear_error(settings: BrokerSettings) -> None:
    away = varied(settings, sqs_endpoint="http://127.0.0.1:9")
    for act in (lambda: ping(away), lambda: Submitter(away).__enter__(), lambda: depth(away, "p")):
        with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
            act()
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
        carrier_of(away).create(away, ["p"])


def test_operators_make_show_and_hand_out_rights(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(server.url, sqs_access_key_id=SecretStr("CLI"))
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    run = CliRunner()
    made = run.invoke(app, ["create", "--pool", "a", "--pool", "b"])
    assert made.exit_code == 0
    assert made.stdout.count(": made") == 4
    assert run.invoke(app, ["create", "--pool", "a"]).stdout.count(": was there") == 2
    shown = run.invoke(app, ["show", "--pool", "a", "--pool", "b", "--json"])
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(row["pool"], row["waiting"], row["exact"]) for row in rows] == [("a", 0, False), ("b", 0, False)]
    assert "about 0" in run.invoke(app, ["show", "--pool", "a"]).stdout
    assert run.invoke(app, ["show", "--pool", "c"]).exit_code != 0
    rights = run.invoke(app, ["policy", "client", "--pool", "a"])
    assert "-jobs-a" in rights.stdout
    assert "POOL" not in rights.output
    assert "UNKNOWN_ROLE" in run.invoke(app, ["policy", "root"]).output
