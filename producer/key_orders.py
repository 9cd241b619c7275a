"""What an operator sees of a pool's fleet keys, and how orders are given and followed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..attestation.key_release.birth import BirthCertificate, verify_birth
from ..attestation.key_release.epochs import MAX_EPOCH, next_epoch
from ..attestation.key_release.order_store import place_order
from ..attestation.key_release.orders import Kind, Order, Standing, make_order, verify_order
from ..attestation.key_release.stored import StoredKey, epochs_named, key_name, keys_prefix
from ..wire.errors import AppraisalError, ConfigurationError, DeliveryError, Error, VerificationError
from .trust import Trust, VerifiedFleet

State = Literal["current", "draining", "unannounced", "revoked", "refused"]
POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One epoch's fleet key, as its verified birth certificate tells.

    :param code: why it is refused; ``""`` otherwise. :param stored: whether its wrapped key is still there.
    :param born_at: Unix seconds. :param born_by: receipt key of the worker that made it, 32 bytes.
    :param workers: how many trusted workers announce it.
    """

    epoch: int
    state: State
    code: str = ""
    stored: bool = True
    suite: str = ""
    key_id: bytes = b""
    born_at: int | None = None
    born_by: bytes = b""
    workers: int = 0


@dataclass(frozen=True, slots=True)
class KeySurvey:
    """A pool's fleet keys, newest first, and what its operators have ordered."""

    rows: tuple[KeyRow, ...]
    standing: Standing
    announced: tuple[tuple[bytes, int], ...]
    """Worker id (16 bytes) and announced epoch of every trusted worker."""

    @property
    def current(self) -> int | None:
        """The epoch that is current, as far as anything trusted shows."""
        return next((row.epoch for row in self.rows if row.state == "current"), None)

    def row(self, epoch: int) -> KeyRow | None:
        """Return an epoch's row."""
        return next((row for row in self.rows if row.epoch == epoch), None)


@dataclass
class KeyOffice:
    """Surveys fleet keys and gives orders about them, under one client's trust.

    :param sleep: pause, in seconds.
    """

    trust: Trust
    pool: str
    sleep: Callable[[float], None] = time.sleep

    def survey(self) -> KeySurvey:
        """Verify what lies in the store and what workers announce.

        :raises DeliveryError: the blob store cannot be reached. :raises AppraisalError: the policy has ended.
        """
        policy = self.trust.current()
        standing = self.trust.standing(self.pool, policy)
        fleet = self._fleet()
        bodies = () if fleet is None else tuple(worker.body for worker in fleet.workers.values())
        announcing = Counter(body.epoch for body in bodies)
        epochs = epochs_named(self.trust.blobs.list(keys_prefix(self.pool)))
        rows = [self._row(epoch, standing, announcing[epoch]) for epoch in epochs]
        gone = sorted(standing.revoked.keys() - set(epochs), reverse=True)
        rows += [KeyRow(one, "revoked", stored=False, key_id=standing.revoked[one]) for one in gone]
        rows = _with_current(sorted(rows, key=lambda row: -row.epoch), max(announcing, default=None))
        return KeySurvey(tuple(rows), standing, tuple((body.worker_id, body.epoch) for body in bodies))

    def give(self, kind: Kind, epoch: int | None, key: Ed25519PrivateKey) -> tuple[Order, KeySurvey]:
        """Sign and place an order; return it, and what was announced before.

        :param epoch: the one to end; None: the current one.
        :raises ConfigurationError: ``NOT_AN_OPERATOR``, ``NO_CURRENT_EPOCH``, ``LAST_TURN``.
        :raises DeliveryError: the blob store cannot be reached.
        """
        policy, now = self.trust.current(), int(self.trust.now())
        if key.public_key().public_bytes_raw().hex() not in policy.operators_of(self.pool):
            raise ConfigurationError(
                "NOT_AN_OPERATOR",
                "the trust policy names this key as no operator of this pool: workers would not obey it",
            )
        survey = self.survey()
        ended = survey.current if epoch is None else epoch
        if ended is None:
            raise ConfigurationError(
                "NO_CURRENT_EPOCH", "nothing trusted shows which epoch is current; name one: --epoch"
            )
        if next_epoch(max(ended, survey.standing.through)) is None:
            raise ConfigurationError("LAST_TURN", "the period has no epoch left; wait for the next")
        row = survey.row(ended)
        key_id = b"" if row is None else row.key_id
        order = survey.standing.next(self.pool, kind, ended, key_id, now)
        data = make_order(order, key)
        verify_order(data, pool=self.pool, policy=policy, newest_epoch=MAX_EPOCH, now=now)
        place_order(self.trust.blobs, self.pool, order.serial, data)
        return order, survey

    def wait(
        self, order: Order, before: KeySurvey, timeout_s: float, progress: Callable[[int, int], None]
    ) -> bool:
        """Return whether all workers that announced before have moved on; False when time runs out.

        Workers that leave meanwhile are not waited for.

        :param progress: called with how many have moved, and of how many.
        """
        waiting = {worker for worker, epoch in before.announced if epoch <= order.through}
        if not waiting:
            return True
        deadline = self.trust.now() + timeout_s
        while True:
            announced = self._announced()
            behind = {worker for worker in waiting if announced.get(worker, order.through) <= order.through}
            progress(len(waiting) - len(behind), len(waiting))
            # A revoked key's announcement is refused at once: somebody must announce the next one.
            if not behind:
                return True
            if self.trust.now() >= deadline:
                return False
            self.sleep(POLL_SECONDS)

    def _announced(self) -> dict[bytes, int]:
        fleet = self._fleet()
        if fleet is None:
            return {}
        return {worker.body.worker_id: worker.body.epoch for worker in fleet.workers.values()}

    def _fleet(self) -> VerifiedFleet | None:
        try:
            return self.trust.fleet(self.pool)
        except ConfigurationError:
            return None  # nobody has announced this pool
        except AppraisalError as error:
            if error.code == "NO_TRUSTED_WORKER":
                return None
            raise

    def _row(self, epoch: int, standing: Standing, workers: int) -> KeyRow:
        if epoch in standing.revoked:
            return KeyRow(epoch, "revoked", key_id=standing.revoked[epoch], workers=workers)
        try:
            found = self._born(epoch)
        except Error as error:
            if isinstance(error, DeliveryError) and error.retriable:
                raise
            return KeyRow(epoch, "refused", error.code, workers=workers)
        return KeyRow(
            epoch,
            "draining",
            suite=found.public_key.suite,
            key_id=found.public_key.key_id,
            born_at=found.created_at,
            born_by=found.receipt_key,
            workers=workers,
        )

    def _born(self, epoch: int) -> BirthCertificate:
        stored = StoredKey.decode(self.trust.blobs.get(key_name(self.pool, epoch)))
        found = verify_birth(
            stored.birth,
            pool=self.pool,
            wrapped=stored.wrapped,
            endorsements=self.trust.endorsements,
            policy=self.trust.current(),
            now=int(self.trust.now()),
        )
        if found.epoch != epoch:
            raise VerificationError("FLEET_KEY_EPOCH", "the stored fleet key is of another epoch")
        return found


def _with_current(rows: list[KeyRow], announced: int | None) -> list[KeyRow]:
    """Name the current one: what workers announce, or else the newest that is trusted."""
    trusted = [row.epoch for row in rows if row.state == "draining"]
    current = announced if announced in trusted else max(trusted, default=None)
    return [_stated(row, current) for row in rows]


def _stated(row: KeyRow, current: int | None) -> KeyRow:
    if row.state != "draining" or current is None or row.epoch < current:
        return row
    state: State = "current" if row.epoch == current else "unannounced"
    return KeyRow(
        row.epoch, state, row.code, row.stored, row.suite, row.key_id, row.born_at, row.born_by, row.workers
    )
