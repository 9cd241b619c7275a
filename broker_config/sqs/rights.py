"""The least rights per role, as an IAM policy.

Which call needs which action: Amazon SQS Developer Guide, "Amazon SQS API permissions: Actions and
resource reference" (a batch needs the action of its single call).
"""

from __future__ import annotations

import json
from typing import Final

from ...wire.errors import ConfigurationError
from ..settings import BrokerSettings

_CONSUME: Final = ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")
_REPLIES: Final = ("CreateQueue", "DeleteQueue")
_MAKE: Final = ("CreateQueue", "SetQueueAttributes", "GetQueueAttributes")

#: Of each role: what it may do to which queues. ``POOL`` stands for a pool; everyone may ask for a URL.
_ROLES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "worker": {"jobs-POOL": (*_CONSUME, "GetQueueAttributes"), "reply-*": ("SendMessage",)},
    "client": {
        "jobs-POOL": ("SendMessage", "GetQueueAttributes"),
        "reply-*": (*_REPLIES, *_CONSUME),
    },
    "relay": {
        "jobs-POOL": ("SendMessage", "GetQueueAttributes"),
        "reply-*": (*_REPLIES, *_CONSUME),
    },
    "operator": {"jobs-*": (*_MAKE, "SendMessage"), "dead-*": (*_MAKE, *_CONSUME)},
}
ROLES: Final = tuple(_ROLES)


def rights(settings: BrokerSettings, role: str) -> str:
    """Return an IAM policy that gives a role its rights on queues, and nothing more.

    :raises ConfigurationError: ``UNKNOWN_ROLE``.
    """
    if role not in _ROLES:
        raise ConfigurationError("UNKNOWN_ROLE", f"the roles are {', '.join(_ROLES)}")
    below = f"arn:aws:sqs:{settings.sqs_region or 'REGION'}:ACCOUNT:{settings.sqs_prefix}"
    statements = [_statement("Find", ("GetQueueUrl",), below + "*")]
    for queues, actions in _ROLES[role].items():
        makes = settings.sqs_create_replies or queues != "reply-*"
        allowed = tuple(one for one in actions if makes or one not in _REPLIES)
        statements.append(_statement(queues.partition("-")[0].title(), allowed, below + queues))
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def _statement(sid: str, actions: tuple[str, ...], resource: str) -> dict[str, object]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": [f"sqs:{action}" for action in actions],
        "Resource": resource,
    }
