"""Who signed a token, by either way: a key of the issuer's JWKS, or a chain to the root."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from .chain import VerifiedChain
from .claims import MAX_TIME
from .endorsements import SigningKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may sign tokens.

    :param anchor: SHA-256 of the root certificate, or the key's JWK thumbprint (RFC 7638), 32 bytes.
    :param not_before: :param not_after: when the key itself may sign, Unix seconds.
    :param chain_not_before: :param chain_not_after: when everything above it is valid too.
    """

    public_key: RSAPublicKey = field(repr=False)
    anchor: bytes
    not_before: int
    not_after: int
    chain_not_before: int
    chain_not_after: int

    @classmethod
    def of_chain(cls, chain: VerifiedChain) -> Signer:
        """Return the signer at the end of a verified chain."""
        return cls(
            public_key=chain.public_key,
            anchor=chain.root_fingerprint,
            not_before=chain.leaf_not_before,
            not_after=chain.leaf_not_after,
            chain_not_before=chain.not_before,
            chain_not_after=chain.not_after,
        )

    @classmethod
    def of_key(cls, key: SigningKey) -> Signer:
        """Return a key of the JWKS as a signer; a JWKS states no times."""
        return cls(
            public_key=key.public_key,
            anchor=key.thumbprint,
            not_before=0,
            not_after=MAX_TIME,
            chain_not_before=0,
            chain_not_after=MAX_TIME,
        )
