"""Public keys that messages are sealed to, their suites and key ids.

A suite is an HPKE ciphersuite (RFC 9180) in its COSE key-encryption form
(draft-ietf-cose-hpke). ``xwing`` is the default: what lies in a queue is
recorded today and attacked later. Algorithm numbers outside the registry are
from COSE's private range and named in spec/wire.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Literal

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from .encoding import encode, sha256
from .errors import MalformedError
from .fields import Fields

SuiteName = Literal["xwing", "x25519"]
HpkePublicKey = hpke.MLKEM768X25519PublicKey | X25519PublicKey

KTY_OKP: Final = 1
KTY_AKP: Final = 7
CRV_X25519: Final = 4
_MLKEM_PUBLIC_BYTES: Final = 1184


@dataclass(frozen=True, slots=True)
class Suite:
    """One ciphersuite: its COSE algorithm number and its sizes in bytes."""

    name: SuiteName
    algorithm: int
    public_bytes: int
    encapsulated_bytes: int
    hpke: hpke.Suite


SUITES: Final[dict[str, Suite]] = {
    # MLKEM768_X25519 is X-Wing (KEM 0x647a); the number is from the private range.
    "xwing": Suite(
        "xwing",
        -70_001,
        1216,
        1120,
        hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    ),
    # HPKE-4-KE: X25519, HKDF-SHA256, ChaCha20-Poly1305.
    "x25519": Suite(
        "x25519",
        50,
        32,
        32,
        hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305),
    ),
}


def suite_named(name: str) -> Suite:
    """Return a suite by name.

    :raises MalformedError: ``UNKNOWN_SUITE``.
    """
    try:
        return SUITES[name]
    except KeyError:
        raise MalformedError("UNKNOWN_SUITE", "the suite is neither xwing nor x25519") from None


@dataclass(frozen=True)
class PublicKey:
    """A recipient's public key.

    :param suite: ``"xwing"`` or ``"x25519"``.
    :param raw: 1184 bytes ML-KEM-768 then 32 bytes X25519; or 32 bytes X25519.
    :raises MalformedError: ``UNKNOWN_SUITE`` or ``BAD_PUBLIC_KEY``.
    """

    suite: SuiteName
    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != suite_named(self.suite).public_bytes:
            raise MalformedError("BAD_PUBLIC_KEY", "a public key has the wrong length")
        _ = self.hpke_key

    @cached_property
    def key_id(self) -> bytes:
        """The 32-byte SHA-256 COSE key thumbprint (RFC 9679) of the required parameters."""
        if self.suite == "x25519":
            return sha256(encode({1: KTY_OKP, -1: CRV_X25519, -2: self.raw}))
        return sha256(encode({1: KTY_AKP, 3: SUITES[self.suite].algorithm, -1: self.raw}))

    @cached_property
    def hpke_key(self) -> HpkePublicKey:
        """The key as the HPKE library wants it."""
        try:
            if self.suite == "x25519":
                return X25519PublicKey.from_public_bytes(self.raw)
            return hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM_PUBLIC_BYTES]),
                X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC_BYTES:]),
            )
        except ValueError:
            raise MalformedError("BAD_PUBLIC_KEY", "a public key is not valid") from None

    def to_map(self) -> dict[int, object]:
        """Return the CBOR map ``{1: suite, 2: key bytes}``."""
        return {1: self.suite, 2: self.raw}

    @classmethod
    def from_map(cls, value: object) -> PublicKey:
        """Read what :meth:`to_map` makes.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(value, "public key", (1, 2))
        suite = suite_named(fields.text(1, 1, 16))
        return _validated(suite.name, fields.octets(2, suite.public_bytes))


@lru_cache(maxsize=1024)
def _validated(suite: SuiteName, raw: bytes) -> PublicKey:
    """Return one object per key: a batch names the same reply key in every job."""
    return PublicKey(suite, raw)
