"""The simulated TEE's attester: signs what a Nitro Security Module would sign."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509.oid import NameOID

from ...wire.cose import sig_structure
from ...wire.encoding import encode
from ...wire.errors import ConfigurationError, MalformedError
from ..evidence import Measurements
from ..nitro.details import nitro_measurements
from ..nitro.parse import MAX_BOUND_BYTES, PCR_COUNT, PCR_SIZES
from .root import BACKDATE_S, DevelopmentRoot, issue

LEAF_LIFETIME_S: Final = 3 * 3600
_PROTECTED: Final = encode({1: -35})
_REGISTERS: Final = 16
_ZERO: Final = bytes(48)


def development_pcrs(image: str) -> dict[int, bytes]:
    """Return PCR0, PCR1 and PCR2 that stand for an image which was never measured.

    :param image: any name; the same name gives the same registers, 48 bytes each.
    """
    return {
        index: hashlib.sha384(f"ephemeralml simulated PCR{index}\0{image}".encode()).digest()
        for index in (0, 1, 2)
    }


class SimulatedAttester:
    """Makes Nitro-format documents under a development root.

    Each document has a signing certificate of its own, valid for three hours.

    :param pcrs: by index, 0 to 31, 32, 48 or 64 bytes each; of the first sixteen, those not given are zero.
        Zero in PCR0 to PCR2 is what a debug enclave reads.
    :param now: clock, Unix seconds.
    :raises ConfigurationError: ``BAD_PCR``.
    """

    platform: Final[Literal["simulated"]] = "simulated"

    def __init__(
        self, root: DevelopmentRoot, pcrs: Mapping[int, bytes], *, now: Callable[[], float] = time.time
    ) -> None:
        if any(not 0 <= index < PCR_COUNT or len(value) not in PCR_SIZES for index, value in pcrs.items()):
            raise ConfigurationError("BAD_PCR", "a PCR has an index of 0 to 31 and 32, 48 or 64 bytes")
        self._root = root
        self._pcrs = {**dict.fromkeys(range(_REGISTERS), _ZERO), **pcrs}
        self._now = now
        self._module_id = f"simulated-{secrets.token_hex(8)}-enc{secrets.token_hex(8)}"

    def measurements(self) -> Measurements:
        """Return the registers that documents will carry."""
        return nitro_measurements(self._pcrs)

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return a fresh document that carries these values.

        :param public_key: :param user_data: :param nonce: at most 1,024 bytes each.
        :raises MalformedError: ``OUT_OF_BOUNDS``.
        """
        for value in (public_key, user_data, nonce):
            if value is not None and len(value) > MAX_BOUND_BYTES:
                raise MalformedError("OUT_OF_BOUNDS", "a value to attest has more than 1,024 bytes")
        now = self._now()
        key = ec.generate_private_key(ec.SECP384R1())
        payload = {
            "module_id": self._module_id,
            "digest": "SHA384",
            "timestamp": int(now * 1000),
            "pcrs": self._pcrs,
            "certificate": self._leaf(key.public_key(), int(now)),
            "cabundle": list(self._root.certificates),
            "public_key": public_key,
            "user_data": user_data,
            "nonce": nonce,
        }
        return sign_document(payload, key)

    def _leaf(self, public_key: ec.EllipticCurvePublicKey, now: int) -> bytes:
        issuer = self._root.issuer
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._module_id)])
        window = (now - BACKDATE_S, now + LEAF_LIFETIME_S)
        leaf = issue(name, public_key, issuer.subject, self._root.issuing_key, window)
        return leaf.public_bytes(serialization.Encoding.DER)


def sign_document(payload: Mapping[str, object], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return an untagged COSE_Sign1 with ES384 over a document's payload (RFC 9053, section 2.1).

    :param key: P-384; the one of the payload's certificate, if it is to verify.
    """
    body = encode(dict(payload))
    r, s = decode_dss_signature(key.sign(sig_structure(_PROTECTED, body), ec.ECDSA(SHA384())))
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    return encode([_PROTECTED, {}, body, signature])
