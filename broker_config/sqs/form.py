"""The form of messages in SQS: one line of text, and of the envelope only what is not constant.

``1 <id> <base64>``: the version of the form, the task's id (``-`` in reply queues), the body. SQS
carries text, so a body goes in as base64: once, where kombu's transport has it twice.
Attributes are neither written nor asked for: no host can write a header.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import Any, Final

from ..envelope import NO_ID, incoming, outgoing

#: What a delivery counts as of which SQS does not say the number: not the first, so that the ledger
#: writes its starts down and a job that kills workers still ends.
UNCOUNTED: Final = 2
_FORM: Final = re.compile(r"1 ([0-9a-f]{32}|-) ([A-Za-z0-9+/]+={0,2})", re.ASCII)
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def packed(message: dict[str, Any], queue: str) -> str:
    """Return the text of a message of kombu's.

    :raises MalformedError: ``BAD_ENVELOPE``: this package does not send such messages.
    """
    ident, body = outgoing(message, queue)
    return f"1 {ident or '-'} {base64.b64encode(body).decode()}"


def unpacked(text: str, count: str | None, queue: str) -> dict[str, Any] | None:
    """Return a received message as kombu's, or None where it is not of this system's form.

    :param count: SQS's ApproximateReceiveCount: for the how manieth time it is delivered.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    ident, encoded = found.groups()
    try:
        body = base64.b64decode(encoded)
    except ValueError:
        return None
    deliveries = int(count) if count and _COUNT.fullmatch(count) else UNCOUNTED
    return incoming(
        NO_ID if ident == "-" else ident, body, queue, tag=str(uuid.uuid4()), deliveries=deliveries
    )
