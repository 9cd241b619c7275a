from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ephemeralml.broker_config import BrokerSettings, broker_settings
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.replies import PREFETCH, ReplyPublisher, ReplyQueue
from ephemeralml.wire.errors import DeliveryError, MalformedError

from .conftest import running

NAME = "reply." + "0a" * 16


def take(queue: ReplyQueue, count: int) -> list[bytes]:
    """Receive and acknowledge ``count`` messages."""
    bodies = []
    for _ in range(count):
        delivery = queue.receive(5)
        assert delivery is not None
        bodies.append(delivery.body)
        delivery.ack()
    return bodies


def test_replies_arrive_in_order_and_only_once(broker: BrokerSettings) -> None:
    bodies = [b"%d" % number for number in range(3 * PREFETCH)] + [b"", bytes(1 << 20)]
    publisher = ReplyPublisher(broker)
    for body in bodies:
        publisher.publish(NAME, body)
    publisher.publish("reply." + "0b" * 16, b"somebody else's")
    with ReplyQueue(broker, NAME) as queue:
        assert take(queue, len(bodies)) == bodies
        started = time.monotonic()
        assert queue.receive(0.3) is None
        assert 0.2 < time.monotonic() - started < 20
    with redis_client(broker) as client:
        assert not client.exists(NAME, f"unacked.{NAME}", f"unacked_index.{NAME}")
    publisher.close()
    publisher.publish(NAME, b"again")
    publisher.close()


def test_what_was_not_acknowledged_comes_again(broker: BrokerSettings) -> None:
    publisher = ReplyPublisher(broker)
    for body in (b"1", b"2", b"3"):
        publisher.publish(NAME, body)
    with ReplyQueue(broker, NAME) as queue:
        assert take(queue, 1) == [b"1"]
        assert queue.receive(5) is not None
    with redis_client(broker) as client:
        assert 0 < client.ttl(NAME) <= broker.reply_ttl_s
    with ReplyQueue(broker, NAME) as queue:
        assert sorted(take(queue, 2)) == [b"2", b"3"]
    publisher.close()


def test_what_a_dead_client_held_comes_again_after_the_lease(broker: BrokerSettings) -> None:
    settings = broker.model_copy(update={"visibility_timeout_s": 1.0})
    publisher = ReplyPublisher(settings)
    publisher.publish(NAME, b"held")
    dead = ReplyQueue(settings, NAME).__enter__()
    assert dead.receive(5) is not None
    with ReplyQueue(settings, NAME) as queue:
        assert queue.receive(0.2) is None
        delivery = queue.receive(10)
        assert delivery is not None
        assert delivery.body == b"held"
        delivery.ack()
    dead.__exit__(None, None, None)
    publisher.close()


def test_replies_that_nobody_fetches_are_forgotten(broker: BrokerSettings) -> None:
    publisher = ReplyPublisher(broker)
    publisher.publish(NAME, b"x")
    publisher.close()
    with redis_client(broker) as client:
        assert 0 < client.ttl(NAME) <= broker.reply_ttl_s


def test_workers_publish_from_many_threads(broker: BrokerSettings) -> None:
    publisher = ReplyPublisher(broker)

    def publish(number: int) -> None:
        for index in range(25):
            publisher.publish(NAME, b"%d-%d" % (number, index))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ReplyQueue(broker, NAME) as queue:
        assert len(set(take(queue, 100))) == 100
    publisher.close()


@pytest.mark.parametrize("name", ["jobs.minilm", "reply.x", NAME + "0", NAME.upper(), "", "unacked"])
def test_nothing_but_a_reply_queue_is_written_or_read(broker: BrokerSettings, name: str) -> None:
    with pytest.raises(MalformedError, match="BAD_REPLY_TO"):
        ReplyPublisher(broker).publish(name, b"x")
    with pytest.raises(MalformedError, match="BAD_REPLY_TO"):
        ReplyQueue(broker, name)
    with redis_client(broker) as client:
        assert client.dbsize() == 0


def test_a_host_s_garbage_harms_no_client(broker: BrokerSettings) -> None:
    publisher = ReplyPublisher(broker)
    publisher.publish(NAME, b"template")
    with redis_client(broker) as client:
        good = bytes(client.lpop(NAME))
        tag, body = good[:37], good[69:]
        crafted = [tag + b"0" * 32 + body, b"2" + good[1:], tag.upper() + good[37:], tag, good[:69], good[1:]]
        for item in (b"\xff", b"{", b"[]", b"null", b"{}", *crafted):
            client.lpush(NAME, item)
        client.lpush(NAME, good[:69] + b"\0\0\0")  # well formed, but not CBOR
    publisher.publish(NAME, b"good")
    with ReplyQueue(broker, NAME) as queue:
        assert take(queue, 2) == [b"", b"good"]
        assert queue.receive(0.2) is None
    with redis_client(broker) as client:
        assert not client.exists(NAME, f"unacked.{NAME}")
    publisher.close()


def test_a_lost_connection_is_made_anew(broker: BrokerSettings) -> None:
    publisher = ReplyPublisher(broker)
    publisher.publish(NAME, b"before")
    with ReplyQueue(broker, NAME) as queue:
        held = queue.receive(5)
        assert held is not None
        with redis_client(broker) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        with suppress(DeliveryError):
            held.ack()
        with suppress(DeliveryError):
            queue.receive(0.5)
        publisher.publish(NAME, b"after")
        assert b"after" in take(queue, 1)
    publisher.close()


def test_an_unreachable_broker_is_one_clear_error() -> None:
    gone = broker_settings(broker_url="redis+socket:///nonexistent.sock")
    publisher = ReplyPublisher(gone)
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
        publisher.publish(NAME, b"x")
    publisher.close()
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"), ReplyQueue(gone, NAME):
        pass


def test_a_broker_that_ends_in_between(tmp_path: Path) -> None:
    with running("redis", tmp_path) as settings:
        publisher = ReplyPublisher(settings)
        publisher.publish(NAME, b"x")
        publisher.publish(NAME, b"y")
        queue = ReplyQueue(settings, NAME).__enter__()
        delivery = queue.receive(5)
        assert delivery is not None
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
        delivery.ack()
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
        publisher.publish(NAME, b"z")
    for _ in range(2):
        with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
            queue.receive(5)
    queue.__exit__(None, None, None)
