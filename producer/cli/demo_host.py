"""The host of the demo ``--hostile``: everything that whoever runs broker, store and machine may do.

It has full rights on the broker's server and on the blob store, reads every file and every worker's
arguments, stops and continues processes, and holds the worker's KMS credentials. It has no key that a
TEE or the client made.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...broker_config.blobs import BlobStore
from ...broker_config.queues import jobs_queue
from ...broker_config.redis.client import redis_client
from ...broker_config.redis.lease import LeaseKeys
from ...broker_config.replies import ReplyPublisher, ReplyQueue
from ...broker_config.settings import BrokerSettings
from ...wire.errors import DeliveryError
from ...wire.pack import SealedReply, decode_message, decode_replies, encode_message, encode_replies

WAIT_S: Final = 30.0
POLL_S: Final = 0.02


@dataclass
class Host:
    """Whoever runs the machines between client and TEE."""

    settings: BrokerSettings
    blobs: BlobStore
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    # ----------------------------------------------------------------- machines

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop every worker, so that what arrives lies in its queue for as long as the host likes."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    # ------------------------------------------------------------------- queues

    def take(self, pool: str) -> bytes:
        """Remove the oldest message from a pool's queue and return it, whole and as it lies there.

        :raises DeliveryError: ``NOTHING_TAKEN``.
        """

        def pop() -> Any:
            return client.rpop(jobs_queue(pool))

        with redis_client(self.settings) as client:
            found = _wait(pop)
        return bytes(found)

    def put(self, pool: str, entry: bytes) -> None:
        """Append a message to a pool's queue, and wake a worker."""
        with redis_client(self.settings) as client:
            keys = LeaseKeys.of(jobs_queue(pool))
            client.lpush(keys.queue, entry)
            client.lpush(keys.bell, b"")

    def take_replies(self, reply_to: str, count: int = 1) -> list[SealedReply]:
        """Remove messages from a reply queue until ``count`` replies are there.

        :raises DeliveryError: ``NOTHING_TAKEN``. :raises MalformedError: they are not replies.
        """
        replies: list[SealedReply] = []
        with ReplyQueue(self.settings, reply_to) as queue:
            while len(replies) < count:
                delivery = queue.receive(WAIT_S)
                if delivery is None:
                    raise _nothing()
                body = decode_message(delivery.body)
                replies += decode_replies(body)[1] if isinstance(body, bytes) else ()
                delivery.ack()
        return replies

    def put_replies(self, reply_to: str, pool: str, replies: Sequence[SealedReply]) -> None:
        """Append one message of replies to a reply queue."""
        publisher = ReplyPublisher(self.settings)
        try:
            publisher.publish(reply_to, encode_message(encode_replies(pool, replies)))
        finally:
            publisher.close()

    # -------------------------------------------------------------------- reading

    def sees(self, folders: Sequence[Path], files: Iterable[Path]) -> dict[str, bytes]:
        """Return all that can be read from outside: files, the broker's memory, workers' arguments."""
        places = {str(path): path.read_bytes() for path in (*files, *_files(folders))}
        with redis_client(self.settings) as client:
            for key in client.scan_iter(count=1000):
                places[f"broker {key!r}"] = bytes(client.dump(key) or b"") + b"".join(_items(client, key))
        for process in self.processes:
            for name in ("cmdline", "environ"):
                path = Path("/proc") / str(process.pid) / name
                if path.is_file():
                    places[f"{name} of {process.pid}"] = path.read_bytes()
        return places


def forms(secret: str) -> list[bytes]:
    """Return a text as a reader would look for it: plain, hexadecimal, UTF-16, base64 at each alignment."""
    raw = secret.encode()
    found = [raw, raw.hex().encode(), raw.hex().upper().encode(), secret.encode("utf-16-le")]
    return found + [base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3)]


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and os.access(path, os.R_OK):
                yield path


def _items(client: Any, key: bytes) -> list[bytes]:
    """Return a list's or hash's values as they are: a dump compresses."""
    kind = client.type(key)
    if kind == b"list":
        return [bytes(item) for item in client.lrange(key, 0, -1)]
    return [bytes(item) for item in client.hvals(key)] if kind == b"hash" else []


def _wait(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise _nothing()
        time.sleep(POLL_S)
    return found


def _nothing() -> DeliveryError:
    return DeliveryError("NOTHING_TAKEN", "the demo's host found no message to act on", retriable=False)
