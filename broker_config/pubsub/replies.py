"""Reply queues that are not there: a worker neither waits for ever for one nor loses what it answered.

A topic can be missing for a moment after it was made, while Pub/Sub spreads the news; or for good,
because its client has what it wanted and deleted it, or was never there. So a worker tries for
some seconds, once per topic; after that the message is a dead letter, which an operator can
put back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from ...wire.errors import DeliveryError

GRACE_SECONDS: Final = 10.0
#: Topics that are remembered; beyond them the one that is missing for longest gets its grace anew.
MAX_REMEMBERED: Final = 1000


class Gone:
    """Since when topics are missing. Any thread may use it.

    :param now: a monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._since: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def missed(self, topic: str) -> DeliveryError:
        """Return the error for a publication to a topic that is not there; retriable in its grace only."""
        with self._lock:
            since = self._since.setdefault(topic, self._now())
            if len(self._since) > MAX_REMEMBERED:
                self._since.popitem(last=False)
        again = self._now() - since < GRACE_SECONDS
        return DeliveryError("REPLY_QUEUE_MISSING", "there is no such reply queue", retriable=again)

    def found(self, topic: str) -> None:
        """Forget that a topic was missing."""
        if topic in self._since:
            with self._lock:
                self._since.pop(topic, None)


#: What this process knows.
GONE: Final = Gone()
