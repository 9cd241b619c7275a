"""The host of SQS."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3.session
from botocore.exceptions import BotoCoreError, ClientError

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.sqs.names import queue_name

from ..servers.moto import KEY_ID, REGION
from .host import HostGone, Taken


class SqsHost:
    """Takes messages out, breaks and moves them, puts them back.

    :param endpoint: SQS's own, which no fault cuts. :param random: decides what exactly is done.
    """

    def __init__(self, settings: BrokerSettings, endpoint: str, random: random.Random) -> None:
        self._settings = settings
        self._random = random
        session = boto3.session.Session(KEY_ID, "secret", region_name=REGION)
        self._client: Any = session.client("sqs", endpoint_url=endpoint)

    def queues(self, kind: str) -> list[str]:
        """Return the names of queues: ``jobs.`` or ``reply.``."""
        prefix = queue_name(self._settings, kind)
        with _reported():
            urls = self._client.list_queues(QueueNamePrefix=prefix).get("QueueUrls", [])
        return [kind + str(url).rpartition("/")[2].removeprefix(prefix) for url in urls]

    def take(self, kind: str, count: int) -> list[Taken]:
        """Remove up to ``count`` messages and return them with the queues they lay in."""
        taken: list[Taken] = []
        for queue in self.queues(kind):
            with _reported():
                while len(taken) < count:
                    url = self._url(queue)
                    # Short polls: moto looks at all that is visible.
                    answer = self._client.receive_message(
                        QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=0
                    )
                    if not (messages := answer.get("Messages")):
                        break
                    self._client.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
                    taken.append((queue, messages[0]["Body"].encode()))
        return taken

    def put(self, messages: list[Taken]) -> None:
        """Append messages to queues; SQS takes no empty one."""
        for queue, item in messages:
            with _reported():
                self._client.send_message(QueueUrl=self._url(queue), MessageBody=item.decode() or "-")

    def broken(self, item: bytes) -> bytes:
        """Return a message with one character of its body changed, still of the right form."""
        head, _, body = item.decode().rpartition(" ")
        place = self._random.randrange(len(body.rstrip("=")))
        other = "A" if body[place] != "A" else "B"
        return f"{head} {body[:place]}{other}{body[place + 1 :]}".encode()

    def full(self, on: bool) -> None:
        """SQS has no end: it cannot be filled."""

    def _url(self, queue: str) -> str:
        return str(self._client.get_queue_url(QueueName=queue_name(self._settings, queue))["QueueUrl"])


@contextmanager
def _reported() -> Iterator[None]:
    """A client may just have deleted its queue, or moto may not answer."""
    try:
        yield
    except (BotoCoreError, ClientError):
        raise HostGone from None
