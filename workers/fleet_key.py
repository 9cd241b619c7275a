"""The fleet key of a pool and epoch: made once, adopted by everyone else.

The first worker asks the KMS for a data key as a TEE and stores the wrapped blob
together with its birth certificate in one conditional put; whoever loses that race
adopts the winner's. An adopter verifies the certificate *before* it uses the key
and checks that the unwrapped seed gives the certified public key: a key that the
host planted, or an old epoch's blob put back, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..attestation.key_release.birth import BirthCertificate
from ..attestation.key_release.protocol import KeyRelease
from ..broker_config.blobs import BlobStore
from ..wire.encoding import decode, encode
from ..wire.errors import KeyReleaseError, MalformedError
from ..wire.keys import PublicKey, SuiteName
from ..wire.private_keys import PrivateKey

VERSION: Final = 1
MAX_STORED_BYTES: Final = 131_072


@dataclass(frozen=True)
class FleetKey:
    """A fleet key in use: private half, epoch (counted from 1), its stored birth certificate."""

    private_key: PrivateKey = field(repr=False)
    epoch: int
    birth: bytes


@dataclass(frozen=True)
class FleetKeys:
    """Obtains fleet keys for one pool.

    :param certify: makes a birth certificate for (epoch, public key, wrapped blob).
    :param check: verifies and appraises a stored certificate against the wrapped blob.
    """

    pool: str
    suite: SuiteName
    blobs: BlobStore
    release: KeyRelease
    certify: Callable[[int, PublicKey, bytes], bytes]
    check: Callable[[bytes, bytes], BirthCertificate]

    def obtain(self, epoch: int) -> FleetKey:
        """Return the epoch's key, making it when nobody has.

        :raises KeyReleaseError: the KMS refused, or the stored key is not what its certificate says.
        :raises VerificationError: the birth certificate is not genuine.
        :raises AppraisalError: it was made by a worker that the policy does not want.
        """
        stored = self._stored(epoch)
        if stored is None:
            made = self._make(epoch)
            if made is not None:
                return made
            stored = self._stored(epoch)
            if stored is None:
                raise KeyReleaseError("FLEET_KEY_GONE", "the fleet key vanished while it was adopted")
        return self._adopt(epoch, *stored)

    def adopt(self, epoch: int) -> FleetKey | None:
        """Return an epoch's key when there is one; never makes it.

        :raises Error: as :meth:`obtain`.
        """
        stored = self._stored(epoch)
        return None if stored is None else self._adopt(epoch, *stored)

    def _make(self, epoch: int) -> FleetKey | None:
        data_key = self.release.generate_data_key(self._context(epoch))
        private_key = PrivateKey.from_seed(self.suite, data_key.plaintext)
        birth = self.certify(epoch, private_key.public_key, data_key.wrapped)
        if not self.blobs.put_if_absent(self._name(epoch), encode([VERSION, data_key.wrapped, birth])):
            return None
        return FleetKey(private_key, epoch, birth)

    def _adopt(self, epoch: int, wrapped: bytes, birth: bytes) -> FleetKey:
        certificate = self.check(birth, wrapped)
        if certificate.epoch != epoch:
            raise KeyReleaseError("FLEET_KEY_EPOCH", "the stored fleet key is of another epoch")
        seed = self.release.decrypt(wrapped, self._context(epoch))
        private_key = PrivateKey.from_seed(certificate.public_key.suite, seed)
        if private_key.public_key != certificate.public_key:
            raise KeyReleaseError("FLEET_KEY_MISMATCH", "the released key is not the certified one")
        return FleetKey(private_key, epoch, birth)

    def _stored(self, epoch: int) -> tuple[bytes, bytes] | None:
        name = self._name(epoch)
        if not self.blobs.exists(name):
            return None
        match decode(self.blobs.get(name), max_bytes=MAX_STORED_BYTES):
            case [1, bytes() as wrapped, bytes() as birth]:
                return wrapped, birth
        raise MalformedError("WRONG_TYPE", "the stored fleet key is not of its form")

    def _name(self, epoch: int) -> str:
        return f"fleet/{self.pool}/{epoch}"

    def _context(self, epoch: int) -> dict[str, str]:
        return {"purpose": "fleet", "pool": self.pool, "epoch": str(epoch)}


def epoch_at(now: float, epoch_seconds: int) -> int:
    """Return the epoch that ``now`` (Unix seconds) falls in."""
    return int(now) // epoch_seconds + 1
