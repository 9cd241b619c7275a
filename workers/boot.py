"""Boot: attest, release, load, announce. Returns only when jobs may be taken.

Each stage is timed and printed. Every failure ends in one line and a stable exit
code, with a queue that was not touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..attestation.appraise import appraise
from ..attestation.attest import Attester
from ..attestation.key_release.aws import AwsKms
from ..attestation.key_release.birth import make_birth, verify_birth
from ..attestation.policy import TrustPolicy, load_policy
from ..attestation.verify import Endorsements, endorsements_for, verify_evidence
from ..broker_config.blobs import BlobStore, put_content
from ..wire.announcement import Announcement, AnnouncementBody, ModelIdentity
from ..wire.encoding import sha256
from ..wire.errors import ConfigurationError
from ..wire.keys import PublicKey
from ..wire.opening import Opener
from .attesters import make_attester
from .engines import MicroBatcher, load_engine
from .fleet_key import FleetKey, FleetKeys, epoch_at
from .identity import WorkerIdentity
from .models.open import LoadedModel, open_package
from .runner import EmbedRunner
from .settings import WorkerSettings

READ_BYTES: Final = 1 << 20


@dataclass
class Stages:
    """Times of boot's stages, in seconds, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def __str__(self) -> str:
        return " ".join(f"{name} {seconds:.2f}s" for name, seconds in self.seconds.items())


@dataclass(frozen=True)
class Booted:
    """What boot hands to the pipeline."""

    identity: WorkerIdentity
    opener: Opener
    runner: RunnerHandle
    announcement: str
    epoch: int


@dataclass(frozen=True)
class RunnerHandle:
    """The runner and how to close it."""

    run: EmbedRunner
    batcher: MicroBatcher


class Boot:
    """One worker's boot, step by step.

    :param blobs: where announcements, evidence and wrapped keys lie (untrusted).
    """

    def __init__(self, settings: WorkerSettings, blobs: BlobStore, *, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.blobs = blobs
        self.now = now
        self.stages = Stages()
        self.receipt_key = Ed25519PrivateKey.generate()
        self.receipt_public = self.receipt_key.public_key().public_bytes_raw()
        self.worker_id = os.urandom(16)

    def run(self) -> Booted:
        """Run all stages.

        :raises Error: the stage's own error; nothing was taken off the queue.
        """
        with self.stages.stage("attest"):
            policy = _read_policy(self.settings)
            endorsements = endorsements_for(policy)
            attester = make_attester(self.settings)
        with self.stages.stage("release"):
            fleet_key = self._fleet_key(attester, policy, endorsements)
        with self.stages.stage("model"):
            model = self._model(attester)
        with self.stages.stage("load"):
            runner = self._runner(model)
        with self.stages.stage("announce"):
            return self._announce(attester, policy, endorsements, fleet_key, model, runner)

    # ---------------------------------------------------------------- stages

    def _kms(self, attester: Attester, key_id: str) -> AwsKms:
        settings = self.settings
        secret = settings.kms_secret_access_key
        return AwsKms(
            attester,
            key_id,
            endpoint_url=settings.kms_endpoint,
            region=settings.kms_region,
            access_key_id=settings.kms_access_key_id,
            secret_access_key=None if secret is None else secret.get_secret_value(),
        )

    def _fleet_key(self, attester: Attester, policy: TrustPolicy, endorsements: Endorsements) -> FleetKey:
        settings = self.settings

        def certify(epoch: int, public_key: PublicKey, wrapped: bytes) -> bytes:
            return make_birth(
                pool=settings.pool,
                epoch=epoch,
                public_key=public_key,
                wrapped=wrapped,
                receipt_key=self.receipt_key,
                attester=attester,
                now=int(self.now()),
            )

        keys = FleetKeys(
            settings.pool,
            settings.suite,
            self.blobs,
            self._kms(attester, settings.fleet_key_id),
            certify,
            lambda birth, wrapped: verify_birth(
                birth,
                pool=settings.pool,
                wrapped=wrapped,
                endorsements=endorsements,
                policy=policy,
                now=int(self.now()),
            ),
        )
        epoch = epoch_at(self.now(), settings.epoch_seconds)
        self._previous = keys.adopt(epoch - 1)
        return keys.obtain(epoch)

    def _model(self, attester: Attester) -> LoadedModel:
        release = self._kms(attester, self.settings.model_key_id)
        try:
            with self.settings.model.open("rb") as file:
                return open_package(
                    file,
                    lambda wrapped, context: release.decrypt(wrapped, context),
                    trusted_signers=(bytes.fromhex(self.settings.model_signer),),
                    expected_manifest_hash=None,
                )
        except OSError as error:
            raise ConfigurationError("MODEL_UNREADABLE", f"cannot read the model: {error.strerror}") from None

    def _runner(self, model: LoadedModel) -> RunnerHandle:
        settings = self.settings
        engine = load_engine(
            settings.backend, model.files, precision=settings.precision, threads=settings.threads or None
        )
        batcher = MicroBatcher(engine)
        return RunnerHandle(EmbedRunner(batcher), batcher)

    def _announce(
        self,
        attester: Attester,
        policy: TrustPolicy,
        endorsements: Endorsements,
        fleet_key: FleetKey,
        model: LoadedModel,
        runner: RunnerHandle,
    ) -> Booted:
        now = int(self.now())
        identity_of_model = ModelIdentity(
            model.manifest.model_id, model.manifest.model_version, model.manifest_hash
        )
        body = AnnouncementBody(
            pool=self.settings.pool,
            worker_id=self.worker_id,
            fleet_key=fleet_key.private_key.public_key,
            epoch=fleet_key.epoch,
            receipt_key=self.receipt_public,
            model=identity_of_model,
            tasks=runner.run.tasks,
            engine=runner.run.engine_info,
            issued_at=now,
            not_after=now + self.settings.announcement_seconds,
            security_mode="evaluation" if attester.platform == "simulated" else "production",
        ).encode()
        evidence = attester.attest(public_key=self.receipt_public, user_data=sha256(body))
        verified = verify_evidence(attester.platform, evidence, endorsements, now)
        appraisal = appraise(verified, policy, now)
        name = f"announcements/{self.settings.pool}/{self.worker_id.hex()}"
        put_content(self.blobs, evidence)
        self.blobs.put(name, Announcement(body, attester.platform, evidence, fleet_key.birth).encode())
        identity = WorkerIdentity(
            pool=self.settings.pool,
            worker_id=self.worker_id,
            issuer=self.settings.issuer,
            receipt_key=self.receipt_key,
            model=identity_of_model,
            engine=runner.run.engine_info,
            tasks=runner.run.tasks,
            evidence_hash=sha256(evidence),
            measurements=verified.measurements,
            security_mode=appraisal.security_mode,
            policy_version=policy.version,
        )
        keys = [fleet_key, *([self._previous] if self._previous else [])]
        opener = Opener([key.private_key for key in keys], "job")
        return Booted(identity, opener, runner, name, fleet_key.epoch)


def _read_policy(settings: WorkerSettings) -> TrustPolicy:
    try:
        return load_policy(settings.policy.read_bytes())
    except OSError as error:
        raise ConfigurationError("POLICY_UNREADABLE", f"cannot read the policy: {error.strerror}") from None
