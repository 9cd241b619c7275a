"""The form of messages in SQS: one line of text, and of the envelope only what is not constant.

``1 <id> <base64>``: the version of the form, the task's id (``-`` in reply queues), the body. SQS
carries text, so kombu's own base64 goes in as it is: once, where kombu's transport has it twice.
Attributes are neither written nor asked for: no host can write a header.
"""

from __future__ import annotations

import re
import uuid
from copy import deepcopy
from typing import Any, Final

from ...wire.errors import MalformedError
from ..envelope import DELIVERIES, JOB_HEADERS, well_formed
from ..serializer import CONTENT_TYPE

#: What a delivery counts as of which SQS does not say the number: not the first, so that the ledger
#: writes its starts down and a job that kills workers still ends.
UNCOUNTED: Final = 2
_FORM: Final = re.compile(r"1 ([0-9a-f]{32}|-) ([A-Za-z0-9+/]*={0,2})", re.ASCII)
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def packed(message: dict[str, Any], queue: str) -> str:
    """Return the text of a message of kombu's.

    :raises MalformedError: ``BAD_ENVELOPE``: this package does not send such messages.
    """
    if not well_formed(message, queue):
        raise MalformedError("BAD_ENVELOPE", "a message is not of this system's form")
    return f"1 {message['headers'].get('id', '-')} {message['body']}"


def unpacked(text: str, count: str | None, queue: str) -> dict[str, Any] | None:
    """Return a received message as kombu's, or None where it is not of this system's form.

    :param count: SQS's ApproximateReceiveCount: for the how manieth time it is delivered.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    ident, body = found.groups()
    headers: dict[str, Any] = {}
    if queue.startswith("jobs."):
        headers = {**deepcopy(JOB_HEADERS), "id": ident, "root_id": ident}
    elif ident != "-":
        return None
    message = {
        "body": body,
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
    if not well_formed(message, queue):
        return None
    headers[DELIVERIES] = int(count) if count and _COUNT.fullmatch(count) else UNCOUNTED
    return message
