"""Attempts of the demo ``--hostile`` on keys: ask the KMS for them, and put the host's own in their place."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...attestation.attest.composite import BundleAttester
from ...attestation.key_release.aws import AwsKms
from ...attestation.key_release.aws_settings import AwsSettings
from ...attestation.key_release.birth import make_birth
from ...attestation.key_release.boto import kms_answer, make_client
from ...attestation.key_release.epochs import MAX_EPOCH, epoch_at
from ...attestation.key_release.order_store import read_orders
from ...attestation.key_release.orders import LIFETIME_S, Order, make_order
from ...attestation.key_release.stored import StoredKey, key_name, order_name
from ...attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ...wire.announcement import Announcement, AnnouncementBody, newest_prefix
from ...wire.encoding import sha256
from ...wire.errors import AppraisalError, Error
from ...wire.private_keys import PrivateKey
from ..lab import IMAGE, POOL
from .demo_scene import Met, NotMet, Scene

REGION: Final = "us-east-1"
DEADLINE_S: Final = 10.0
#: A pool that has no key yet.
PLANTED_POOL: Final = "planted"
DAY_S: Final = 86_400
#: How a worker's last line begins when its boot failed.
_ERROR: Final = re.compile(r"\berror ([A-Z][A-Z0-9_]+):")


def ask_without_attestation(scene: Scene) -> Met:
    """Ask the KMS to unwrap the pool's fleet key, with the worker's own credentials and no document."""
    wrapped = _stored(scene).wrapped
    key, secret = _credentials(scene)
    settings = AwsSettings(
        endpoint_url=scene.lab.endpoint, region=REGION, access_key_id=key, secret_access_key=secret
    )
    kms = make_client(settings)
    return _refused(
        lambda: kms_answer(
            lambda: kms.decrypt(
                KeyId="alias/fleet", CiphertextBlob=wrapped, EncryptionContext=_context(scene)
            )
        ),
        "no attestation, no key",
    )


def ask_from_another_image(scene: Scene) -> Met:
    """Ask for the fleet key from a genuine TEE that runs an image of the host's."""
    root = DevelopmentRoot.load(scene.lab.root)
    attester = SimulatedAttester(root, development_pcrs(IMAGE + "-modified"))
    return _refused(lambda: _ask(scene, attester), "genuine, but another measurement")


def ask_from_own_tee(scene: Scene) -> Met:
    """Ask for the fleet key with a document of the wanted measurements that the host signed itself."""
    attester = SimulatedAttester(DevelopmentRoot.create(), development_pcrs(IMAGE))
    return _refused(lambda: _ask(scene, attester), "right measurements under a root that nobody trusts")


def announce_own_key(scene: Scene) -> Met:
    """Put a key of the host's into a worker's announcement, and leave its genuine evidence."""
    genuine, _ = _announced(scene)
    body = replace(genuine.body, fleet_key=PrivateKey.generate().public_key)
    return _refused_fleet(scene, replace(genuine, body_bytes=body.encode()))


def announce_own_tee(scene: Scene) -> Met:
    """Announce a key of the host's with evidence of its own: right measurements, its own root."""
    genuine, _ = _announced(scene)
    receipt = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    body: AnnouncementBody = replace(
        genuine.body, fleet_key=PrivateKey.generate().public_key, receipt_key=receipt
    )
    attester = BundleAttester(SimulatedAttester(DevelopmentRoot.create(), development_pcrs(IMAGE)))
    bundle = attester.bundle(public_key=receipt, user_data=sha256(body.encode()))
    return _refused_fleet(scene, replace(genuine, body_bytes=body.encode(), bundle=bundle))


def plant_fleet_key(scene: Scene) -> Met:
    """Put a fleet key that the host knows where the next worker of a new pool will look for one."""
    epoch, key = epoch_at(time.time(), DAY_S), PrivateKey.generate()
    wrapped = secrets.token_bytes(200)
    birth = make_birth(
        pool=PLANTED_POOL,
        epoch=epoch,
        public_key=key.public_key,
        wrapped=wrapped,
        receipt_key=Ed25519PrivateKey.generate(),
        attester=BundleAttester(SimulatedAttester(DevelopmentRoot.create(), development_pcrs(IMAGE))),
        now=int(time.time()),
    )
    scene.host.blobs.put(key_name(PLANTED_POOL, epoch), StoredKey(wrapped, birth).encode())
    return _worker_refuses(scene)


def plant_another_pools_key(scene: Scene) -> Met:
    """Put the real key of one pool, certificate and all, in the place of another's."""
    epoch = epoch_at(time.time(), DAY_S)
    scene.host.blobs.put(key_name(PLANTED_POOL, epoch), _stored(scene).encode())
    return _worker_refuses(scene)


def revoke_in_the_operators_name(scene: Scene) -> Met:
    """Order the workers to drop their key, signed by the host."""
    now, epoch, blobs = int(time.time()), scene.fleet.epoch, scene.host.blobs
    revoked = ((epoch, scene.fleet.fleet_key.key_id),)
    order = Order(POOL, 1, "revoke", epoch, epoch, revoked, now, now + LIFETIME_S)
    signed = make_order(order, Ed25519PrivateKey.generate())
    name = order_name(POOL, 1, signed)
    blobs.put(name, signed)
    try:
        policy = scene.client.trust.current()
        obeyed, refused = read_orders(blobs, POOL, policy, newest_epoch=MAX_EPOCH, now=now)
        if obeyed or scene.client.trust_pool(POOL).epoch != epoch:
            raise NotMet("the order was obeyed")
        ((_, code),) = refused
    finally:
        blobs.delete(name)
    return Met(code, "nobody obeys; the key stays in use")


# ---------------------------------------------------------------------------- helpers


def _credentials(scene: Scene) -> tuple[str, str]:
    worker = scene.lab.about["principals"]["worker"]
    return worker["id"], worker["secret"]


def _context(scene: Scene) -> dict[str, str]:
    return {"purpose": "fleet", "pool": POOL, "epoch": str(scene.fleet.epoch)}


def _stored(scene: Scene) -> StoredKey:
    return StoredKey.decode(scene.host.blobs.get(key_name(POOL, scene.fleet.epoch)))


def _ask(scene: Scene, attester: SimulatedAttester) -> object:
    key, secret = _credentials(scene)
    kms = AwsKms(
        attester,
        "alias/fleet",
        endpoint_url=scene.lab.endpoint,
        region=REGION,
        access_key_id=key,
        secret_access_key=secret,
        deadline_s=DEADLINE_S,
    )
    try:
        return kms.decrypt(_stored(scene).wrapped, _context(scene))
    finally:
        kms.close()


def _refused(ask: Callable[[], object], words: str) -> Met:
    try:
        ask()
    except Error as error:
        return Met(error.code, words)
    raise NotMet("the KMS released the key")


def _announced(scene: Scene) -> tuple[Announcement, str]:
    """Return the pool's one announcement and its name."""
    (name,) = scene.host.blobs.list(newest_prefix(POOL))
    return Announcement.decode(scene.host.blobs.get(name)), name


def _refused_fleet(scene: Scene, forged: Announcement) -> Met:
    """Put a forged announcement in the place of the only one; the client must not seal to anybody."""
    genuine, name = _announced(scene)
    scene.host.blobs.put(name, forged.encode())
    try:
        scene.client.trust_pool(POOL)
    except AppraisalError as error:
        ((code, _),) = error.findings
        return Met(code, f"the client seals to nobody: {error.code}")
    finally:
        scene.host.blobs.put(name, genuine.encode())
    raise NotMet("the client would seal to the host's key")


def _worker_refuses(scene: Scene) -> Met:
    line = scene.start_worker(PLANTED_POOL)
    refused = _ERROR.search(line)
    if refused is None:
        raise NotMet("a worker uses the planted key")
    return Met(refused[1], "the worker does not use it, and announces nothing")
