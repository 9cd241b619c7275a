from __future__ import annotations

import os
import re
import socket
import time

import pytest

from ephemeralml.broker_config import BrokerSettings, broker_running, broker_settings, depth, ping
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.serializer import load_body
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.wire.errors import DeliveryError, MalformedError

from .conftest import free_port

CANARY = b"CANARY-5f2c-in-the-argument"


def test_a_message_holds_its_bytes_once_and_nothing_about_its_sender(broker: BrokerSettings) -> None:
    with Submitter(broker) as submitter:
        submitter.submit("minilm", CANARY)
    with redis_client(broker) as client:
        [raw] = client.lrange("jobs.minilm", 0, -1)
    head, body = raw[:69], raw[69:]
    assert load_body(body)[0] == [CANARY]  # type: ignore[index]
    assert body.count(CANARY) == 1
    assert len(body) < len(CANARY) + 64
    assert re.fullmatch(rb"1[0-9a-f-]{36}[0-9a-f]{32}", head)  # the form, a tag, the task's id
    for leak in (CANARY.hex().encode(), socket.gethostname().encode(), f"{os.getpid()}@".encode()):
        assert leak not in raw


def test_many_messages_of_all_sizes(broker: BrokerSettings) -> None:
    sizes = [0, 1, 1000, 1 << 20]
    with Submitter(broker) as submitter:
        for size in sizes:
            submitter.submit("minilm", bytes(size))
    assert depth(broker, "minilm").waiting == len(sizes)
    assert depth(broker, "another").waiting == 0


def test_a_bad_pool_is_refused(broker: BrokerSettings) -> None:
    with Submitter(broker) as submitter, pytest.raises(MalformedError, match="BAD_POOL"):
        submitter.submit("../etc", b"")


@pytest.mark.parametrize("form", ["redis://127.0.0.1:{port}/0", "redis+socket:///nonexistent/redis.sock"])
def test_an_unreachable_broker_is_one_clear_error_in_seconds(form: str) -> None:
    settings = broker_settings(broker_url=form.format(port=free_port()))
    for call in (
        lambda: ping(settings),
        lambda: depth(settings, "minilm").waiting,
        lambda: Submitter(settings).__enter__(),
        lambda: broker_running(settings).__enter__(),
    ):
        started = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            call()
        assert (caught.value.code, caught.value.retriable) == ("BROKER_UNREACHABLE", True)
        assert time.monotonic() - started < 20


def test_a_broker_that_does_not_answer_is_unreachable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERALML_CONNECT_TIMEOUT_S", "0.3")
    monkeypatch.setenv("EPHEMERALML_OPERATION_TIMEOUT_S", "5")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        settings = broker_settings(broker_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        started = time.monotonic()
        with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"), Submitter(settings):
            pass
        assert time.monotonic() - started < 60


def test_a_wrong_password_is_an_error_that_does_not_show_it(broker: BrokerSettings) -> None:
    if broker.profile == "embedded":
        wrong = broker_settings(broker_url=broker.url.replace("redis.sock", "other.sock"))
    else:
        wrong = broker_settings(broker_url=broker.url.replace("a-secret-password", "wrong-one"))
    code = "BROKER_UNREACHABLE" if broker.profile == "embedded" else "BROKER_DENIED"
    for call in (lambda: ping(wrong), lambda: Submitter(wrong).__enter__()):
        with pytest.raises(DeliveryError) as caught:
            call()
        assert caught.value.code == code
        assert "wrong-one" not in str(caught.value)
