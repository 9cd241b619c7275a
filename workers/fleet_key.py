"""The fleet key of a pool and epoch: made once, adopted by everyone else.

The first worker asks the KMS for a data key as a TEE and stores the wrapped blob
together with its birth certificate in one conditional put; whoever loses that race
adopts the winner's. An adopter verifies the certificate *before* it uses the key
and checks that the unwrapped seed gives the certified public key: a key that the
host planted, or an old epoch's blob put back, is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..attestation.key_release.birth import BirthCertificate
from ..attestation.key_release.epochs import EpochRules
from ..attestation.key_release.protocol import KeyRelease
from ..attestation.key_release.stored import StoredKey, claim_name, fleet_context, key_name
from ..broker_config.blobs import BlobStore
from ..wire.errors import DeliveryError, Error, KeyReleaseError
from ..wire.keys import PublicKey, SuiteName
from ..wire.private_keys import PrivateKey

CLAIM_SECONDS: Final = 3.0
"""How long others wait for the worker that said it would make the key; then they make one too."""

CLAIM_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class FleetKey:
    """A fleet key in use: private half, epoch, and how it is stored.

    :param created_at: Unix seconds.
    """

    private_key: PrivateKey = field(repr=False)
    epoch: int
    stored: StoredKey = field(repr=False)
    created_at: int

    @property
    def birth(self) -> bytes:
        """Its stored birth certificate."""
        return self.stored.birth

    @property
    def key_id(self) -> bytes:
        """Its key id, 32 bytes."""
        return self.private_key.public_key.key_id


@dataclass(frozen=True)
class FleetKeys:
    """Obtains fleet keys for one pool.

    :param certify: makes a birth certificate for (epoch, public key, wrapped blob).
    :param check: verifies and appraises a stored certificate against the wrapped blob.
    :param monotonic: :param sleep: clock and pause, in seconds.
    """

    pool: str
    suite: SuiteName
    blobs: BlobStore
    release: KeyRelease
    rules: EpochRules
    certify: Callable[[int, PublicKey, bytes], bytes]
    check: Callable[[bytes, bytes], BirthCertificate]
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def obtain(self, epoch: int) -> FleetKey:
        """Return the epoch's key, making it when nobody has.

        :raises KeyReleaseError: the KMS refused, or the stored key is not what its certificate says:
            ``FLEET_KEY_EPOCH``, ``FLEET_KEY_TIME``, ``FLEET_KEY_MISMATCH``, ``FLEET_KEY_GONE``.
        :raises MalformedError: ``FLEET_KEY_FORM`` and those of the decoder.
        :raises VerificationError: the birth certificate is not genuine.
        :raises AppraisalError: it was made by a worker that the policy does not want.
        """
        stored = self._stored(epoch)
        if stored is None and not self._claim(epoch):
            stored = self._await(epoch)
        if stored is None:
            made = self._make_claimed(epoch)
            if made is not None:
                return made
            stored = self._stored(epoch)
            if stored is None:
                raise KeyReleaseError("FLEET_KEY_GONE", "the fleet key vanished while it was adopted")
        return self._adopt(epoch, stored)

    def adopt(self, epoch: int) -> FleetKey | None:
        """Return an epoch's key when there is one; never makes it.

        :raises Error: as :meth:`obtain`.
        """
        stored = self._stored(epoch)
        return None if stored is None else self._adopt(epoch, stored)

    def _claim(self, epoch: int) -> bool:
        """Return whether this worker should make the key: a hint that spares the KMS a crowd's calls."""
        return self.blobs.put_if_absent(claim_name(self.pool, epoch), b"\x01")

    def _await(self, epoch: int) -> StoredKey | None:
        end = self.monotonic() + CLAIM_SECONDS
        while (stored := self._stored(epoch)) is None and self.monotonic() < end:
            self.sleep(CLAIM_POLL_SECONDS)
        return stored

    def _make_claimed(self, epoch: int) -> FleetKey | None:
        try:
            return self._make(epoch)
        except Error:
            self.blobs.delete(claim_name(self.pool, epoch))  # nobody need wait for this worker
            raise

    def _make(self, epoch: int) -> FleetKey | None:
        data_key = self.release.generate_data_key(self._context(epoch))
        private_key = PrivateKey.from_seed(self.suite, data_key.plaintext)
        birth = self.certify(epoch, private_key.public_key, data_key.wrapped)
        stored = StoredKey(data_key.wrapped, birth)
        # What this TEE would not adopt from another must not come from it either.
        certificate = self._checked(epoch, stored)
        if not self.blobs.put_if_absent(key_name(self.pool, epoch), stored.encode()):
            return None
        return FleetKey(private_key, epoch, stored, certificate.created_at)

    def _adopt(self, epoch: int, stored: StoredKey) -> FleetKey:
        certificate = self._checked(epoch, stored)
        seed = self.release.decrypt(stored.wrapped, self._context(epoch))
        private_key = PrivateKey.from_seed(certificate.public_key.suite, seed)
        if private_key.public_key != certificate.public_key:
            raise KeyReleaseError("FLEET_KEY_MISMATCH", "the released key is not the certified one")
        return FleetKey(private_key, epoch, stored, certificate.created_at)

    def _checked(self, epoch: int, stored: StoredKey) -> BirthCertificate:
        certificate = self.check(stored.birth, stored.wrapped)
        if certificate.epoch != epoch:
            raise KeyReleaseError("FLEET_KEY_EPOCH", "the stored fleet key is of another epoch")
        if not self.rules.born_in_its_period(epoch, certificate.created_at):
            raise KeyReleaseError("FLEET_KEY_TIME", "the stored fleet key was not made in its epoch's time")
        return certificate

    def _stored(self, epoch: int) -> StoredKey | None:
        name = key_name(self.pool, epoch)
        if not self.blobs.exists(name):
            return None
        try:
            return StoredKey.decode(self.blobs.get(name))
        except DeliveryError as error:
            if error.code == "BLOB_MISSING":
                return None
            raise

    def _context(self, epoch: int) -> dict[str, str]:
        return fleet_context(self.pool, epoch)
