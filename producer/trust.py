"""From announcements to a fleet that jobs may be sealed to.

Trust is a type: only :class:`Trust` makes a :class:`VerifiedFleet`, and only to a
``VerifiedFleet`` can a job be sealed. Each announcement's evidence is verified
(genuine?), appraised against the policy (what I wanted?) and bound to the receipt
key and to the announcement; whatever fails is left out, with its reason kept.

A verdict holds as long as the policy that it was made under: each judgement asks
the source which policy is in force, and a policy that changed takes every verdict
of the old one with it. Results are judged by the policy in force when they are
judged, not by that of their submission: whoever withdraws trust from a release has
learned something that also holds for the answers it gave. Roots are not reloaded:
a policy names what is wanted, the roots say who can be believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..attestation.announced import judge_announcement
from ..attestation.appraise import Appraisal
from ..attestation.evidence import VerifiedEvidence
from ..attestation.key_release.epochs import MAX_EPOCH
from ..attestation.key_release.order_store import read_orders
from ..attestation.key_release.orders import Standing
from ..attestation.models import check_model
from ..attestation.policy import TrustPolicy
from ..attestation.policy_source import PolicySource
from ..attestation.verify import Endorsements
from ..broker_config.blobs import BlobStore
from ..wire.announcement import (
    Announcement,
    AnnouncementBody,
    ModelIdentity,
    archive_name,
    newest_prefix,
)
from ..wire.bundle import EvidenceBundle
from ..wire.errors import (
    AppraisalError,
    ConfigurationError,
    DeliveryError,
    EndorsementsError,
    Error,
    MalformedError,
    VerificationError,
)
from ..wire.header import check_pool
from ..wire.keys import PublicKey

_TOKEN: Final = object()
FLEET_SECONDS: Final = 60
"""How long a judged fleet is sealed to without another look at what its workers announce."""


@dataclass(frozen=True)
class VerifiedWorker:
    """One worker whose evidence is genuine, wanted and bound to its receipt key."""

    body: AnnouncementBody
    bundle: EvidenceBundle = field(repr=False)
    verified: VerifiedEvidence
    appraisal: Appraisal


@dataclass(frozen=True)
class VerifiedFleet:
    """A pool whose key may be sealed to; made by :meth:`Trust.fleet` only.

    :param workers: by SHA-256 of their evidence. :param refused: worker ids with the code that kept them out.
    :param policy: the one that it was judged under. :param judged_at: when, Unix seconds.
    """

    pool: str
    fleet_key: PublicKey
    epoch: int
    model: ModelIdentity
    workers: Mapping[bytes, VerifiedWorker]
    refused: tuple[tuple[str, str], ...]
    policy: TrustPolicy = field(repr=False)
    token: object = field(repr=False)
    judged_at: float = 0.0

    def __post_init__(self) -> None:
        if self.token is not _TOKEN:
            raise TypeError("a VerifiedFleet comes from Trust.fleet() only")


@dataclass
class Trust:
    """Judges announcements under the policy in force. Keeps what it has verified, while that stays so.

    :param now: wall clock, Unix seconds.
    """

    blobs: BlobStore
    policy: PolicySource
    endorsements: Endorsements
    now: Callable[[], float]
    _workers: dict[bytes, tuple[TrustPolicy, VerifiedWorker]] = field(default_factory=dict)

    def current(self) -> TrustPolicy:
        """Return the policy in force.

        :raises AppraisalError: ``POLICY_EXPIRED`` or ``POLICY_NOT_YET_VALID``: nothing is judged.
        """
        return self.policy.current(self.now())

    def renewed(self, fleet: VerifiedFleet) -> VerifiedFleet:
        """Return a fleet while its policy is in force and its key the newest; else judge the pool again.

        An order that ends its epoch is seen at once, what other workers announce after a minute.

        :raises Error: as :meth:`fleet`.
        """
        policy = self.current()
        young = 0 <= self.now() - fleet.judged_at < FLEET_SECONDS
        if young and fleet.policy == policy and fleet.epoch > self.standing(fleet.pool, policy).through:
            return fleet
        return self.fleet(fleet.pool)

    def standing(self, pool: str, policy: TrustPolicy) -> Standing:
        """Return what the pool's operators have ordered, as far as the store shows it.

        :raises DeliveryError: the blob store cannot be reached.
        """
        now = int(self.now())
        orders, _ = read_orders(self.blobs, pool, policy, newest_epoch=MAX_EPOCH, now=now)
        return Standing().with_orders(orders)

    def fleet(self, pool: str) -> VerifiedFleet:
        """Fetch, verify and appraise the announcements of a pool.

        :raises ConfigurationError: ``POOL_UNKNOWN``: nobody announced this pool.
        :raises AppraisalError: ``NO_TRUSTED_WORKER``: some did, none is trusted; findings say why. As
            :meth:`current`.
        :raises DeliveryError: the blob store cannot be reached.
        """
        policy = self.current()
        accepted: dict[bytes, VerifiedWorker] = {}
        refused: list[tuple[str, str]] = []
        names = sorted(self.blobs.list(newest_prefix(check_pool(pool))))
        revoked = self.standing(pool, policy).revoked
        for name in names:
            try:
                worker = self._worker_from(Announcement.decode(self.blobs.get(name)), pool, policy)
                self._check_fresh(worker, policy)
                _check_not_revoked(worker.body, revoked)
                accepted[worker.bundle.evidence_hash] = worker
            except Error as error:
                refused.append((name.rsplit("/", 1)[-1], error.code))
        if not names:
            raise ConfigurationError("POOL_UNKNOWN", f"no worker has announced the pool {pool!r}")
        if not accepted:
            raise AppraisalError(
                "NO_TRUSTED_WORKER",
                f"{len(refused)} announcement(s) for {pool!r}, none trusted: {_codes(refused)}",
                findings=tuple((code, worker) for worker, code in refused),
            )
        newest = max(accepted.values(), key=lambda worker: (worker.body.epoch, worker.body.issued_at)).body
        return VerifiedFleet(
            pool,
            newest.fleet_key,
            newest.epoch,
            newest.model,
            accepted,
            tuple(refused),
            policy,
            _TOKEN,
            self.now(),
        )

    def worker_from(self, announcement: Announcement, pool: str) -> VerifiedWorker:
        """Verify one announcement and appraise it at its own time.

        :raises Error: why it is not trusted.
        """
        return self._worker_from(announcement, pool, self.current())

    def _worker_from(self, announcement: Announcement, pool: str, policy: TrustPolicy) -> VerifiedWorker:
        evidence_hash = announcement.bundle.evidence_hash
        known = self._known(evidence_hash, policy)
        if known is None or known.body != announcement.body:
            known = self._judge(announcement, policy)
            self._workers[evidence_hash] = (policy, known)
        if known.body.pool != pool:
            raise VerificationError("ANNOUNCEMENT_POOL", "the announcement is for another pool")
        return known

    def worker(self, pool: str, evidence_hash: bytes) -> VerifiedWorker:
        """Return the trusted worker that was attested by this evidence, however old it is by now.

        :raises EndorsementsError: ``EVIDENCE_UNKNOWN``: nobody has announced it, or the store hides it.
        :raises DeliveryError: the blob store cannot be reached. :raises Error: why it is not trusted.
        """
        policy = self.current()
        known = self._known(evidence_hash, policy)
        if known is not None and known.body.pool == pool:
            return known
        try:
            announcement = Announcement.decode(self.blobs.get(archive_name(pool, evidence_hash)))
        except (DeliveryError, MalformedError) as error:
            if isinstance(error, DeliveryError) and error.code != "BLOB_MISSING":
                raise
            raise _unknown_evidence() from None
        if announcement.bundle.evidence_hash != evidence_hash:
            raise _unknown_evidence()
        return self._worker_from(announcement, pool, policy)

    def _known(self, evidence_hash: bytes, policy: TrustPolicy) -> VerifiedWorker | None:
        """Return a verdict of this policy; one of another policy is dropped."""
        under, worker = self._workers.get(evidence_hash, (None, None))
        if under is policy:
            return worker
        self._workers.pop(evidence_hash, None)
        return None

    def _check_fresh(self, worker: VerifiedWorker, policy: TrustPolicy) -> None:
        now = int(self.now())
        if worker.body.not_after < now:
            raise AppraisalError("ANNOUNCEMENT_EXPIRED", "the announcement has expired")
        attested_at = worker.verified.issued_at
        if now - (worker.body.issued_at if attested_at is None else attested_at) > policy.max_evidence_age_s:
            raise AppraisalError("EVIDENCE_STALE", "the evidence is older than the policy allows")

    def _judge(self, announcement: Announcement, policy: TrustPolicy) -> VerifiedWorker:
        # At its own time: a signing certificate lives hours. fleet() then holds its age against the policy.
        found = judge_announcement(announcement, self.endorsements, policy, int(self.now()))
        check_model(found.body.model, policy)
        return VerifiedWorker(found.body, found.bundle, found.verified.cpu, found.appraisal)


def _check_not_revoked(body: AnnouncementBody, revoked: Mapping[int, bytes]) -> None:
    if body.epoch in revoked or body.fleet_key.key_id in revoked.values():
        raise AppraisalError("KEY_REVOKED", "the announced fleet key is revoked")


def _unknown_evidence() -> EndorsementsError:
    return EndorsementsError("EVIDENCE_UNKNOWN", "nobody has announced this evidence")


def _codes(refused: list[tuple[str, str]]) -> str:
    return ", ".join(sorted({code for _, code in refused}))
