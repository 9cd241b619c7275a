"""Names of Pub/Sub's resources: a queue is a topic and a subscription of the same name, below a prefix.

Form and length of names: Google Cloud documentation, "Pub/Sub: guidelines to name a topic,
subscription, schema, or snapshot" (3 to 255 letters, digits and ``-._~+%``, a letter first, not ``goog``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...wire.errors import ConfigurationError
from ..settings import BrokerSettings

DEAD: str = "dead."


def dead_queue(pool_queue: str) -> str:
    """Return the queue that keeps what Pub/Sub itself gave up of a pool's queue ``jobs.<pool>``."""
    return DEAD + pool_queue.removeprefix("jobs.")


@dataclass(frozen=True, slots=True)
class Names:
    """Resource names in one project.

    :param prefix: what all names begin with, so that a project can be shared.
    """

    project: str
    prefix: str

    @classmethod
    def of(cls, settings: BrokerSettings) -> Names:
        """Return the names that settings mean.

        :raises ConfigurationError: ``BAD_SETTINGS``: they are of another profile.
        """
        if settings.pubsub_project is None:
            raise ConfigurationError("BAD_SETTINGS", "the profile pubsub needs pubsub_project")
        return cls(settings.pubsub_project, settings.pubsub_prefix)

    def topic(self, queue: str) -> str:
        """Return a queue's topic."""
        return f"projects/{self.project}/topics/{self.prefix}{queue}"

    def subscription(self, queue: str) -> str:
        """Return a queue's subscription."""
        return f"projects/{self.project}/subscriptions/{self.prefix}{queue}"
