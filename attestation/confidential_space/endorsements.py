"""What Confidential Space tokens are checked with: the pinned root for PKI, the issuer's keys for OIDC.

The root is pinned here. A JWKS is signed by nobody: it is believed because it came
from Google's own address over TLS, or from an operator's file. It must therefore
never be taken from where the token came from, and a bundle that carries one is not
asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError, EndorsementsError, MalformedError
from ..jwt import MAX_RSA_BITS, MIN_RSA_BITS, read_base64url
from ..nitro.endorsements import check_fingerprints
from ..strict_json import read_json_object
from .claims import MAX_KID_BYTES, Claims

# SHA-256 of the DER of "Confidential Space Root CA", valid 2024-01-19 to 2034-01-16 (Google Cloud,
# "Confidential Space: validate PKI tokens"; the certificate lies at the PKI validation endpoint).
GOOGLE_CONFIDENTIAL_SPACE_ROOT: Final = bytes.fromhex(
    "148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"
)
# "Attestation token claims", iss.
GOOGLE_ISSUER: Final = "https://confidentialcomputing.googleapis.com"
JWKS_FILE: Final = "jwks.json"
MAX_JWKS_BYTES: Final = 65_536
MAX_KEYS: Final = 32
RSA_EXPONENT: Final = 65_537

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of the issuer's JWKS.

    :param thumbprint: SHA-256 JWK thumbprint (RFC 7638), 32 bytes.
    """

    key_id: str
    public_key: RSAPublicKey = field(repr=False)
    thumbprint: bytes


@dataclass(frozen=True, slots=True)
class ConfidentialSpaceEndorsements:
    """Trust anchors of the platform.

    :param roots: SHA-256 fingerprints of root certificates, 32 bytes each, for PKI tokens.
    :param keys: of the issuer, for OIDC tokens; none by default: PKI tokens need none.
    :param issuer: whose keys and roots they are; tokens of another issuer are refused.
    :raises ConfigurationError: ``BAD_FINGERPRINT`` or ``DUPLICATE_KEY_ID``.
    """

    roots: tuple[bytes, ...] = (GOOGLE_CONFIDENTIAL_SPACE_ROOT,)
    keys: tuple[SigningKey, ...] = ()
    issuer: str = GOOGLE_ISSUER

    def __post_init__(self) -> None:
        check_fingerprints(self.roots)
        if len({key.key_id for key in self.keys}) != len(self.keys):
            raise ConfigurationError("DUPLICATE_KEY_ID", "two keys have one id")

    @classmethod
    def from_files(
        cls,
        files: Mapping[str, bytes],
        *,
        roots: tuple[bytes, ...] = (GOOGLE_CONFIDENTIAL_SPACE_ROOT,),
        issuer: str = GOOGLE_ISSUER,
    ) -> ConfidentialSpaceEndorsements:
        """Return endorsements with the keys of ``jwks.json``, if it is there.

        :param files: by name, from a trusted place: a JWKS is signed by nobody.
        :raises MalformedError: as :func:`read_jwks`.
        :raises EndorsementsError: ``NO_KEYS``.
        """
        jwks = files.get(JWKS_FILE)
        return cls(roots, () if jwks is None else read_jwks(jwks), issuer)


def read_jwks(data: bytes) -> tuple[SigningKey, ...]:
    """Return the RS256 keys of a JWKS (RFC 7517, section 5); keys of other kinds are left out.

    :param data: at most 64 KiB.
    :raises MalformedError: those of :func:`~..strict_json.read_json`, ``BAD_JWKS``, ``DUPLICATE_KEY_ID``,
        ``WEAK_KEY`` (RSA not of 2,048 to 8,192 bits, or an exponent other than 65,537), ``PRIVATE_KEY``.
    :raises EndorsementsError: ``NO_KEYS``.
    """
    document = read_json_object(data, max_bytes=MAX_JWKS_BYTES, max_depth=4)
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise MalformedError("BAD_JWKS", f"a JWKS holds a list of at most {MAX_KEYS} keys")
    keys = tuple(key for entry in entries if (key := _key(entry)) is not None)
    if len({key.key_id for key in keys}) != len(keys):
        raise MalformedError("DUPLICATE_KEY_ID", "two keys of the JWKS have one id")
    if not keys:
        raise EndorsementsError("NO_KEYS", "the JWKS holds no key for RS256")
    return keys


def _key(entry: object) -> SigningKey | None:
    if not isinstance(entry, dict):
        raise MalformedError("BAD_JWKS", "an entry of the JWKS is not an object")
    if entry.keys() & _PRIVATE:
        raise MalformedError("PRIVATE_KEY", "the JWKS holds a private or symmetric key")
    if entry.get("kty") != "RSA" or entry.get("alg") != "RS256" or entry.get("use", "sig") != "sig":
        return None
    claims = Claims(entry, "key")
    exponent, modulus = (_number(claims.text(name, 2 * MAX_RSA_BITS // 8)) for name in ("e", "n"))
    if exponent != RSA_EXPONENT or not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise MalformedError("WEAK_KEY", "a key of the JWKS has a wrong size or exponent")
    try:
        public_key = RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise MalformedError("BAD_JWKS", "a key of the JWKS is no RSA key") from None
    # RFC 7638, section 3: required members only, in order, without spaces.
    canonical = f'{{"e":"{entry["e"]}","kty":"RSA","n":"{entry["n"]}"}}'
    return SigningKey(claims.text("kid", MAX_KID_BYTES), public_key, sha256(canonical.encode()))


def _number(text: str) -> int:
    """Read Base64urlUInt (RFC 7518, section 2): the fewest octets."""
    octets = read_base64url(text.encode())
    if not octets or octets[0] == 0:
        raise MalformedError("BAD_JWKS", "a number of the JWKS is not in its shortest form")
    return int.from_bytes(octets, "big")
