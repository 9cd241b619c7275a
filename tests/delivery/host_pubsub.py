"""The host of Pub/Sub."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.api_core.exceptions import DeadlineExceeded, GoogleAPICallError
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.pubsub.names import Names

from .host import HostGone, Taken


class PubsubHost:
    """See :class:`.host.Host`. A message travels as JSON of its data, hexadecimal, and its attributes.

    :param endpoint: Pub/Sub's own, which no fault cuts. :param random: decides what exactly is done.
    """

    def __init__(self, settings: BrokerSettings, endpoint: str, random: random.Random) -> None:
        self._names = Names.of(settings)
        self._random = random
        channel = grpc.insecure_channel(endpoint)
        self._publisher: Any = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        self._subscriber: Any = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))

    def queues(self, kind: str) -> list[str]:
        """See :meth:`.host.Host.queues`."""
        start = self._names.topic(kind)
        with _reported():
            topics = self._publisher.list_topics(project=f"projects/{self._names.project}", timeout=5)
            return [kind + topic.name.removeprefix(start) for topic in topics if topic.name.startswith(start)]

    def take(self, kind: str, count: int) -> list[Taken]:
        """See :meth:`.host.Host.take`."""
        taken: list[Taken] = []
        for queue in self.queues(kind):
            with _reported():
                subscription = self._names.subscription(queue)
                for each in self._pulled(subscription, count):
                    self._subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id], timeout=5)
                    taken.append((queue, _packed(each.message.data, dict(each.message.attributes))))
        return taken

    def _pulled(self, subscription: str, count: int) -> list[Any]:
        """Return what lies there now; an empty subscription is waited for half a second."""
        request = {"subscription": subscription, "max_messages": count}
        try:
            return list(self._subscriber.pull(request=request, timeout=0.5, retry=None).received_messages)
        except DeadlineExceeded:
            return []

    def put(self, messages: list[Taken]) -> None:
        """See :meth:`.host.Host.put`; Pub/Sub takes no empty one."""
        for queue, item in messages:
            try:
                data, attributes = _unpacked(item)
            except (ValueError, KeyError, TypeError):
                data, attributes = item or b"-", {}
            with _reported():
                message = {"data": data, "attributes": attributes}
                self._publisher.publish(topic=self._names.topic(queue), messages=[message], timeout=5)

    def broken(self, item: bytes) -> bytes:
        """See :meth:`.host.Host.broken`."""
        data, attributes = _unpacked(item)
        place = self._random.randrange(len(data))
        return _packed(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], attributes)

    def full(self, on: bool) -> None:
        """See :meth:`.host.Host.full`."""


def _packed(data: bytes, attributes: dict[str, str]) -> bytes:
    return json.dumps({"data": data.hex(), "attributes": attributes}).encode()


def _unpacked(item: bytes) -> tuple[bytes, dict[str, str]]:
    message = json.loads(item)
    return bytes.fromhex(message["data"]), dict(message["attributes"])


@contextmanager
def _reported() -> Iterator[None]:
    """A client may just have deleted its queue."""
    try:
        yield
    except (GoogleAPICallError, grpc.RpcError):
        raise HostGone from None
