"""The fleet keys that a worker holds: the current epoch's, and those of ended ones with jobs in flight.

An epoch ends by the clock, by an operator's order, or because another worker was
told so first and made the next key; what a worker believes of that is signed. A key of
an ended epoch opens jobs until the last one that can name it has expired, and is then
dropped and deleted. A revoked one is dropped at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from ..attestation.key_release.epochs import EpochRules
from ..attestation.key_release.orders import Order, Standing
from ..attestation.key_release.stored import (
    StoredKey,
    claim_name,
    epochs_named,
    key_name,
    keys_prefix,
    retired_name,
    retired_prefix,
)
from ..broker_config.blobs import BlobStore
from ..wire.errors import DeliveryError, Error, KeyReleaseError
from ..wire.opening import Opener
from .fleet_key import FleetKey, FleetKeys

MAX_HELD: Final = 16
"""Keys in use at once; of more epochs, the oldest are not adopted."""

LOOK_SECONDS: Final = 1.0
UNKNOWN_SECONDS: Final = 10.0
REFUSED_SECONDS: Final = 600.0
MAX_UNKNOWN: Final = 4096


@dataclass(slots=True)
class _Held:
    """A key in use; ``last`` is the latest deadline of a job that it opened, Unix seconds."""

    key: FleetKey
    last: float = 0.0


class KeyRing:
    """A worker's fleet keys. Safe for threads.

    :param opener: opens jobs; gets every key that is held and loses it when it is dropped.
    :param keys: gives access to the KMS for as long as it is entered.
    :param orders: returns the orders that are to be obeyed.
    :param now: wall clock, Unix seconds. :param say: prints a line for the operator.
    :param monotonic: :param sleep: clock and pause, in seconds; the clock is the pipeline's.
    """

    def __init__(
        self,
        pool: str,
        blobs: BlobStore,
        opener: Opener,
        rules: EpochRules,
        *,
        keys: Callable[[], AbstractContextManager[FleetKeys]],
        orders: Callable[[], Iterable[Order]],
        now: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pool, self._blobs, self._opener, self._rules = pool, blobs, opener, rules
        self._keys, self._orders, self._now, self._say = keys, orders, now, say
        self._monotonic, self._sleep = monotonic, sleep
        self._lock, self._look_lock = threading.RLock(), threading.Lock()
        self._held: dict[bytes, _Held] = {}
        self._gone: dict[bytes, str] = {}
        self._dropped: set[int] = set()
        self._refused: dict[int, tuple[str, float]] = {}
        self._standing = Standing()
        self._current: FleetKey | None = None
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._looked_at = -LOOK_SECONDS
        self.moved = threading.Event()
        """Set when the current key is no longer the announced one."""

    # ---------------------------------------------------------------- in use

    @property
    def current(self) -> FleetKey | None:
        """The key to announce; None while it was revoked and none has taken its place."""
        return self._current

    @property
    def births(self) -> tuple[StoredKey, ...]:
        """How the held keys are stored, for whoever judges their births again."""
        return tuple(held.key.stored for held in list(self._held.values()))

    @property
    def behind(self) -> bool:
        """Whether the current epoch's key is not held: what was announced may stand, and not be renewed."""
        return self._current is None or self._current.epoch < self._wanted()

    def open(self) -> FleetKey:
        """Obtain the current epoch's key; ended epochs' keys come with :meth:`poll`, or when a job asks.

        :raises Error: as :meth:`.fleet_key.FleetKeys.obtain`, or ``FLEET_KEY_REVOKED``.
        """
        with self._lock:
            self._read_orders()
            with self._keys() as keys:
                self._move(keys, self._listed())
        if self._current is None:
            raise KeyReleaseError("FLEET_KEY_REVOKED", "the current epoch is revoked and has no successor")
        return self._current

    def poll(self) -> None:
        """Obey new orders, move to a new epoch, adopt what is in flight, drop and delete what is drained.

        What can be done is done first; only then does it raise.

        :raises Error: as :meth:`.fleet_key.FleetKeys.obtain`, for the new epoch; retriable where the KMS or
            the store could not be used. What is held goes on opening jobs.
        """
        with self._lock:
            self._drain()  # keys end by the clock also while the store hides or does not answer
            self._read_orders()
            listed = self._listed()
            late = self._follow(listed)
            self._drain()
            self._tidy(listed)
        if late is not None:
            raise late

    def refusal(self, key_id: bytes, since: float) -> str:
        """Return why no job of this key is opened, as a code; ``""`` when it may be tried.

        An unknown key is looked for: another worker may have been told of a new epoch first. One look
        serves all jobs that were there when it began, so that junk cannot hold a worker up for long.

        :param since: when the job's message was taken, by the monotonic clock.
        :raises DeliveryError: ``FLEET_KEY_NOT_NOW``: it could not be looked for; the message must come again.
        """
        if key_id in self._held:
            return ""
        if (code := self._known_gone(key_id)) or self._lately_unknown(key_id):
            return code
        with self._look_lock:
            if key_id not in self._held and self._looked_at < since:
                self._look(key_id)
        if key_id in self._held:
            return ""
        self._note_unknown(key_id)
        return self._known_gone(key_id)

    def opened(self, key_id: bytes, not_after: int) -> None:
        """Note a job that was opened: its key is needed until the job's deadline (Unix seconds)."""
        held = self._held.get(key_id)
        if held is not None and not_after > held.last:
            held.last = not_after

    # ---------------------------------------------------------------- orders

    def _read_orders(self) -> None:
        before = self._standing
        self._standing = before.with_orders(self._orders())
        if self._standing.serial > before.serial:
            self._say(
                f"keys: order {self._standing.serial} taken, epochs through {self._standing.through} ended"
            )
        for key_id, held in list(self._held.items()):
            if held.key.epoch in self._standing.revoked:
                self._drop(key_id, "KEY_REVOKED")

    def _drop(self, key_id: bytes, code: str) -> None:
        held = self._held.pop(key_id)
        self._opener.remove(key_id)
        self._gone[key_id] = code
        self._dropped.add(held.key.epoch)
        if self._current is held.key:
            self._current = None
            self.moved.set()
        self._say(f"keys: epoch {held.key.epoch} dropped: {code}")

    def _known_gone(self, key_id: bytes) -> str:
        if key_id in self._standing.revoked.values():
            return "KEY_REVOKED"
        return self._gone.get(key_id, "")

    # ---------------------------------------------------------------- moving

    def _wanted(self) -> int:
        return self._rules.current(self._now(), self._standing.through)

    def _newer(self, listed: list[int]) -> list[int]:
        """Epochs after ours that others have made already, newest first."""
        floor = max(self._wanted(), 0 if self._current is None else self._current.epoch)
        return [epoch for epoch in listed if floor < epoch and self._adoptable(epoch)]

    def _must_move(self, listed: list[int]) -> bool:
        return self._current is None or self._current.epoch < self._wanted() or bool(self._newer(listed))

    def _move(self, keys: FleetKeys, listed: list[int]) -> None:
        for epoch in self._newer(listed):
            if self._adopt(keys, epoch) is None and epoch in self._held_epochs():
                self._make_current(self._held_epochs()[epoch])
                return
        wanted = self._wanted()
        if self._current is not None and self._current.epoch >= wanted:
            return
        held = self._held_epochs().get(wanted)
        self._make_current(held or self._hold(keys.obtain(wanted)))

    def _make_current(self, key: FleetKey) -> None:
        self._current = key
        self.moved.set()

    def _held_epochs(self) -> dict[int, FleetKey]:
        return {held.key.epoch: held.key for held in self._held.values()}

    def _hold(self, key: FleetKey) -> FleetKey:
        self._held[key.key_id] = _Held(key)
        self._opener.add(key.private_key)
        self._unknown.pop(key.key_id, None)
        return key

    # -------------------------------------------------------------- adopting

    def _listed(self) -> list[int]:
        return epochs_named(self._blobs.list(keys_prefix(self._pool)))

    def _adoptable(self, epoch: int) -> bool:
        return (
            epoch <= self._rules.newest(self._now())
            and self._now() <= self._rules.needed_until(epoch)
            and epoch not in self._standing.revoked
            and epoch not in self._dropped
            and not self._lately_refused(epoch)
        )

    def _lately_refused(self, epoch: int) -> bool:
        return epoch in self._refused and self._monotonic() < self._refused[epoch][1]

    def _to_adopt(self, listed: list[int]) -> list[int]:
        wanted, held = self._wanted(), self._held_epochs()
        room = max(MAX_HELD - len(held), 0)
        live = [epoch for epoch in listed if epoch < wanted and epoch not in held and self._adoptable(epoch)]
        retired = set(epochs_named(self._blobs.list(retired_prefix(self._pool)))) if live else set()
        return [epoch for epoch in live if epoch not in retired][:room]

    def _follow(self, listed: list[int]) -> Error | None:
        """Move and adopt; return what went wrong, for the new epoch first."""
        if not (self._must_move(listed) or self._to_adopt(listed)):
            return None
        try:
            with self._keys() as keys:
                late = self._adopt_all(keys, listed)
                if self._must_move(listed):
                    self._move(keys, listed)
                return late
        except Error as error:
            return error

    def _adopt_all(self, keys: FleetKeys, listed: list[int]) -> Error | None:
        late = None
        for epoch in self._to_adopt(listed):
            late = self._adopt(keys, epoch) or late
        return late

    def _adopt(self, keys: FleetKeys, epoch: int) -> Error | None:
        """Hold an epoch's key; return why not *now*. One that is refused is not tried again for a while.

        Not for ever: a new policy may want it, or the host have put the genuine one back.
        """
        try:
            key = keys.adopt(epoch)
            if key is not None:
                self._hold(key)
        except Error as error:
            if error.retriable or error.code.startswith("KMS_"):
                return _not_now(error)
            if self._refused.get(epoch, ("", 0.0))[0] != error.code:
                self._say(f"keys: epoch {epoch} refused: {error}")
            self._refused[epoch] = error.code, self._monotonic() + REFUSED_SECONDS
        return None

    def _lately_unknown(self, key_id: bytes) -> bool:
        until = self._unknown.get(key_id)
        return until is not None and self._monotonic() < until

    def _look(self, key_id: bytes) -> None:
        """Poll for a key that a job names; at most once in a while, whoever asks."""
        self._sleep(max(self._looked_at + LOOK_SECONDS - self._monotonic(), 0))
        self._looked_at = self._monotonic()
        try:
            self.poll()
        except Error as error:
            if key_id not in self._held and not self._known_gone(key_id):
                self._looked_at = -LOOK_SECONDS
                raise _not_now(error) from None

    def _note_unknown(self, key_id: bytes) -> None:
        with self._look_lock:
            self._unknown[key_id] = self._monotonic() + UNKNOWN_SECONDS
            while len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)

    # -------------------------------------------------------------- draining

    def _drain(self) -> None:
        now = self._now()
        for key_id, held in list(self._held.items()):
            if held.key is not self._current and now > self._needed_until(held):
                self._drop(key_id, "KEY_RETIRED")

    def _needed_until(self, held: _Held) -> float:
        key = held.key
        later = [other.key for other in self._held.values() if other.key.epoch > key.epoch]
        successor = min(later, key=lambda one: one.epoch, default=None)
        needed = self._rules.needed_until(key.epoch, None if successor is None else successor.created_at)
        return min(max(needed, held.last), self._rules.never_after(key.created_at))

    def _tidy(self, listed: list[int]) -> None:
        """Delete the wrapped keys that nobody needs any more; whoever comes first does it."""
        now, current = self._now(), self._current
        over = self._dropped | self._standing.revoked.keys()
        for epoch in listed:
            if current is not None and epoch >= current.epoch:
                continue
            if epoch in over or now > self._rules.needed_until(epoch):
                self._blobs.put_if_absent(retired_name(self._pool, epoch), b"\x01")
                self._blobs.delete(key_name(self._pool, epoch))
                self._blobs.delete(claim_name(self._pool, epoch))
                self._forget_marks(now)

    def _forget_marks(self, now: float) -> None:
        """Delete the marks of keys that are too old to be adopted anyway."""
        for epoch in epochs_named(self._blobs.list(retired_prefix(self._pool))):
            if now > self._rules.never_after(int(self._rules.needed_until(epoch))):
                self._blobs.delete(retired_name(self._pool, epoch))


def _not_now(error: Error) -> DeliveryError:
    return DeliveryError("FLEET_KEY_NOT_NOW", f"a fleet key could not be had now ({error.code})")
