"""What kombu and Celery write around a body never travels: it is the same for every message but its id.

A host may write anything into a queue. On the wire stand a task's id and a body, no more; the rest
is written by the receiver, so that no host can write a header, which could delay, rename, chain or
crash tasks.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any, Final

from ..wire.errors import MalformedError
from .serializer import CONTENT_TYPE

TASK_NAME: Final = "ephemeralml.run_pack"
#: The header in which a consumer finds how often its message was delivered; a transport writes it.
DELIVERIES: Final = "deliveries"

#: Celery's headers as :class:`.submit.Submitter` writes them, beside ``id`` and ``root_id``.
JOB_HEADERS: Final[dict[str, object]] = {
    "lang": "py",
    "task": TASK_NAME,
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "argsrepr": "-",
    "kwargsrepr": "-",
    "origin": "-",
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
_TASK_ID: Final = re.compile(r"[0-9a-f]{32}")
#: Stands for the task's id in reply queues, where there is none.
NO_ID: Final = ""


def outgoing(message: dict[str, Any], queue: str) -> tuple[str, bytes]:
    """Return task id and body of a message that kombu publishes.

    :raises MalformedError: ``BAD_ENVELOPE``: this package does not send such messages.
    """
    headers, body = dict(message["headers"]), message["body"]
    ident = headers.pop("id", NO_ID)
    expected = {**JOB_HEADERS, "root_id": ident} if queue.startswith("jobs.") else {}
    if (
        (message["content-type"], message["content-encoding"]) != (CONTENT_TYPE, "binary")
        or not isinstance(body, bytes)
        or not body
        or headers != expected
        or not _good_id(ident, queue)
    ):
        raise MalformedError("BAD_ENVELOPE", "a message is not of this system's form")
    return ident, body


def incoming(ident: str, body: bytes, queue: str, *, tag: str, deliveries: int) -> dict[str, Any] | None:
    """Return what arrived as kombu's message, or None where it is not of this system's form.

    :param tag: by which it is acknowledged. :param deliveries: for the how manieth time it is delivered.
    """
    if not body or not _good_id(ident, queue):  # kombu hands an empty body on, and Celery ends on it
        return None
    headers: dict[str, Any] = {}
    if queue.startswith("jobs."):
        headers = {**deepcopy(JOB_HEADERS), "id": ident, "root_id": ident}
    headers[DELIVERIES] = deliveries
    return {
        "body": body,
        "content-encoding": "binary",
        "content-type": CONTENT_TYPE,
        "headers": headers,
        "properties": {
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": None,
            "priority": 0,
        },
    }


def _good_id(ident: object, queue: str) -> bool:
    if not queue.startswith("jobs."):
        return ident == NO_ID
    return isinstance(ident, str) and _TASK_ID.fullmatch(ident) is not None
