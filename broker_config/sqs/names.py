"""Names of SQS's queues: ``jobs-<pool>``, ``dead-<pool>`` and ``reply-<32 digits>``, below a prefix.

Form and length of names: Amazon SQS Developer Guide, "Amazon SQS standard queue quotas" (80
letters, digits, ``-`` and ``_``).
"""

from __future__ import annotations

from typing import Final

from ...wire.errors import ConfigurationError
from ..settings import BrokerSettings

MAX_NAME: Final = 80


def queue_name(settings: BrokerSettings, queue: str) -> str:
    """Return the name in SQS of a queue of this package.

    :raises ConfigurationError: ``QUEUE_NAME_TOO_LONG``: prefix and pool together.
    """
    name = settings.sqs_prefix + queue.replace(".", "-", 1)
    if len(name) > MAX_NAME:
        raise ConfigurationError(
            "QUEUE_NAME_TOO_LONG", "SQS names hold 80 characters: take a shorter sqs_prefix or pool"
        )
    return name


def dead_queue(jobs: str) -> str:
    """Return the queue that keeps what SQS itself gave up of a pool's queue ``jobs.<pool>``."""
    return "dead." + jobs.removeprefix("jobs.")
