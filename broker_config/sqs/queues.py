"""Makes and deletes queues: for operators, and for clients their own reply queues.

Workers and submitters never come here. Attributes and their limits: Amazon SQS API Reference,
CreateQueue and SetQueueAttributes.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Final

from ...wire.errors import ConfigurationError
from ..queues import jobs_queue
from ..settings import BrokerSettings
from .calls import Calls, Exists, Missing, calls_of
from .leases import MAX_LEASE_SECONDS
from .names import dead_queue, queue_name

MIN_RETENTION: Final = 60
MAX_RETENTION: Final = 14 * 86_400
MAX_MESSAGE_BYTES: Final = 1 << 20
#: The most that SQS allows: the ledger gives a job up long before, and keeps the reason.
MAX_RECEIVES: Final = 1000


def create(settings: BrokerSettings, pools: list[str]) -> list[str]:
    """Make the queues of pools, or bring them to these settings; idempotent.

    :returns: a line per queue that exists now.
    :raises DeliveryError: ``BROKER_DENIED``, ``BROKER_REFUSED``, ``QUEUE_DELETED_RECENTLY``.
    :raises Lost: SQS does not answer. :raises ConfigurationError: ``QUEUE_NAME_TOO_LONG``, ``QUEUE_DIFFERS``.
    """
    calls, lines = calls_of(settings), []
    for jobs in [jobs_queue(pool) for pool in pools]:
        name, dead = queue_name(settings, jobs), queue_name(settings, dead_queue(jobs))
        lines.append(_queue(calls, dead, _common(settings)))
        target = {"deadLetterTargetArn": _arn(calls, dead), "maxReceiveCount": MAX_RECEIVES}
        lines.append(_queue(calls, name, {**_common(settings), "RedrivePolicy": json.dumps(target)}))
        for one in (dead, name):
            _encrypted_ways_only(calls, one)
    return lines


def make_replies(settings: BrokerSettings, queue: str) -> None:
    """Make a client's reply queue; harmless when it is there.

    :raises DeliveryError: ``QUEUE_MISSING``: it is not there and the settings forbid to make it.
    :raises Lost: SQS does not answer.
    """
    calls, name = calls_of(settings), queue_name(settings, queue)
    if not settings.sqs_create_replies:
        calls.there(name)
        return
    retention = max(MIN_RETENTION, min(MAX_RETENTION, settings.reply_ttl_s))
    with suppress(Exists):  # made under other settings
        calls.create(name, {**_common(settings), "MessageRetentionPeriod": str(retention)})


def delete_replies(settings: BrokerSettings, queue: str) -> None:
    """Delete a client's reply queue with what is in it; harmless when it is gone.

    :raises Lost: SQS does not answer.
    """
    if settings.sqs_create_replies:
        with suppress(Missing):
            calls_of(settings).delete(queue_name(settings, queue))


def _common(settings: BrokerSettings) -> dict[str, str]:
    seconds = min(MAX_LEASE_SECONDS, math.ceil(settings.visibility_timeout_s))
    return {
        "VisibilityTimeout": str(seconds),  # consumers ask for their own
        "MessageRetentionPeriod": str(MAX_RETENTION),
        "MaximumMessageSize": str(MAX_MESSAGE_BYTES),
        "ReceiveMessageWaitTimeSeconds": str(settings.sqs_wait_s),
        "SqsManagedSseEnabled": "true",
    }


def _queue(calls: Calls, name: str, wanted: dict[str, str]) -> str:
    try:
        calls.there(name)
    except Missing:
        try:
            calls.create(name, wanted)
        except Exists:
            raise ConfigurationError("QUEUE_DIFFERS", "somebody else makes the same queue just now") from None
        return f"{name}: made"
    found = calls.attributes(name, ["All"])
    if found.get("KmsMasterKeyId"):
        wanted = {key: value for key, value in wanted.items() if key != "SqsManagedSseEnabled"}
    changed = {key: value for key, value in wanted.items() if not _same(found.get(key), value)}
    if not changed:
        return f"{name}: was there"
    calls.set_attributes(name, changed)
    return f"{name}: changed"


def _same(found: str | None, wanted: str) -> bool:
    if found is None or not wanted.startswith("{"):
        return found == wanted
    return _plain(found) == _plain(wanted)


def _plain(text: str) -> dict[str, str]:
    """Return a policy's meaning; SQS may write a number as a string."""
    return {key: str(value) for key, value in json.loads(text).items()}


def _arn(calls: Calls, name: str) -> str:
    return calls.attributes(name, ["QueueArn"])["QueueArn"]


def _encrypted_ways_only(calls: Calls, name: str) -> None:
    """Refuse calls without TLS at a queue that has no policy of its owner's."""
    if calls.attributes(name, ["Policy"]).get("Policy"):
        return
    statement = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sqs:*",
        "Resource": _arn(calls, name),
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    calls.set_attributes(name, {"Policy": json.dumps(policy)})
