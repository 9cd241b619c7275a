"""The form of messages on Redis: bytes, and of the envelope only what is not constant.

``1``, the delivery tag (a UUID's 36 characters), the task's id (32 hexadecimal digits; as many ``-``
in reply queues), the body as it is. kombu's own form is JSON with the body as base64: a third
more bytes, parsed by every consumer from what a host may write.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..envelope import NO_ID, incoming, outgoing

TAG_BYTES: Final = 36
_NO_ID: Final = "-" * 32
_HEAD: Final = re.compile(rb"1([0-9a-f-]{36})([0-9a-f]{32}|-{32})")


def packed(message: dict[str, Any], queue: str) -> bytes:
    """Return the queue entry of a message of kombu's.

    :raises MalformedError: ``BAD_ENVELOPE``: this package does not send such messages.
    """
    ident, body = outgoing(message, queue)
    return f"1{message['properties']['delivery_tag']}{ident or _NO_ID}".encode() + body


def unpacked(entry: bytes, deliveries: int, queue: str) -> dict[str, Any] | None:
    """Return a queue entry as kombu's message, or None where it is not of this system's form.

    :param deliveries: for the how manieth time it is delivered.
    """
    head = _HEAD.match(entry)
    if head is None:
        return None
    tag, ident = (part.decode() for part in head.groups())
    body = entry[head.end() :]
    return incoming(NO_ID if ident == _NO_ID else ident, body, queue, tag=tag, deliveries=deliveries)
