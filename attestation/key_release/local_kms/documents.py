"""Judges the attestation document of a request: genuine, fresh, used once.

AWS KMS does not demand that a document be fresh or used once; this KMS does, so
that whoever saw a document (the host carries it) cannot send it again. A repeated
answer would only be readable inside the TEE, but it would be a release nobody asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ....wire.encoding import sha256
from ....wire.errors import Error
from ...nitro import NitroDetails, NitroEndorsements
from ...nitro.parse import parse
from ...nitro.verify import verify
from .refusals import Refusal, denied, invalid

MAX_FUTURE_S: Final = 60
CERTIFICATE_S: Final = 3 * 3600
CACHE_ENTRIES: Final = 65_536
_RSA_BITS: Final = (2048, 3072, 4096)


@dataclass(frozen=True, slots=True)
class Attested:
    """A caller's verified TEE: its registers, and the key that answers are sealed to.

    :param signed_hash: SHA-256 of the signed payload, 32 bytes. Not of the whole document: its ECDSA
        signature and its outer encoding can be changed without the TEE.
    """

    signed_hash: bytes
    issued_at: int
    registers: Mapping[int, bytes] = field(repr=False)
    public_key: RSAPublicKey = field(repr=False)


class Documents:
    """Verifies documents and remembers those that were used.

    :param roots: SHA-256 fingerprints of accepted roots.
    :param not_before: documents made earlier (Unix seconds) are refused: a restart forgets what was used.
    """

    def __init__(
        self, roots: tuple[bytes, ...], *, max_age_s: int | None, single_use: bool, not_before: int
    ) -> None:
        self._endorsements = NitroEndorsements(roots)
        # Without a limit a document lives as long as its certificate, three hours.
        self._max_age_s = CERTIFICATE_S if max_age_s is None else max_age_s
        self._single_use = single_use
        self._not_before = not_before if single_use else 0
        self._used: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, document: bytes, now: int) -> Attested:
        """Return what a document proves.

        :raises Refusal: ``ValidationException``; ``AccessDeniedException`` for a debug-mode TEE.
        """
        try:
            parsed = parse(document)
            verified = verify(document, self._endorsements, now)
        except Error:
            raise invalid("the attestation document is not valid") from None
        signed_hash, issued_at = sha256(parsed.payload), parsed.timestamp_ms // 1000
        if not max(now - self._max_age_s, self._not_before) <= issued_at <= now + MAX_FUTURE_S:
            raise invalid("the attestation document is not fresh")
        if verified.debug:
            raise denied("the attestation document comes from a TEE in debug mode")
        details = NitroDetails.of(verified)
        return Attested(signed_hash, issued_at, details.registers, _rsa_key(details.public_key))

    def use(self, attested: Attested, now: int) -> None:
        """Note that a document is used up.

        :raises Refusal: ``ValidationException`` when it was used before, ``ThrottlingException`` when too
            many documents are remembered.
        """
        if not self._single_use:
            return
        with self._lock:
            self._forget(now)
            if attested.signed_hash in self._used:
                raise invalid("the attestation document was used before")
            if len(self._used) >= CACHE_ENTRIES:
                raise Refusal("ThrottlingException", "too many documents within their lifetime")
            # A document may be dated MAX_FUTURE_S ahead and is fresh for max_age after that.
            self._used[attested.signed_hash] = now + MAX_FUTURE_S + self._max_age_s

    def _forget(self, now: int) -> None:
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] >= now:
                return
            del self._used[oldest]


def _rsa_key(spki: bytes | None) -> RSAPublicKey:
    if spki is None:
        raise invalid("the attestation document carries no public key")
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("the attestation document's public key is not valid") from None
    if not isinstance(key, RSAPublicKey) or key.key_size not in _RSA_BITS:
        raise invalid("the attestation document's public key is not RSA of 2048 to 4096 bits")
    return key
