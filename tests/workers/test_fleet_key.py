"""Fleet keys: one per epoch, adopted by everyone, and no key that a host planted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pycddl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.key_release.aws import AwsKms
from ephemeralml.attestation.key_release.birth import make_birth, verify_birth
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.producer.lab import IMAGE, Lab, laboratory_policy
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import AppraisalError, Error, KeyReleaseError, VerificationError
from ephemeralml.wire.keys import PublicKey
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.workers.fleet_key import FleetKeys, epoch_at

POOL = "minilm"


class Pool:
    """A KMS, a blob store and as many workers as a test wants."""

    def __init__(self, lab: Lab, blobs: LocalBlobStore) -> None:
        self.lab, self.blobs = lab, blobs
        self.root = DevelopmentRoot.load(lab.root)
        self.policy = laboratory_policy(self.root.fingerprint, IMAGE, "m", bytes(32))

    def release(self, image: str = IMAGE) -> AwsKms:
        key = self.lab.about["principals"]["worker"]
        return AwsKms(
            SimulatedAttester(self.root, development_pcrs(image)),
            "alias/fleet",
            endpoint_url=self.lab.endpoint,
            region="us-east-1",
            access_key_id=key["id"],
            secret_access_key=key["secret"],
        )

    def birth(self, epoch: int, public_key: PublicKey, wrapped: bytes, image: str = IMAGE) -> bytes:
        return make_birth(
            pool=POOL,
            epoch=epoch,
            public_key=public_key,
            wrapped=wrapped,
            receipt_key=Ed25519PrivateKey.generate(),
            attester=BundleAttester(SimulatedAttester(self.root, development_pcrs(image))),
            now=int(time.time()),
        )

    def worker(self) -> FleetKeys:
        return FleetKeys(
            POOL,
            "x25519",
            self.blobs,
            self.release(),
            self.birth,
            lambda birth, wrapped: verify_birth(
                birth,
                pool=POOL,
                wrapped=wrapped,
                endorsements=endorsements_for(self.policy),
                policy=self.policy,
                now=int(time.time()),
            ),
        )

    def plant(self, epoch: int, wrapped: bytes, birth: bytes) -> None:
        self.blobs.put(f"fleet/{POOL}/{epoch}", encode([1, wrapped, birth]))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    lab = Lab.create(tmp_path / "lab")
    with lab.kms():
        yield Pool(lab, LocalBlobStore(tmp_path / "blobs"))


def test_second_worker_adopts_the_first_ones_key(pool: Pool) -> None:
    made, adopted = pool.worker().obtain(7), pool.worker().obtain(7)
    assert made.private_key.public_key == adopted.private_key.public_key
    assert made.birth == adopted.birth
    assert pool.worker().adopt(6) is None


def test_workers_that_start_at_once_end_with_one_key(pool: Pool) -> None:
    found: list[bytes] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        keys = pool.worker()
        barrier.wait()
        found.append(keys.obtain(1).private_key.public_key.raw)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_key_that_the_host_planted_is_refused(pool: Pool) -> None:
    """The host knows the seed and has a certificate, but of a TEE that the policy does not want."""
    planted = PrivateKey.generate("x25519")
    wrapped = os.urandom(100)
    pool.plant(1, wrapped, pool.birth(1, planted.public_key, wrapped, image="the-hosts-own"))
    with pytest.raises(AppraisalError):
        pool.worker().obtain(1)


def test_own_blob_under_a_genuine_certificate_is_refused(pool: Pool) -> None:
    pool.worker().obtain(1)
    match decode(pool.blobs.get(f"fleet/{POOL}/1")):
        case [1, bytes() as wrapped, bytes() as birth]:
            pool.plant(1, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), birth)
    with pytest.raises(VerificationError, match="BIRTH_WRONG_BLOB"):
        pool.worker().obtain(1)


def test_old_epochs_blob_put_back_is_refused(pool: Pool) -> None:
    pool.worker().obtain(1)
    pool.blobs.put(f"fleet/{POOL}/2", pool.blobs.get(f"fleet/{POOL}/1"))
    with pytest.raises(KeyReleaseError, match="FLEET_KEY_EPOCH"):
        pool.worker().obtain(2)


def test_certificate_that_lies_about_the_public_key_is_refused(pool: Pool) -> None:
    """Even a wanted worker cannot make others use a key that is not the released one."""
    data_key = pool.release().generate_data_key({"purpose": "fleet", "pool": POOL, "epoch": "3"})
    other = PrivateKey.generate("x25519")
    pool.plant(3, data_key.wrapped, pool.birth(3, other.public_key, data_key.wrapped))
    with pytest.raises(KeyReleaseError, match="FLEET_KEY_MISMATCH"):
        pool.worker().obtain(3)


@pytest.mark.parametrize("junk", [b"", b"\x80", b"\x83\x01\x41\x00\x41\x00", os.urandom(64)])
def test_junk_in_the_store_is_refused_by_our_errors(pool: Pool, junk: bytes) -> None:
    pool.blobs.put(f"fleet/{POOL}/1", junk)
    with pytest.raises(Error):
        pool.worker().obtain(1)


def test_grammar_of_the_specification(pool: Pool) -> None:
    grammar = (Path(__file__).parents[2] / "spec" / "fleet-key.cddl").read_text()
    pool.worker().obtain(1)
    stored = pool.blobs.get(f"fleet/{POOL}/1")
    match decode(stored):
        case [1, bytes(), bytes() as birth]:
            pass
        case _:
            pytest.fail("the stored fleet key is not of its form")
    match decode(birth):
        case [bytes() as envelope, [str(), bytes(), [], []]]:
            signed = decode_sign1(envelope)
        case _:
            pytest.fail("the birth certificate is not of its form")
    rules = {
        "stored-fleet-key": stored,
        "birth-certificate": birth,
        "birth-protected": signed.protected_bytes,
        "birth-payload": signed.payload,
    }
    for rule, data in rules.items():
        schema = pycddl.Schema(f"root = {rule}\n{grammar}")
        schema.validate_cbor(data)
        with pytest.raises(pycddl.ValidationError):
            schema.validate_cbor(encode({99: 1}))


def test_epochs_count_from_one() -> None:
    assert [epoch_at(now, 100) for now in (0, 99.9, 100, 250)] == [1, 1, 2, 3]
