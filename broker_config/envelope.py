"""What kombu and Celery write around a body, checked before either reads it.

A host may write anything into a queue. An entry that is not exactly what this package writes
never reaches Celery, whose headers could otherwise delay, rename, chain or crash tasks.
"""

from __future__ import annotations

import base64
import re
from typing import Final

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
_TAG: Final = re.compile(r"[0-9a-f-]{36}")
_PARTS: Final = {"body", "content-encoding", "content-type", "headers", "properties"}


def well_formed(message: object, queue: str) -> bool:
    """Return whether a parsed queue entry is one of this package's, for a job or a reply queue."""
    if not isinstance(message, dict) or set(message) != _PARTS:
        return False
    return (
        message["content-type"] == CONTENT_TYPE
        and message["content-encoding"] == "binary"
        and _good_headers(message["headers"], queue)
        and _good_properties(message["properties"])
        and _good_body(message["body"])
    )


def _good_headers(headers: object, queue: str) -> bool:
    if not isinstance(headers, dict):
        return False
    rest = dict(headers)
    if not queue.startswith("jobs."):
        return not rest
    task_id = rest.pop("id", None)
    return (
        isinstance(task_id, str)
        and _TASK_ID.fullmatch(task_id) is not None
        and rest.pop("root_id", None) == task_id
        and rest == JOB_HEADERS
    )


def _good_properties(properties: object) -> bool:
    if not isinstance(properties, dict):
        return False
    tag, info = properties.get("delivery_tag"), properties.get("delivery_info")
    return (
        isinstance(tag, str)
        and _TAG.fullmatch(tag) is not None
        and isinstance(info, dict)
        and info.get("exchange") == ""
        and isinstance(info.get("routing_key"), str)
        and properties.get("body_encoding") == "base64"
        and properties.get("priority") == 0
        and all(isinstance(properties.get(name, ""), str) for name in ("correlation_id", "reply_to"))
    )


def _good_body(body: object) -> bool:
    if not isinstance(body, str) or not body:  # kombu does not decode an empty one, and Celery ends on it
        return False
    try:
        base64.b64decode(body, validate=True)
    except ValueError:
        return False
    return True
