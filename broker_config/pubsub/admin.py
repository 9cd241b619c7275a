"""Makes and deletes topics and subscriptions: for operators, and for clients their own reply queues.

Workers and submitters never come here. Limits: Google Cloud documentation, "Pub/Sub quotas and
limits" and "Subscription properties".
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from google.pubsub_v1 import types

from ...wire.errors import ConfigurationError
from ..queues import jobs_queue
from ..settings import BrokerSettings
from .calls import CONSUME, MAX_LEASE_SECONDS, Calls, Exists, Missing, calls_of
from .names import Names, dead_queue

MIN_ACK_DEADLINE: Final = 10
MIN_RETENTION: Final = 600
MAX_RETENTION: Final = 31 * 86_400
MIN_EXPIRATION: Final = timedelta(days=1)
#: The most that a dead-letter policy may allow: the ledger gives up long before, and keeps the reason.
MAX_ATTEMPTS: Final = 100
_UPDATED: Final = (
    "ack_deadline_seconds",
    "message_retention_duration",
    "expiration_policy",
    "dead_letter_policy",
)


def create(settings: BrokerSettings, pools: list[str]) -> list[str]:
    """Make the topics and subscriptions of pools, or bring them to these settings; idempotent.

    :returns: a line per thing that exists now.
    :raises DeliveryError: ``BROKER_DENIED``, ``BROKER_REFUSED``. :raises Lost: Pub/Sub does not answer.
    :raises ConfigurationError: ``QUEUE_DIFFERS``: a subscription is there that was made for something else.
    """
    calls, names, lines = calls_of(settings), Names.of(settings), []
    for queue in [jobs_queue(pool) for pool in pools]:
        dead = dead_queue(queue)
        lines += [_topic(calls, names.topic(dead)), _subscription(calls, _dead(settings, names, dead))]
        lines += [_topic(calls, names.topic(queue)), _subscription(calls, _jobs(settings, names, queue))]
    agent = "serviceAccount:service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com"
    lines.append(f"for dead letters, allow {agent} to publish to dead.* and to subscribe to jobs.*")
    return lines


def make_replies(settings: BrokerSettings, queue: str) -> None:
    """Make a client's reply queue; harmless when it is there.

    :raises DeliveryError: ``QUEUE_MISSING``: it is not there and the settings forbid to make it.
    :raises Lost: Pub/Sub does not answer.
    """
    calls, names = calls_of(settings), Names.of(settings)
    if not settings.pubsub_create_replies:
        if not calls.allowed(names.subscription(queue), CONSUME):
            raise Missing
        return
    retention = _retention(settings.reply_ttl_s)
    subscription = types.Subscription(
        name=names.subscription(queue),
        topic=names.topic(queue),
        ack_deadline_seconds=_ack_deadline(settings),
        message_retention_duration=retention,
        # Pub/Sub deletes it when its client is gone for good, but no sooner than its messages.
        expiration_policy=types.ExpirationPolicy(ttl=max(MIN_EXPIRATION, retention) + MIN_EXPIRATION),
    )
    _topic(calls, names.topic(queue))
    try:
        calls.call("CreateSubscription", subscription, name=subscription.name)
    except Exists:
        return


def delete_replies(settings: BrokerSettings, queue: str) -> None:
    """Delete a client's reply queue with what is in it; harmless when it is gone.

    :raises Lost: Pub/Sub does not answer.
    """
    if not settings.pubsub_create_replies:
        return
    calls, names = calls_of(settings), Names.of(settings)
    subscription, topic = names.subscription(queue), names.topic(queue)
    with suppress(Missing):
        request = types.DeleteSubscriptionRequest(subscription=subscription)
        calls.call("DeleteSubscription", request, subscription=subscription)
    with suppress(Missing):
        calls.call("DeleteTopic", types.DeleteTopicRequest(topic=topic), topic=topic)


def prune_replies(settings: BrokerSettings) -> int:
    """Delete reply topics whose subscription has expired: their clients never came back. Return how many.

    :raises DeliveryError: ``BROKER_DENIED``. :raises Lost: Pub/Sub does not answer.
    """
    calls, names = calls_of(settings), Names.of(settings)
    project, prefix = f"projects/{names.project}", names.topic("reply.")
    pruned, page = 0, ""
    while True:
        request = types.ListTopicsRequest(project=project, page_size=1000, page_token=page)
        answer = calls.call("ListTopics", request, project=project)
        for topic in answer.topics:
            if topic.name.startswith(prefix) and not _subscribed(calls, topic.name):
                calls.call("DeleteTopic", types.DeleteTopicRequest(topic=topic.name), topic=topic.name)
                pruned += 1
        page = answer.next_page_token
        if not page:
            return pruned


def _subscribed(calls: Calls, topic: str) -> bool:
    request = types.ListTopicSubscriptionsRequest(topic=topic, page_size=1)
    return bool(calls.call("ListTopicSubscriptions", request, topic=topic).subscriptions)


def _jobs(settings: BrokerSettings, names: Names, queue: str) -> types.Subscription:
    return types.Subscription(
        name=names.subscription(queue),
        topic=names.topic(queue),
        ack_deadline_seconds=_ack_deadline(settings),
        message_retention_duration=_retention(settings.pubsub_retention_s),
        expiration_policy=types.ExpirationPolicy(),  # without a time to live: never
        dead_letter_policy=types.DeadLetterPolicy(
            dead_letter_topic=names.topic(dead_queue(queue)), max_delivery_attempts=MAX_ATTEMPTS
        ),
    )


def _dead(settings: BrokerSettings, names: Names, queue: str) -> types.Subscription:
    return types.Subscription(
        name=names.subscription(queue),
        topic=names.topic(queue),
        ack_deadline_seconds=MAX_LEASE_SECONDS,
        message_retention_duration=_retention(settings.pubsub_retention_s),
        expiration_policy=types.ExpirationPolicy(),
    )


def _ack_deadline(settings: BrokerSettings) -> int:
    return max(MIN_ACK_DEADLINE, min(MAX_LEASE_SECONDS, int(settings.visibility_timeout_s)))


def _retention(seconds: int) -> timedelta:
    return timedelta(seconds=max(MIN_RETENTION, min(MAX_RETENTION, seconds)))


def _topic(calls: Calls, name: str) -> str:
    try:
        calls.call("CreateTopic", types.Topic(name=name), name=name)
    except Exists:
        return f"{name}: was there"
    return f"{name}: made"


def _subscription(calls: Calls, wanted: types.Subscription) -> str:
    try:
        calls.call("CreateSubscription", wanted, name=wanted.name)
    except Exists:
        return _brought(calls, wanted)
    return f"{wanted.name}: made"


def _brought(calls: Calls, wanted: types.Subscription) -> str:
    """Bring a subscription that is there to what is wanted; one that feeds something else is refused."""
    request = types.GetSubscriptionRequest(subscription=wanted.name)
    found: Any = calls.call("GetSubscription", request, subscription=wanted.name)
    pushed = found.push_config.push_endpoint or found.filter or found.enable_message_ordering
    if found.topic != wanted.topic or pushed:
        raise ConfigurationError(
            "QUEUE_DIFFERS",
            "a subscription of this name is there with another topic, a filter, order or push",
        )
    paths = [path for path in _UPDATED if getattr(found, path) != getattr(wanted, path)]
    if not paths:
        return f"{wanted.name}: was there"
    update = types.UpdateSubscriptionRequest(subscription=wanted, update_mask={"paths": paths})
    calls.call("UpdateSubscription", update, **{"subscription.name": wanted.name})
    return f"{wanted.name}: changed"
