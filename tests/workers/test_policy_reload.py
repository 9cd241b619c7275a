"""A worker whose policy changes, ends or is damaged while it runs; nothing here sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.key_release.aws import AwsKms, owner_data_key
from ephemeralml.attestation.key_release.birth import BirthCertificate, make_birth, verify_birth
from ephemeralml.attestation.key_release.epochs import EpochRules, epoch_at
from ephemeralml.attestation.key_release.stored import StoredKey
from ephemeralml.attestation.nitro import MeasurementSet
from ephemeralml.attestation.policy import PoolOperator, TrustPolicy
from ephemeralml.attestation.policy_bundle import canonical_policy
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.producer.lab import IMAGE, Lab, laboratory_policy
from ephemeralml.receipts.claims import decode_claims
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.errors import ConfigurationError, DeliveryError, Error
from ephemeralml.wire.exit_codes import MISUSE, UNSOUND
from ephemeralml.wire.keys import PublicKey
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.workers.boot import Boot
from ephemeralml.workers.fleet_key import FleetKey, FleetKeys
from ephemeralml.workers.identity import WorkerIdentity
from ephemeralml.workers.job_task import JobTask
from ephemeralml.workers.models import folder_files, package_model
from ephemeralml.workers.pipeline import Pipeline
from ephemeralml.workers.policy import PolicyWatch, worker_policy
from ephemeralml.workers.settings import WorkerSettings

from ..attestation.policy.samples import DAY, ROOT, after, first
from ..models.forge import tensors

OWNER = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)


@dataclass
class Site:
    """A laboratory with a small model: what all tests share."""

    lab: Lab
    model: Path
    policy: TrustPolicy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    lab = Lab.create(folder / "lab")
    source = folder / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(tensors(a=b"weights"))
    key = lab.about["principals"]["owner"]
    with lab.kms():
        made = package_model(
            folder_files(source),
            folder / "model.eml",
            model_id="m",
            model_version="1",
            signing_key=OWNER,
            data_key=lambda context: owner_data_key(
                "alias/model",
                context,
                endpoint_url=lab.endpoint,
                region="us-east-1",
                access_key_id=key["id"],
                secret_access_key=key["secret"],
            ),
        )
        root = DevelopmentRoot.load(lab.root).fingerprint
        yield Site(lab, folder / "model.eml", laboratory_policy(root, IMAGE, "m", made.manifest_hash))


@dataclass
class Running:
    """A worker in this process, without its broker."""

    site: Site
    folder: Path
    lines: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    later: float = 0.0

    def __post_init__(self) -> None:
        self.blobs = LocalBlobStore(self.folder / "blobs")
        self.path = self.folder / "policy.bundle"
        self.start = int(time.time())
        self.times = {"issued_at": self.start, "not_before": self.start, "expires": self.start + DAY}
        self.last = first(policy=canonical_policy(self.site.policy), **self.times)
        self.path.write_bytes(self.last)

    def settings(self, **changes: object) -> WorkerSettings:
        key = self.site.lab.about["principals"]["worker"]
        values: dict[str, object] = {
            "pool": "minilm",
            "policy": self.path,
            "policy_root": ROOT.hex(),
            "policy_poll_seconds": 0,
            "model": self.site.model,
            "model_signer": OWNER.public_key().public_bytes_raw().hex(),
            "simulated_root": self.site.lab.root,
            "kms_endpoint": self.site.lab.endpoint,
            "kms_access_key_id": key["id"],
            "kms_secret_access_key": key["secret"],
            "backend": "noop",
            "suite": "x25519",
            **changes,
        }
        return WorkerSettings(**values)  # type: ignore[arg-type]

    def boot(self, **changes: object) -> Boot:
        boot = Boot(
            self.settings(**changes), self.blobs, now=lambda: time.time() + self.later, say=self.lines.append
        )
        self.identity = boot.run()
        self.watch = PolicyWatch(boot.reconsider, self._use, self.codes.append, self.lines.append)
        return boot

    def _use(self, identity: WorkerIdentity) -> None:
        self.identity = identity

    def publish(self, policy: TrustPolicy, **changes: object) -> None:
        """Offer the next version."""
        fields: dict[str, object] = {**self.times, "policy": canonical_policy(policy), **changes}
        self.last = after(self.last, **fields)  # type: ignore[arg-type]
        self.path.write_bytes(self.last)

    def refusing(self, what: str) -> TrustPolicy:
        """A policy that no longer wants this worker."""
        policy = self.site.policy
        if what == "model":
            return policy.model_copy(update={"models": ()})
        if what == "mode":
            return policy.model_copy(update={"security_modes": ("production",)})
        simulated = policy.platforms.simulated
        assert simulated is not None
        if what == "platform":
            change: object = None
        elif what == "root":
            change = simulated.model_copy(update={"root_fingerprint": "ab" * 32})
        else:
            change = simulated.model_copy(update={"measurement_sets": (other_image(),)})
        platforms = policy.platforms.model_copy(update={"simulated": change})
        return policy.model_copy(update={"platforms": platforms})


def other_image() -> MeasurementSet:
    registers = {f"pcr{index}": development_pcrs("other")[index].hex() for index in range(3)}
    return MeasurementSet(name="other", **registers)


@pytest.fixture
def running(site: Site, tmp_path: Path) -> Running:
    return Running(site, tmp_path)


def version_in(receipt: bytes) -> str:
    return decode_claims(decode_sign1(receipt).payload).policy_version


def receipt(identity: WorkerIdentity) -> bytes:
    return identity.receipt(
        request_hash=b"q" * 32, response_hash=b"r" * 32, nonce=b"n" * 16, now=1, execution_time_ms=1
    )


def test_receipts_state_the_policy_in_force(running: Running) -> None:
    running.boot()
    assert version_in(receipt(running.identity)) == "prod#1"
    running.publish(running.site.policy.model_copy(update={"version": "another"}))
    running.watch.admit()
    assert version_in(receipt(running.identity)) == "prod#2"
    assert running.lines == ["policy: POLICY_ACTIVATED: prod#2 is in force after prod#1"]
    assert running.codes == []


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("image", "MEASUREMENT_MISMATCH"),
        ("mode", "SECURITY_MODE_NOT_ALLOWED"),
        ("model", "MODEL_NOT_ALLOWED"),
        ("root", "UNKNOWN_ROOT"),
    ],
)
def test_a_policy_that_no_longer_wants_the_worker_ends_it(running: Running, what: str, code: str) -> None:
    running.boot()
    running.publish(running.refusing(what))
    for _ in range(3):
        with pytest.raises(DeliveryError, match="POLICY_ENDED") as caught:
            running.watch.admit()
        assert caught.value.retriable
    assert running.codes == [UNSOUND]
    assert code in running.lines[-1]
    assert version_in(receipt(running.identity)) == "prod#1"


def test_a_platform_that_is_withdrawn_ends_the_worker(running: Running) -> None:
    running.boot()
    running.publish(running.refusing("platform"))
    assert not running.watch.step()
    assert running.codes != [0]
    assert len(running.codes) == 1


def test_an_ended_worker_stays_ended(running: Running) -> None:
    running.boot()
    running.publish(running.refusing("model"))
    assert not running.watch.step()
    running.publish(running.site.policy)
    assert not running.watch.step()
    assert len(running.codes) == 1


def test_the_end_of_the_policy_ends_the_worker(running: Running) -> None:
    running.boot()
    running.watch.admit()
    running.later = DAY
    with pytest.raises(DeliveryError, match="POLICY_ENDED"):
        running.watch.admit()
    assert running.codes == [UNSOUND]
    assert "POLICY_EXPIRED" in running.lines[-1]


def test_a_successor_in_time_keeps_the_worker(running: Running) -> None:
    running.boot()
    running.publish(running.site.policy, expires=running.start + 2 * DAY)
    running.later = DAY
    running.watch.admit()
    assert version_in(receipt(running.identity)) == "prod#2"


def test_a_bad_bundle_is_said_and_changes_nothing(running: Running) -> None:
    boot = running.boot()
    running.path.write_bytes(b"torn")
    for _ in range(3):
        running.watch.admit()
    assert len(running.lines) == 1
    assert "prod#1 stays in force" in running.lines[0]
    assert boot.renew().policy_version == "prod#1"


def test_a_new_announcement_is_under_the_new_policy(running: Running) -> None:
    boot = running.boot()
    running.publish(running.site.policy)
    assert boot.renew().policy_version == "prod#2"
    assert boot.reconsider().policy_version == "prod#2"
    running.publish(running.refusing("model"))
    with pytest.raises(Error, match="MODEL_NOT_ALLOWED"):
        boot.renew()


def born_elsewhere(running: Running, image: str) -> None:
    """Put this epoch's fleet key where workers look, certified by a worker of another image."""
    root = DevelopmentRoot.load(running.site.lab.root)
    key = running.site.lab.about["principals"]["worker"]
    release = AwsKms(
        SimulatedAttester(root, development_pcrs(IMAGE)),
        "alias/fleet",
        endpoint_url=running.site.lab.endpoint,
        region="us-east-1",
        access_key_id=key["id"],
        secret_access_key=key["secret"],
    )

    def certify(epoch: int, public_key: PublicKey, wrapped: bytes) -> bytes:
        return make_birth(
            pool="minilm",
            epoch=epoch,
            public_key=public_key,
            wrapped=wrapped,
            receipt_key=Ed25519PrivateKey.generate(),
            attester=BundleAttester(SimulatedAttester(root, development_pcrs(image))),
            now=int(time.time()),
        )

    policy = laboratory_policy(root.fingerprint, image, "m", bytes(32))

    def check(birth: bytes, wrapped: bytes) -> BirthCertificate:
        return verify_birth(
            birth,
            pool="minilm",
            wrapped=wrapped,
            endorsements=endorsements_for(policy),
            policy=policy,
            now=int(time.time()),
        )

    rules = EpochRules(86_400, 43_200, 86_400)
    keys = FleetKeys("minilm", "x25519", running.blobs, release, rules, certify, check)
    keys.obtain(epoch_at(time.time(), 86_400))


def test_a_key_born_where_the_policy_no_longer_looks_ends_those_who_adopted_it(running: Running) -> None:
    """The maker's image is withdrawn, the adopter's own is still wanted: but the maker knows the key."""
    policy = running.site.policy
    born_elsewhere(running, "other")
    running.publish(wide(policy))
    running.boot()
    running.watch.admit()
    running.publish(policy)
    assert not running.watch.step()
    assert "MEASUREMENT_MISMATCH" in running.lines[-1]


def wide(policy: TrustPolicy) -> TrustPolicy:
    """A policy that wants one more image."""
    simulated = policy.platforms.simulated
    assert simulated is not None
    both = simulated.model_copy(update={"measurement_sets": (*simulated.measurement_sets, other_image())})
    return policy.model_copy(update={"platforms": policy.platforms.model_copy(update={"simulated": both})})


def birth_in(running: Running, image: str, key: PublicKey) -> StoredKey:
    root = DevelopmentRoot.load(running.site.lab.root)
    birth = make_birth(
        pool="minilm",
        epoch=epoch_at(time.time(), 86_400),
        public_key=key,
        wrapped=b"wrapped",
        receipt_key=Ed25519PrivateKey.generate(),
        attester=BundleAttester(SimulatedAttester(root, development_pcrs(image))),
        now=int(time.time()),
    )
    return StoredKey(b"wrapped", birth)


def test_a_key_is_adopted_under_the_policy_in_force_not_the_last_one_taken(running: Running) -> None:
    """A job can make a worker look for a key at any time, and between two looks the policy changes."""
    running.publish(wide(running.site.policy))
    boot = running.boot()
    stored = birth_in(running, "other", PrivateKey.from_seed("x25519", b"k" * 32).public_key)
    assert boot._check_birth(stored.birth, stored.wrapped)
    running.publish(running.site.policy)
    running.watch.admit()
    with pytest.raises(Error, match="MEASUREMENT_MISMATCH"):
        boot._check_birth(stored.birth, stored.wrapped)


def test_a_key_adopted_while_the_policy_changed_ends_the_worker(running: Running) -> None:
    boot = running.boot()
    running.watch.admit()
    private_key = PrivateKey.from_seed("x25519", b"k" * 32)
    stored = birth_in(running, "other", private_key.public_key)
    boot.ring._hold(FleetKey(private_key, epoch_at(time.time(), 86_400), stored, int(time.time())))
    assert not running.watch.step()
    assert "MEASUREMENT_MISMATCH" in running.lines[-1]


def test_refused_orders_are_said_by_code_not_by_the_hosts_names(running: Running) -> None:
    operator = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    operators = (PoolOperator(key=operator.hex(), pools=("minilm",)),)
    running.publish(running.site.policy.model_copy(update={"operators": operators}))
    boot = running.boot()
    running.lines.clear()
    for number in range(20):
        running.blobs.put(f"orders/minilm/{number}", b"junk")
        boot.tend_keys()
    assert running.lines == ["keys: an order was refused: CBOR_TRUNCATED"]
    assert len(boot._refused_orders) == 1


def test_batches_are_sealed_under_the_policy_in_force(running: Running) -> None:
    boot = running.boot()
    find = boot.evidence_keys()
    own = running.identity
    assert find(own.evidence_hash) == own.receipt_key.public_key().public_bytes_raw()
    running.publish(running.refusing("image"))
    with pytest.raises(Error, match="MEASUREMENT_MISMATCH"):
        find(own.evidence_hash)


def test_a_message_of_an_ended_worker_is_not_touched(running: Running) -> None:
    boot = running.boot()
    published: list[bytes] = []
    pipeline = Pipeline(running.identity, boot.opener, boot.runner, time.time, time.monotonic)
    task = JobTask(
        pipeline,
        running.blobs,
        lambda _, body: published.append(body),
        1 << 20,
        admit=running.watch.admit,
    )
    task(b"not a message")  # dropped, as ever
    running.publish(running.refusing("model"))
    with pytest.raises(DeliveryError, match="POLICY_ENDED"):
        task(b"not a message")
    assert task.in_work == 0
    assert published == []


def test_an_unexpected_fault_lets_in_no_message(running: Running) -> None:
    def fault() -> WorkerIdentity:
        raise ValueError("secret")

    watch = PolicyWatch(fault, running._use, running.codes.append, running.lines.append)
    with pytest.raises(DeliveryError, match="POLICY_ENDED"):
        watch.admit()
    assert running.codes == [MISUSE]
    assert running.lines == ["policy: an unexpected ValueError; no more messages are taken"]


def test_an_idle_worker_notices_too(running: Running) -> None:
    running.boot()
    running.publish(running.refusing("model"))
    running.watch.watch(threading.Event())  # returns at its first step
    assert running.codes == [UNSOUND]


def test_the_watch_leaves_when_the_worker_stops(running: Running) -> None:
    running.boot()
    stopping = threading.Event()
    stopping.set()
    running.watch.watch(stopping)
    assert running.codes == []


# ------------------------------------------------------------- at boot


@pytest.mark.parametrize("what", ["image", "model", "mode"])
def test_a_worker_that_its_policy_does_not_want_does_not_start(running: Running, what: str) -> None:
    running.publish(running.refusing(what))
    with pytest.raises(Error):
        running.boot()


def test_an_ended_policy_starts_no_worker(running: Running) -> None:
    running.later = DAY
    with pytest.raises(Error, match="POLICY_EXPIRED"):
        running.boot()


def test_a_plain_policy_is_for_simulation(running: Running) -> None:
    running.path.write_text(running.site.policy.to_json())
    running.boot(policy_root=None)
    assert version_in(receipt(running.identity)) == "laboratory-1"
    with pytest.raises(ConfigurationError, match="POLICY_NOT_SIGNED"):
        running.boot()


@pytest.mark.parametrize(("dangerous", "code"), [(False, "POLICY_NOT_SIGNED"), (True, None)])
def test_a_real_tee_needs_a_signed_policy(running: Running, dangerous: bool, code: str | None) -> None:
    running.path.write_text(running.site.policy.to_json())
    settings = running.settings(policy_root=None, dangerous_unsigned_policy=dangerous).model_copy(
        update={"platform": "nitro"}
    )
    if code is None:
        assert not worker_policy(settings, running.start, running.lines.append).in_force(0).signed
        return
    with pytest.raises(ConfigurationError, match=code):
        worker_policy(settings, running.start, running.lines.append)


def test_a_signed_policy_serves_a_real_tee(running: Running) -> None:
    settings = running.settings().model_copy(update={"platform": "nitro"})
    assert worker_policy(settings, running.start, running.lines.append).in_force(running.start).signed


def test_a_worker_remembers_over_restarts(running: Running, tmp_path: Path) -> None:
    old = running.last
    running.publish(running.site.policy)
    running.boot(policy_memory=tmp_path / "memory.json")
    running.path.write_bytes(old)
    with pytest.raises(Error, match="POLICY_DOWNGRADE"):
        running.boot(policy_memory=tmp_path / "memory.json")
