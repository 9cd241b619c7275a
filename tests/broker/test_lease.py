"""Leases on Redis: taken, counted, extended and given back in one step each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.redis.lease import MAX_BELLS, TAKE, LeaseKeys, Leases, Line, put
from ephemeralml.broker_config.replies import ReplyPublisher, ReplyQueue

QUEUE = "jobs.p"
KEYS = LeaseKeys.of(QUEUE)


def entry(tag: str | None = None) -> bytes:
    return f"1{tag or uuid.uuid4()}{'0' * 32}body".encode()


def line_of(client: Any) -> Line:
    return Line(client.connection_pool)


def take(client: Any) -> list[Any] | None:
    taken: list[Any] | None = client.eval(TAKE, len(KEYS), *KEYS)
    return taken


def test_a_message_is_never_nowhere(broker: BrokerSettings) -> None:
    with redis_client(broker) as client:
        put(line_of(client), QUEUE, entry())
        taken = take(client)
        assert taken is not None
        _, tag, deliveries = taken
        assert deliveries == 1
        assert (client.llen(QUEUE), client.hlen(KEYS.unacked), client.zcard(KEYS.leased)) == (0, 1, 1)
        assert take(client) is None
        Leases(line_of(client), QUEUE).give_back(tag.decode())
        assert (client.llen(QUEUE), client.hlen(KEYS.unacked), client.zcard(KEYS.leased)) == (1, 0, 0)


def test_deliveries_are_counted_until_it_is_acknowledged(broker: BrokerSettings) -> None:
    tag = str(uuid.uuid4())
    with redis_client(broker) as client:
        leases = Leases(line_of(client), QUEUE)
        put(line_of(client), QUEUE, entry(tag))
        for expected in (1, 2, 3):
            taken = take(client)
            assert taken is not None
            assert taken[2] == expected
            leases.give_back(tag)
        assert take(client) is not None
        leases.acknowledge(tag)
        assert take(client) is None
        assert not client.keys("*")


def test_leases_run_out_on_the_servers_clock_and_can_be_extended(broker: BrokerSettings) -> None:
    tags = [str(uuid.uuid4()) for _ in range(3)]
    with redis_client(broker) as client:
        leases = Leases(line_of(client), QUEUE)
        for tag in tags:
            put(line_of(client), QUEUE, entry(tag))
            take(client)
        client.zadd(KEYS.leased, {tag: time.time() - 100 for tag in tags})
        assert leases.extend([tags[1], "gone"]) == 1
        assert leases.give_back_due(60) == 2
        assert leases.give_back_due(60) == 0
        assert client.hkeys(KEYS.unacked) == [tags[1].encode()]
        assert client.llen(QUEUE) == 2


def test_what_was_given_back_comes_next(broker: BrokerSettings) -> None:
    with redis_client(broker) as client:
        for tag in ("0" * 36, "1" * 36):
            put(line_of(client), QUEUE, entry(tag))
        first = take(client)
        assert first is not None
        Leases(line_of(client), QUEUE).give_back(first[1].decode())
        again = take(client)
        assert again is not None
        assert again[1] == first[1] == b"0" * 36


def test_giving_back_what_is_not_held_adds_nothing(broker: BrokerSettings) -> None:
    with redis_client(broker) as client:
        Leases(line_of(client), QUEUE).give_back("0" * 36)
        assert not client.keys("*")


@pytest.mark.parametrize(
    "junk", ["", "[]", "x" * 9000, "1", "1" + "0" * 35, "1" + "0" * 35 + "A", "2" + "0" * 100]
)
def test_an_entry_without_a_tag_is_not_leased(broker: BrokerSettings, junk: str) -> None:
    with redis_client(broker) as client:
        client.lpush(QUEUE, junk)
        assert take(client) == [junk.encode(), b"", 0]
        assert not client.keys("*")


def test_bells_are_bounded_and_cleared(broker: BrokerSettings) -> None:
    with redis_client(broker) as client:
        with client.pipeline() as pipe:
            pipe.lpush(KEYS.bell, *[""] * (2 * MAX_BELLS))
            pipe.execute()
        put(line_of(client), QUEUE, entry())
        assert client.llen(KEYS.bell) == MAX_BELLS
        take(client)
        assert take(client) is None
        assert not client.exists(KEYS.bell)


def test_an_idle_consumer_hears_the_bell(broker: BrokerSettings) -> None:
    """Faster than the second after which it would look by itself."""
    name = "reply." + "ab" * 16
    publisher = ReplyPublisher(broker)
    with ReplyQueue(broker, name) as replies:
        assert replies.receive(0.3) is None
        waits = []
        for number in range(5):
            started = time.perf_counter()
            publisher.publish(name, bytes([number]))
            delivery = replies.receive(5)
            assert delivery is not None
            assert delivery.body == bytes([number])
            delivery.ack()
            waits.append(time.perf_counter() - started)
    publisher.close()
    assert min(waits) < 0.5


CONSUMER = """
import sys
from ephemeralml.broker_config import broker_settings
from ephemeralml.broker_config.replies import ReplyQueue
with ReplyQueue(broker_settings(broker_url=sys.argv[1]), sys.argv[2]) as replies:
    print("ready", flush=True)
    while True:
        delivery = replies.receive(1)
        if delivery is not None:
            print(delivery.body.hex(), flush=True)
            delivery.ack()
"""


def test_consumers_killed_at_any_moment_lose_nothing(broker: BrokerSettings) -> None:
    """Each message is published once; consumers die by SIGKILL in the middle of taking."""
    name, rounds, each = "reply." + "cd" * 16, 4, 100
    short = broker.model_copy(update={"visibility_timeout_s": 1.0})
    publisher, got = ReplyPublisher(short), set()
    environment = {**os.environ, "EPHEMERALML_VISIBILITY_TIMEOUT_S": "1"}
    for turn in range(rounds):
        command = [sys.executable, "-c", CONSUMER, short.url, name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as consumer:
            assert consumer.stdout is not None
            assert consumer.stdout.readline() == "ready\n"
            for number in range(turn * each, (turn + 1) * each):
                publisher.publish(name, number.to_bytes(4, "big"))
            got.add(int(consumer.stdout.readline(), 16))  # in the middle of its work
            os.kill(consumer.pid, signal.SIGKILL)
            got.update(int(line, 16) for line in consumer.stdout.read().split() if len(line) == 8)
    publisher.close()
    wanted = set(range(rounds * each))
    with ReplyQueue(short, name) as replies:
        deadline = time.monotonic() + 30
        while got != wanted and time.monotonic() < deadline:
            delivery = replies.receive(1)
            if delivery is not None:
                got.add(int.from_bytes(delivery.body, "big"))
                delivery.ack()
    assert got == wanted
