"""Whose signature is on an outcome? The receipt keys of a pool's workers, from their announcements.

Without a trust policy a key is taken at the announcement's word: that holds against a broker, and not
against whoever writes the blob store too. With one, evidence is verified and appraised as clients do it.
Either way the client judges again; what is kept here is that a forged reply cannot take a real one's place.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ....attestation.announced import judge_announcement
from ....attestation.policy import TrustPolicy
from ....attestation.policy_source import PolicySource
from ....attestation.verify import Endorsements
from ....broker_config.blobs import BlobStore
from ....wire.announcement import Announcement, archive_name
from ....wire.errors import DeliveryError, Error, VerificationError

MAX_KEYS: Final = 4096
#: Evidence that nobody announced is asked for again after so many seconds; a flood of it costs one look each.
UNKNOWN_SECONDS: Final = 10.0
KNOWN_SECONDS: Final = 300.0


@dataclass
class WorkerKeys:
    """Finds receipt keys by pool and evidence; keeps the last 4096. For one thread.

    :param policy: which workers are wanted; None: whoever announces. :param endorsements: its roots.
    :param now: wall clock, Unix seconds.
    """

    blobs: BlobStore
    policy: PolicySource | None = None
    endorsements: Endorsements | None = None
    now: Callable[[], float] = time.time
    _known: OrderedDict[tuple[str, bytes], tuple[bytes | None, float]] = field(default_factory=OrderedDict)

    def __call__(self, pool: str, evidence_hash: bytes) -> bytes:
        """Return a raw Ed25519 key.

        :raises VerificationError: ``EVIDENCE_UNKNOWN``: nobody of that pool announced this evidence, or it is
            not genuine or not wanted. :raises DeliveryError: the blob store cannot be reached, or
            ``NO_POLICY_IN_FORCE``: nothing can be judged now.
        """
        place, now = (pool, evidence_hash), self.now()
        key, until = self._known.get(place, (None, 0.0))
        if now >= until:
            key = self._find(pool, evidence_hash, self._policy())
            self._known[place] = (key, now + (UNKNOWN_SECONDS if key is None else KNOWN_SECONDS))
            self._known.move_to_end(place)
            if len(self._known) > MAX_KEYS:
                self._known.popitem(last=False)
        if key is None:
            raise VerificationError(
                "EVIDENCE_UNKNOWN", "no wanted worker of this pool announced this evidence"
            )
        return key

    def _policy(self) -> TrustPolicy | None:
        try:
            return None if self.policy is None else self.policy.current(self.now())
        except Error as error:
            raise DeliveryError("NO_POLICY_IN_FORCE", f"replies cannot be judged: {error.code}") from None

    def _find(self, pool: str, evidence_hash: bytes, policy: TrustPolicy | None) -> bytes | None:
        try:
            announcement = Announcement.decode(self.blobs.get(archive_name(pool, evidence_hash)))
            if announcement.bundle.evidence_hash != evidence_hash or announcement.body.pool != pool:
                return None
            if policy is not None:
                assert self.endorsements is not None  # noqa: S101 - given with the policy
                judge_announcement(announcement, self.endorsements, policy, int(self.now()))
            return announcement.body.receipt_key
        except DeliveryError as error:
            if error.retriable:
                raise
            return None
        except Error:
            return None
