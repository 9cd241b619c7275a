"""Boot: attest, release, fetch, decrypt, load, announce. Returns only when jobs may be taken.

Each stage is timed and printed; what waits for the KMS, the disk or a compiler runs
side by side. Every failure ends in one line and a stable exit
code, with a queue that was not touched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..attestation.announced import Announced, judge_announcement
from ..attestation.key_release.aws import aws_patience
from ..attestation.key_release.birth import BirthCertificate, make_birth, verify_birth
from ..attestation.key_release.epochs import EpochRules
from ..attestation.key_release.order_store import read_orders
from ..attestation.key_release.orders import Order
from ..attestation.key_release.stored import StoredKey
from ..attestation.models import check_model
from ..attestation.policy import TrustPolicy
from ..attestation.verify import endorsements_for
from ..broker_config.blobs import BlobStore
from ..wire.announcement import Announcement, AnnouncementBody, ModelIdentity, archive_name, newest_prefix
from ..wire.encoding import sha256
from ..wire.errors import ConfigurationError, Error, KeyReleaseError
from ..wire.keys import PublicKey
from ..wire.opening import Opener
from .ahead import Ahead
from .attesters import make_attester
from .engines import EngineSettings, load_any_engine
from .fleet_key import FleetKey, FleetKeys
from .identity import WorkerIdentity
from .key_ring import KeyRing
from .models.fetch import FetchRules
from .models.open import LoadedModel, open_package
from .models.stores import StoreSettings
from .models.where import package_bytes
from .policy import worker_policy
from .release import ClosableRelease, make_release
from .runner import WorkersRunner, make_runner
from .seal_batch import EvidenceKeys
from .settings import WorkerSettings
from .stages import Stages, TimedReader

SETTLE_SECONDS: Final = 2.0
"""How long a boot that failed waits for what it had begun: the process may end right after."""


class Boot:
    """One worker's boot, and what it must do again while it runs.

    :param blobs: where announcements, evidence and wrapped keys lie (untrusted).
    :param now: wall clock, Unix seconds. :param say: prints a line for the operator.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        blobs: BlobStore,
        *,
        now: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.blobs = blobs
        self.now = now
        self.say = say
        self.stages = Stages()
        self.worker_id = os.urandom(16)
        self.opener = Opener([], "job")
        self._receipt_key = Ed25519PrivateKey.generate()
        self._receipt_public = self._receipt_key.public_key().public_bytes_raw()
        self._identity: WorkerIdentity
        self._announcement: Announcement
        self._judged_under: TrustPolicy | None = None
        self._judged_births: tuple[StoredKey, ...] = ()
        self._refused_orders: set[str] = set()
        self._rules = EpochRules(settings.epoch_seconds, settings.announcement_seconds, settings.job_seconds)
        self.ring = KeyRing(
            settings.pool,
            blobs,
            self.opener,
            self._rules,
            keys=self._fleet_keys,
            orders=self._orders,
            now=now,
            say=say,
        )
        # One for as long as the worker lives, so that its breaker remembers a KMS that keeps failing.
        self._patience = aws_patience(
            settings.kms_deadline_seconds,
            connect_timeout_s=settings.kms_connect_timeout_seconds,
            read_timeout_s=settings.kms_read_timeout_seconds,
        )
        self._lock = threading.Lock()

    def run(self) -> WorkerIdentity:
        """Run all stages; then :attr:`opener` and :attr:`runner` are ready for the pipeline.

        :raises Error: the stage's own error; nothing was taken off the queue.
        """
        with self.stages.stage("attest"):
            self._source = worker_policy(self.settings, self.now(), self.say)
            self._take_policy()
            self._attester = make_attester(self.settings)
        model = Ahead(self._open_model, "model")
        try:
            with self.stages.stage("release"):
                fleet_key = self.ring.open()
            self._model = model.result()
        except Error:
            model.settle(SETTLE_SECONDS)
            raise
        with self.stages.stage("load"):
            self.runner = self._load()
        with self.stages.stage("announce"):
            return self._announce(fleet_key)

    @property
    def announced_until(self) -> int:
        """When the last announcement expires, Unix seconds."""
        return self._announcement.body.not_after

    def tend_keys(self) -> None:
        """Obey new orders and follow the epochs; ``ring.moved`` says whether a new announcement is due.

        Without a key to announce, the standing announcement is withdrawn: nobody should seal to what was
        revoked.

        :raises Error: see :meth:`.key_ring.KeyRing.poll`; what could be done was done.
        """
        self._take_policy()
        try:
            self.ring.poll()
        finally:
            if self.ring.current is None:
                self.blobs.delete(newest_prefix(self.settings.pool) + self.worker_id.hex())

    def renew(self) -> WorkerIdentity:
        """Announce again with fresh evidence, under the current epoch's fleet key.

        :raises Error: why not; the last announcement stands until it expires.
        """
        self._take_policy()
        current = self.ring.current
        if current is None or self.ring.behind:
            raise KeyReleaseError("FLEET_KEY_BEHIND", "the current epoch's key is not there yet")
        return self._announce(current)

    def reconsider(self) -> WorkerIdentity:
        """Return who this worker is under the policy in force; a changed policy is held against it first.

        No network is needed: its last announcement is judged again, and so are the births of the fleet
        keys that it adopted. The next announcement is made in its own time.

        :raises AppraisalError: the policy has ended, or does not want this TEE, its model, or the TEE that
            a fleet key was born in. :raises Error: its evidence cannot be judged under the policy.
        """
        in_force = self._source.in_force(self.now())
        with self._lock:
            changed, births = in_force.policy is not self._judged_under, self.ring.births
            # Also what was adopted since: its birth may have been judged just before the policy changed.
            for stored in births:
                if changed or stored not in self._judged_births:
                    self._check_birth_under(stored.birth, stored.wrapped, in_force.policy)
            self._judged_births = births
            if changed:
                found = self._judged(self._announcement, in_force.policy)
                self._judged_under = in_force.policy
                mode = found.appraisal.security_mode
                self._identity = replace(self._identity, security_mode=mode, policy_version=in_force.label)
            return self._identity

    def evidence_keys(self) -> Callable[[bytes], bytes]:
        """Return what finds other workers' receipt keys, under this worker's policy."""
        keys = EvidenceKeys(self.blobs, self._in_force.policy, self.settings.pool, self.now)

        def find(evidence_hash: bytes) -> bytes:
            nonlocal keys
            policy = self._source.current(self.now())
            if keys.policy is not policy:
                keys = EvidenceKeys(self.blobs, policy, self.settings.pool, self.now)
            return keys(evidence_hash)

        return find

    def _take_policy(self) -> None:
        self._in_force = self._source.in_force(self.now())

    # ---------------------------------------------------------------- stages

    def _kms(self, key_id: str) -> ClosableRelease:
        return make_release(self.settings, self._attester, key_id, self._patience)

    @contextmanager
    def _fleet_keys(self) -> Iterator[FleetKeys]:
        """Reach the KMS for fleet keys; the connections are dropped afterwards."""
        settings = self.settings
        release = self._kms(settings.fleet_key_id)
        try:
            yield FleetKeys(
                settings.pool,
                settings.suite,
                self.blobs,
                release,
                self._rules,
                self._certify,
                self._check_birth,
            )
        finally:
            release.close()

    def _orders(self) -> list[Order]:
        """Return the orders to obey, under the policy in force: a job may ask long after the last look."""
        orders, refused = read_orders(
            self.blobs,
            self.settings.pool,
            self._source.current(self.now()),
            newest_epoch=self._rules.newest(self.now()),
            now=int(self.now()),
        )
        # By code: names are the host's, who may make new ones for ever.
        codes = {code for _, code in refused}
        for code in sorted(codes - self._refused_orders):
            self.say(f"keys: an order was refused: {code}")
        self._refused_orders = codes
        return orders

    def _certify(self, epoch: int, public_key: PublicKey, wrapped: bytes) -> bytes:
        return make_birth(
            pool=self.settings.pool,
            epoch=epoch,
            public_key=public_key,
            wrapped=wrapped,
            receipt_key=self._receipt_key,
            attester=self._attester,
            now=int(self.now()),
        )

    def _check_birth(self, birth: bytes, wrapped: bytes) -> BirthCertificate:
        return self._check_birth_under(birth, wrapped, self._source.current(self.now()))

    def _check_birth_under(self, birth: bytes, wrapped: bytes, policy: TrustPolicy) -> BirthCertificate:
        return verify_birth(
            birth,
            pool=self.settings.pool,
            wrapped=wrapped,
            endorsements=endorsements_for(policy),
            policy=policy,
            now=int(self.now()),
        )

    def _judged(self, announcement: Announcement, policy: TrustPolicy) -> Announced:
        """Judge this worker itself: one that is refused would only make receipts that nobody accepts."""
        found = judge_announcement(announcement, endorsements_for(policy), policy, int(self.now()))
        check_model(found.body.model, policy)
        return found

    def _open_model(self) -> LoadedModel:
        """Fetch and decrypt the model; its key is released beside the fleet key."""
        started, released = time.perf_counter(), 0.0
        release = self._kms(self.settings.model_key_id)

        def decrypt(wrapped: bytes, context: Mapping[str, str]) -> bytes:
            nonlocal released
            # Before the key: a model that the policy does not want is not even asked for.
            found = ModelIdentity(context["model"], "", bytes.fromhex(context["manifest"]))
            check_model(found, self._in_force.policy)
            asked = time.perf_counter()
            try:
                return release.decrypt(wrapped, context)
            finally:
                released = time.perf_counter() - asked

        settings, pin = self.settings, self.settings.model_manifest_hash
        stores = StoreSettings(settings.model_s3_endpoint, settings.model_gcs_endpoint, settings.kms_region)
        try:
            with package_bytes(
                settings.model, stores, FetchRules(deadline_s=settings.model_deadline_seconds)
            ) as file:
                model = open_package(
                    cast("BinaryIO", TimedReader(file, self.stages, "fetch")),
                    decrypt,
                    trusted_signers=(bytes.fromhex(settings.model_signer),),
                    expected_manifest_hash=None if pin is None else bytes.fromhex(pin),
                )
        finally:
            release.close()
        whole = time.perf_counter() - started
        self.stages.add("decrypt", whole - released - self.stages.seconds.get("fetch", 0.0))
        return model

    def _load(self) -> WorkersRunner:
        settings = self.settings
        limits = EngineSettings(
            precision=settings.precision,
            threads=settings.threads or None,
            context_tokens=settings.context_tokens or None,
            cache_tokens=settings.cache_tokens or None,
            max_sequences=settings.max_sequences,
            gpu_memory_gib=settings.gpu_memory_gib or None,
            require_cc=settings.platform != "simulated",
            plugins=settings.engine_plugins,
        )
        engine = load_any_engine(settings.backend, self._model.files, limits)
        if notice := getattr(engine, "notice", ""):
            self.say(f"engine: {notice}")
        return make_runner(engine)

    def _announce(self, fleet_key: FleetKey) -> WorkerIdentity:
        in_force = self._in_force
        now, pool, manifest = int(self.now()), self.settings.pool, self._model.manifest
        model = ModelIdentity(manifest.model_id, manifest.model_version, self._model.manifest_hash)
        body = AnnouncementBody(
            pool=pool,
            worker_id=self.worker_id,
            fleet_key=fleet_key.private_key.public_key,
            epoch=fleet_key.epoch,
            receipt_key=self._receipt_public,
            model=model,
            tasks=self.runner.tasks,
            engine=self.runner.engine_info,
            issued_at=now,
            not_after=now + self.settings.announcement_seconds,
            security_mode="evaluation" if self._attester.platform == "simulated" else "production",
        ).encode()
        bundle = self._attester.bundle(public_key=self._receipt_public, user_data=sha256(body))
        announcement = Announcement(body, bundle, fleet_key.birth)
        found = self._judged(announcement, in_force.policy)
        measurements = found.verified.cpu.measurements
        if measurements is None:
            raise ConfigurationError("NO_MEASUREMENTS", "this platform's evidence cannot stand in a receipt")
        # First the place that results are judged by, then the one that jobs are sealed by.
        self.blobs.put(archive_name(pool, bundle.evidence_hash), announcement.encode())
        self.blobs.put(newest_prefix(pool) + self.worker_id.hex(), announcement.encode())
        identity = WorkerIdentity(
            pool=pool,
            worker_id=self.worker_id,
            issuer=self.settings.issuer,
            receipt_key=self._receipt_key,
            model=model,
            engine=self.runner.engine_info,
            tasks=self.runner.tasks,
            evidence_hash=bundle.evidence_hash,
            measurements=measurements,
            security_mode=found.appraisal.security_mode,
            policy_version=in_force.label,
        )
        with self._lock:
            self._announcement, self._identity, self._judged_under = announcement, identity, in_force.policy
        if self.ring.current is fleet_key:
            self.ring.moved.clear()
        return identity
