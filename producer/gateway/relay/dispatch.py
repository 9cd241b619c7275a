"""Puts packs onto the queue: new ones as they come, unanswered ones again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from ....broker_config.blobs import BlobStore
from ....broker_config.carriers import Depth
from ....wire.errors import DeliveryError
from ..store import Store, packs
from ..store.packs import ClaimedPack
from .messages import job_message

LOG: Final = logging.getLogger("ephemeralml.relay")
#: Claims of a silent pack after which it is submitted again even though its queue is not empty.
MAX_PATIENCE: Final = 8


class Submits(Protocol):
    """What takes messages to a pool."""

    def submit(self, pool: str, message: bytes) -> None:
        """Publish one message; it is with the broker when this returns."""


@dataclass
class Dispatcher:
    """Submits packs; for one thread.

    :param depth: how full a pool's queue is. :param inline_limit: bytes of a pack in a message.
    :param patience_s: seconds without an answer after which a pack is submitted again.
    :param lease_s: seconds after which a dead relay's packs are free. :param now: wall clock, Unix seconds.
    """

    store: Store
    blobs: BlobStore
    submitter: Submits
    depth: Callable[[str], Depth]
    inline_limit: int
    patience_s: float
    lease_s: float
    now: Callable[[], float]
    submitted: int = field(default=0, init=False)

    def step(self) -> int:
        """Submit packs that never were; return how many.

        :raises DeliveryError: store, blob store or broker cannot be used; call again.
        """
        with self.store.transaction() as connection:
            claimed = packs.claim(connection, self.now(), self.lease_s)
        self._submit(claimed)
        return len(claimed)

    def again(self) -> int:
        """Submit packs again that nobody answered; return how many.

        A pack may wait its turn in a long queue or in a worker's hands, and another copy of it would only
        make that longer: it is submitted again where its queue is empty and no message in work, or after
        the eighth look.

        :raises DeliveryError: as :meth:`step`.
        """
        now = self.now()
        before = now - self.patience_s
        with self.store.transaction() as connection:
            silent = packs.claim_unanswered(connection, now, self.patience_s, before=before)
        idle = {pool: self._idle(pool) for pool in {pack.pool for pack in silent}}
        # The others stay leased, and are looked at again when that has run out.
        lost = [pack for pack in silent if idle[pack.pool] or pack.attempts % MAX_PATIENCE == 0]
        if lost:
            LOG.warning("packs that nobody answered are submitted again: %d", len(lost))
        self._submit(lost)
        return len(lost)

    def _idle(self, pool: str) -> bool:
        found = self.depth(pool)
        return not found.waiting and not found.in_flight

    def _submit(self, claimed: Sequence[ClaimedPack]) -> None:
        with self._written_down(claimed) as done:
            for pack in claimed:
                message = job_message(self.blobs, pack.data, self.inline_limit, pack.expires_at)
                self.submitter.submit(pack.pool, message)
                done.append(pack.id)

    @contextmanager
    def _written_down(self, claimed: Sequence[ClaimedPack]) -> Iterator[list[int]]:
        """Write down what was submitted, also where the broker was lost in between; give the rest back."""
        done: list[int] = []
        try:
            yield done
        except DeliveryError:
            self._record(done, [pack.id for pack in claimed if pack.id not in done])
            raise
        self._record(done, [])

    def _record(self, done: Sequence[int], back: Sequence[int]) -> None:
        if done or back:
            with self.store.transaction() as connection:
                packs.submitted(connection, done, self.now())
                packs.release(connection, back)
        self.submitted += len(done)
