"""The form of messages in Pub/Sub: the body as raw bytes, and of the envelope only what is not constant.

Celery's headers are the same for every job but for its id, so only the id travels, as an
attribute: no host can write a header, and a body is billed once, not as base64 in JSON.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from ..envelope import NO_ID, incoming, outgoing

FORM: Final = "1"
#: What a delivery counts as that Pub/Sub does not count (the subscription has no dead-letter policy):
#: not the first, so that the ledger writes its starts down and a job that kills workers still ends.
UNCOUNTED: Final = 2


def packed(message: dict[str, Any], queue: str) -> tuple[bytes, dict[str, str]]:
    """Return data and attributes of a message of kombu's.

    :raises MalformedError: ``BAD_ENVELOPE``: this package does not send such messages.
    """
    ident, body = outgoing(message, queue)
    return body, {"form": FORM, "id": ident} if ident else {"form": FORM}


def unpacked(data: bytes, attributes: Mapping[str, str], attempt: int, queue: str) -> dict[str, Any] | None:
    """Return a received message as kombu's, or None where it is not of this system's form.

    :param attempt: for the how manieth time it is delivered; 0 where Pub/Sub does not count.
    """
    ident = attributes.get("id", NO_ID)
    if dict(attributes) != ({"form": FORM, "id": ident} if ident else {"form": FORM}):
        return None
    return incoming(ident, data, queue, tag=str(uuid.uuid4()), deliveries=attempt or UNCOUNTED)
