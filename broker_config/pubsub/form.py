"""The form of messages in Pub/Sub: the body as raw bytes, and of the envelope only what is not constant.

Celery's headers are the same for every job but for its id, so only the id travels, as an
attribute: no host can write a header, and a body is billed once, not as base64 in JSON.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from ...wire.errors import MalformedError
from ..envelope import DELIVERIES, JOB_HEADERS, well_formed
from ..serializer import CONTENT_TYPE

FORM: Final = "1"
#: What a delivery counts as that Pub/Sub does not count (the subscription has no dead-letter policy):
#: not the first, so that the ledger writes its starts down and a job that kills workers still ends.
UNCOUNTED: Final = 2


def packed(message: dict[str, Any], queue: str) -> tuple[bytes, dict[str, str]]:
    """Return data and attributes of a message of kombu's.

    :raises MalformedError: ``BAD_ENVELOPE``: this package does not send such messages.
    """
    if not well_formed(message, queue):
        raise MalformedError("BAD_ENVELOPE", "a message is not of this system's form")
    attributes = {"form": FORM}
    if queue.startswith("jobs."):
        attributes["id"] = message["headers"]["id"]
    return base64.b64decode(message["body"]), attributes


def unpacked(data: bytes, attributes: Mapping[str, str], attempt: int, queue: str) -> dict[str, Any] | None:
    """Return a received message as kombu's, or None where it is not of this system's form.

    :param attempt: for the how manieth time it is delivered; 0 where Pub/Sub does not count.
    """
    headers: dict[str, Any] = {}
    expected = {"form": FORM}
    if queue.startswith("jobs."):
        ident = attributes.get("id")
        headers = {**deepcopy(JOB_HEADERS), "id": ident, "root_id": ident}
        expected["id"] = ident or ""
    message = {
        "body": base64.b64encode(data).decode(),
        "content-encoding": "binary",
        "content-type": CONTENT_TYPE,
        "headers": headers,
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
            "priority": 0,
        },
    }
    if dict(attributes) != expected or not well_formed(message, queue):
        return None
    headers[DELIVERIES] = attempt or UNCOUNTED
    return message
