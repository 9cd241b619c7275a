"""Private keys: 32-byte seeds, which is exactly what a KMS data key is.

Untrusted code (gateway, relay) may not import this module; import-linter holds that.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .errors import SealingError
from .keys import PublicKey, SuiteName, suite_named

SEED_BYTES: Final = 32
_KEM_X25519: Final = b"KEM" + (0x0020).to_bytes(2, "big")
HpkePrivateKey = hpke.MLKEM768X25519PrivateKey | X25519PrivateKey


class PrivateKey:
    """A recipient's private key; make one with :meth:`from_seed` or :meth:`generate`."""

    __slots__ = ("hpke_key", "public_key")

    def __init__(self, hpke_key: HpkePrivateKey, public_key: PublicKey) -> None:
        self.hpke_key = hpke_key
        self.public_key = public_key

    @classmethod
    def from_seed(cls, suite: SuiteName, seed: bytes) -> PrivateKey:
        """Expand a seed of 32 bytes.

        ``xwing``: SHAKE256 to 96 bytes (draft-connolly-cfrg-xwing-kem, section 5.2);
        ``x25519``: DeriveKeyPair (RFC 9180, section 7.1.3).

        :raises SealingError: when the seed has another length.
        """
        if len(seed) != SEED_BYTES:
            raise SealingError()
        name = suite_named(suite).name
        if name == "x25519":
            classical = X25519PrivateKey.from_private_bytes(_derive_x25519(seed))
            return cls(classical, PublicKey(name, classical.public_key().public_bytes_raw()))
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        classical = X25519PrivateKey.from_private_bytes(expanded[64:])
        raw = mlkem.public_key().public_bytes_raw() + classical.public_key().public_bytes_raw()
        return cls(hpke.MLKEM768X25519PrivateKey(mlkem, classical), PublicKey(name, raw))

    @classmethod
    def generate(cls, suite: SuiteName = "xwing") -> PrivateKey:
        """Make a key from fresh randomness."""
        return cls.from_seed(suite, secrets.token_bytes(SEED_BYTES))

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public_key.suite} {self.public_key.key_id.hex()[:16]}>"


def _derive_x25519(seed: bytes) -> bytes:
    prk = _hmac(b"", b"HPKE-v1" + _KEM_X25519 + b"dkp_prk" + seed)
    label = (32).to_bytes(2, "big") + b"HPKE-v1" + _KEM_X25519 + b"sk"
    return _hmac(prk, label + b"\x01")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key or bytes(32), data, "sha256")
