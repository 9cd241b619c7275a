"""Pub/Sub: whether a pool's topic and subscription are there, keep what they were given, and who may what.

Rights are asked for by ``TestIamPermissions``, which needs none itself (Google Cloud documentation,
"Pub/Sub access control with IAM").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.pubsub_v1 import types

from ....broker_config.pubsub.calls import CONSUME, Calls, Lost, Missing, calls_of, is_loopback
from ....broker_config.pubsub.names import Names
from ....broker_config.queues import jobs_queue
from ....broker_config.settings import BrokerSettings
from ....wire.errors import DeliveryError
from .finding import Finding

PUBLISH: Final = "pubsub.topics.publish"
ADMINISTER: Final = "pubsub.subscriptions.delete"
_MIN_RETENTION_S: Final = 86_400
#: Of each role: whether it takes jobs, and whether it sends them; None where it cannot be kept apart
#: (a worker publishes replies to topics that clients make).
_ROLES: Final[dict[str, tuple[bool, bool | None]]] = {
    "worker": (True, None),
    "client": (False, True),
    "relay": (False, True),
    "operator": (True, True),
}


def pubsub_broker(settings: BrokerSettings, pool: str | None, role: str | None) -> Iterator[Finding]:
    """Yield what can be said of a pool's topic and subscription.

    :param role: whose rights this identity must have, and no more.
    :raises DeliveryError: ``BROKER_UNREACHABLE``.
    """
    if pool is None:
        return
    calls, names, queue = calls_of(settings), Names.of(settings), jobs_queue(pool)
    try:
        yield from _subscription(calls, names.subscription(queue), pool)
        if role is not None:
            yield from _rights(calls, names.topic(queue), names.subscription(queue), role, pool)
    except Lost:
        raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None
    if role is not None and is_loopback(settings.pubsub_endpoint):
        yield Finding("BROKER_IAM", "ok", "a server on this machine: rights may not be kept by it")


def _subscription(calls: Calls, name: str, pool: str) -> Iterator[Finding]:
    remake = f"ephemeralml queues create --pool {pool}, with an operator's rights"
    request = types.GetSubscriptionRequest(subscription=name)
    try:
        found: Any = calls.call("GetSubscription", request, subscription=name)
    except Missing:
        seen = f"there is no subscription {name}, or not for this identity"
        yield Finding("QUEUE", "problem", seen, "jobs have nowhere to go", remake)
        return
    except DeliveryError as error:
        if error.code != "BROKER_DENIED":
            raise
        yield Finding("QUEUE", "ok", "this identity may not look at the subscription, as only operators may")
        return
    wrong = []
    if not found.dead_letter_policy.dead_letter_topic:
        wrong.append(("no dead-letter topic", "a message that no worker can hold comes back for ever"))
    if found.message_retention_duration.total_seconds() < _MIN_RETENTION_S:
        wrong.append(("messages are kept for less than a day", "jobs of a long outage are lost"))
    if found.expiration_policy.ttl.total_seconds():
        wrong.append(("it expires when nobody uses it", "a fleet that is scaled to zero loses its queue"))
    if found.push_config.push_endpoint or found.filter:
        wrong.append(("it pushes or filters", "workers do not see all of its jobs"))
    for seen, cause in wrong:
        yield Finding("QUEUE_SETTINGS", "problem", f"{name}: {seen}", cause, remake)
    if not wrong:
        yield Finding("QUEUE", "ok", f"{name} is there, with the settings it needs")


def _rights(calls: Calls, topic: str, subscription: str, role: str, pool: str) -> Iterator[Finding]:
    takes, sends = _ROLES[role]
    ask = f"ephemeralml queues policy {role} --pool {pool} prints the commands"
    rights = (
        ("take jobs", takes, calls.allowed(subscription, CONSUME)),
        ("send jobs", sends, calls.allowed(topic, PUBLISH)),
        ("delete the queue", role == "operator", calls.allowed(subscription, ADMINISTER)),
    )
    lacks = [what for what, wanted, may in rights if wanted and not may]
    more = [what for what, wanted, may in rights if may and wanted is False]
    if lacks:
        seen = f"this identity cannot {', '.join(lacks)}"
        yield Finding("BROKER_RIGHTS", "problem", seen, f"a {role} does not work without it", ask)
    else:
        yield Finding("BROKER_RIGHTS", "ok", f"this identity may do what a {role} does in pool {pool}")
    if more:
        seen, cause = f"this identity may also {', '.join(more)}", f"a {role} that is broken into may, too"
        fix = f"{ask}; with EPHEMERALML_PUBSUB_CREATE_REPLIES=false it needs nothing on the whole project"
        yield Finding("BROKER_RIGHTS_WIDE", "warning", seen, cause, fix)
