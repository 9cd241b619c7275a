"""Which batches were cancelled? Markers in the blob store, looked for at most every few seconds per batch.

The store is untrusted: whoever writes there can cancel a batch, as it could drop its messages. A worker's
signature says then that the job was cancelled; it never runs a job that it must not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..broker_config.blobs import BlobStore
from ..wire.errors import Error

CANCELLED: Final = "CANCELLED"
#: For so long an answer of the store is taken again.
KEPT_SECONDS: Final = 2.0
MAX_KEPT: Final = 1024


def marker(pool: str, batch_id: bytes) -> str:
    """Return where a cancelled batch's marker lies; what it holds does not matter."""
    return f"cancel/{pool}/{batch_id.hex()}"


@dataclass
class Cancellations:
    """Answers whether a batch was cancelled; safe for threads.

    :param monotonic: seconds.
    """

    blobs: BlobStore
    pool: str
    monotonic: Callable[[], float]
    _kept: OrderedDict[bytes, tuple[bool, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, batch_id: bytes) -> bool:
        """Return whether the batch is marked; a store that cannot be asked cancels nothing."""
        now = self.monotonic()
        with self._lock:
            marked, until = self._kept.get(batch_id, (False, now))
            if marked or now < until:
                return marked
        try:
            marked = self.blobs.exists(marker(self.pool, batch_id))
        except Error:
            marked = False
        with self._lock:
            self._kept[batch_id] = (marked, now + KEPT_SECONDS)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return marked
