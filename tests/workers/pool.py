"""A pool's workers around one blob store and a real local KMS, called without its HTTP; the clock is ours."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.key_release.birth import BirthCertificate, make_birth, verify_birth
from ephemeralml.attestation.key_release.cms import open_enveloped
from ephemeralml.attestation.key_release.epochs import EpochRules
from ephemeralml.attestation.key_release.local_kms import (
    LocalKmsConfig,
    Principal,
    development_policies,
)
from ephemeralml.attestation.key_release.local_kms.service import KmsService
from ephemeralml.attestation.key_release.local_kms.sigv4 import canonical_request, sign
from ephemeralml.attestation.key_release.order_store import place_order, read_orders
from ephemeralml.attestation.key_release.orders import Kind, Order, Standing, make_order
from ephemeralml.attestation.key_release.protocol import DataKey
from ephemeralml.attestation.key_release.stored import StoredKey, key_name
from ephemeralml.attestation.policy import TrustPolicy
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.broker_config.blobs import BlobStore, LocalBlobStore
from ephemeralml.producer.lab import IMAGE, POOL, laboratory_policy
from ephemeralml.wire.errors import KeyReleaseError
from ephemeralml.wire.keys import PublicKey, SuiteName
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.workers.fleet_key import FleetKeys
from ephemeralml.workers.key_ring import KeyRing

RULES = EpochRules(epoch_seconds=3600, announcement_seconds=600, job_seconds=1200)
START = 1_800_000_000 - 1_800_000_000 % 3600 + 600
WORKER = Principal("worker", "AKIAWORKER00000000", "secret")

_keys = itertools.cycle([rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)])
_keys_lock = threading.Lock()


def recipient_key() -> rsa.RSAPrivateKey:
    """Return one of a few keys: making 2048-bit ones is most of a KMS call, and nothing here is about it."""
    with _keys_lock:
        return next(_keys)


@dataclass
class ServiceRelease:
    """A key release that hands its signed requests to the KMS's service, as its HTTP server would."""

    pool: Pool
    attester: SimulatedAttester

    def generate_data_key(self, context: Mapping[str, str]) -> DataKey:
        """See KeyRelease."""
        given = {"KeyId": "alias/fleet", "NumberOfBytes": 32}
        answer, plaintext = self._call("GenerateDataKey", given, context)
        return DataKey(plaintext, base64.b64decode(answer["CiphertextBlob"]))

    def decrypt(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """See KeyRelease."""
        given = {"KeyId": "alias/fleet", "CiphertextBlob": base64.b64encode(wrapped).decode()}
        return self._call("Decrypt", given, context)[1]

    def _call(
        self, operation: str, given: dict[str, Any], context: Mapping[str, str]
    ) -> tuple[dict[str, Any], bytes]:
        key = recipient_key()
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        document = base64.b64encode(self.attester.attest(public_key=spki)).decode()
        recipient = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}
        answer = self.pool.call(
            operation, {**given, "EncryptionContext": dict(context), "Recipient": recipient}
        )
        return answer, open_enveloped(base64.b64decode(answer["CiphertextForRecipient"]), key)


@dataclass
class Pool:
    """A KMS, a blob store and as many workers as a test wants."""

    folder: Path
    blobs: BlobStore
    policies: Mapping[str, Mapping[str, Any]] | None = None
    rules: EpochRules = RULES
    now: float = START
    calls: Counter[str] = field(default_factory=Counter)
    down: bool = False

    def __post_init__(self) -> None:
        self.root = DevelopmentRoot.create(now=START - 86_400)
        self.operator = Ed25519PrivateKey.generate()
        self.policy: TrustPolicy = laboratory_policy(
            self.root.fingerprint,
            IMAGE,
            "m",
            bytes(32),
            operator=self.operator.public_key().public_bytes_raw(),
        )
        policies = self.policies or development_policies(image_sha384=[development_pcrs(IMAGE)[0].hex()])
        config = LocalKmsConfig(
            self.folder / "kms", (self.root.fingerprint,), policies, {WORKER.name: WORKER}
        )
        self.kms = KmsService(config, now=lambda: self.now)
        self._lock = threading.Lock()

    def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sign a request as the worker's principal does, attested or not, and return the answer."""
        if self.down:
            raise KeyReleaseError("KMS_UNAVAILABLE", "the KMS cannot be reached", retriable=True)
        date = datetime.fromtimestamp(self.now, UTC).strftime("%Y%m%dT%H%M%SZ")
        data = json.dumps(body).encode()
        headers = {"host": "kms", "x-amz-date": date, "x-amz-target": f"TrentService.{operation}"}
        signature = sign(
            WORKER.secret_access_key, "us-east-1", canonical_request(headers, sorted(headers), data), date
        )
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={WORKER.access_key_id}/{date[:8]}/us-east-1/kms/aws4_request, "
            f"SignedHeaders={';'.join(sorted(headers))}, Signature={signature}"
        )
        with self._lock:
            self.calls[operation] += 1
            answer = self.kms.handle(headers, data)
        if answer.status != 200:
            raise KeyReleaseError("KMS_DENIED", "refused")
        return dict(answer.body)

    def attester(self, image: str = IMAGE, root: DevelopmentRoot | None = None) -> SimulatedAttester:
        """A TEE with this image."""
        return SimulatedAttester(root or self.root, development_pcrs(image), now=lambda: self.now)

    def birth(
        self,
        epoch: int,
        public_key: PublicKey,
        wrapped: bytes,
        *,
        pool: str = POOL,
        attester: SimulatedAttester | None = None,
    ) -> bytes:
        """Make a birth certificate in a TEE."""
        return make_birth(
            pool=pool,
            epoch=epoch,
            public_key=public_key,
            wrapped=wrapped,
            receipt_key=Ed25519PrivateKey.generate(),
            attester=BundleAttester(attester or self.attester()),
            now=int(self.now),
        )

    def check(self, birth: bytes, wrapped: bytes) -> BirthCertificate:
        """Verify a birth as every worker does."""
        return verify_birth(
            birth,
            pool=POOL,
            wrapped=wrapped,
            endorsements=endorsements_for(self.policy),
            policy=self.policy,
            now=int(self.now),
        )

    def release(self) -> ServiceRelease:
        """A worker's way to the KMS."""
        return ServiceRelease(self, self.attester())

    def keys(self, suite: SuiteName = "x25519") -> FleetKeys:
        """A worker's fleet keys."""
        return FleetKeys(POOL, suite, self.blobs, self.release(), self.rules, self.birth, self.check)

    def ring(self) -> Ring:
        """A worker's key ring."""
        return Ring(self)

    def plant(self, epoch: int, wrapped: bytes, birth: bytes) -> None:
        """Put a blob there as a host can."""
        self.blobs.put(key_name(POOL, epoch), StoredKey(wrapped, birth).encode())

    def stored(self, epoch: int) -> StoredKey:
        """What lies there."""
        return StoredKey.decode(self.blobs.get(key_name(POOL, epoch)))

    def orders(self) -> list[Order]:
        """The orders that workers obey."""
        newest = self.rules.newest(self.now)
        return read_orders(self.blobs, POOL, self.policy, newest_epoch=newest, now=int(self.now))[0]

    def order(
        self, kind: Kind, epoch: int, key_id: bytes = b"", *, key: Ed25519PrivateKey | None = None
    ) -> bytes:
        """Sign an order that comes after all others, and place it."""
        order = Standing().with_orders(self.orders()).next(POOL, kind, epoch, key_id, int(self.now))
        data = make_order(order, key or self.operator)
        place_order(self.blobs, POOL, order.serial, data)
        return data


class Ring(KeyRing):
    """A key ring with its opener, what it said, and a monotonic clock that a test may move."""

    def __init__(self, pool: Pool) -> None:
        self.said: list[str] = []
        self.opener = Opener([], "job")
        self.time = 100.0
        self.slept = 0.0

        @contextmanager
        def keys() -> Iterator[FleetKeys]:
            yield pool.keys()

        super().__init__(
            POOL,
            pool.blobs,
            self.opener,
            pool.rules,
            keys=keys,
            orders=pool.orders,
            now=lambda: pool.now,
            say=self.said.append,
            monotonic=lambda: self.time,
            sleep=self._sleep_for,
        )

    def _sleep_for(self, seconds: float) -> None:
        self.slept += seconds
        self.time += seconds

    @property
    def epochs(self) -> list[int]:
        """The epochs whose keys are held."""
        return sorted(held.key.epoch for held in self._held.values())


def local_pool(folder: Path, **values: Any) -> Pool:
    """A pool around a local blob store."""
    return Pool(folder, LocalBlobStore(folder / "blobs"), **values)


def host_key(suite: SuiteName = "x25519") -> tuple[bytes, PrivateKey]:
    """A seed that the host knows, and its key."""
    seed = b"k" * 32
    return seed, PrivateKey.from_seed(suite, seed)
