"""Sealing: HPKE wraps a content key once, AES-256-GCM seals each message under it.

The structure is COSE_Encrypt (RFC 9052, section 5.1) in the key-encryption mode of
draft-ietf-cose-hpke. Layer 0: protected ``{1: 3}`` (A256GCM), unprotected
``{5: iv}``, external AAD = the deterministic CBOR of the public header. Recipient:
protected ``{1: algorithm, 4: key id}``, unprotected ``{-4: encapsulated key}``,
ciphertext = the wrapped content key. HPKE ``info`` is the draft's
Recipient_structure, whose extra info names this protocol, suite and purpose, so
that a job can never be taken for a result or carried to another key.

A pack states each recipient block once; :func:`to_cose_encrypt` gives the plain
COSE_Encrypt of one message (spec/wire.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .encoding import Tag, decode, encode
from .errors import MalformedError, SealingError
from .keys import SUITES, PublicKey, Suite
from .padding import pad

Purpose = Literal["job", "result", "chunk"]

PROTOCOL: Final = "ephemeralml/1"
COSE_ENCRYPT_TAG: Final = 96
ALG_A256GCM: Final = 3
HEADER_ALG, HEADER_KID, HEADER_IV, HEADER_EK = 1, 4, 5, -4
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
CONTENT_KEY_BYTES: Final = 32
PROTECTED: Final = encode({HEADER_ALG: ALG_A256GCM})
REKEY_MESSAGES: Final = 1 << 20
REKEY_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Sealed:
    """One sealed message: recipient block (CBOR), 96-bit IV, ciphertext with its 16-byte tag."""

    recipient: bytes
    iv: bytes
    ciphertext: bytes


def recipient_info(suite: Suite, protected: bytes, purpose: Purpose) -> bytes:
    """Return HPKE's ``info``: the Recipient_structure of draft-ietf-cose-hpke, section 3.1."""
    return encode(["HPKE Recipient", ALG_A256GCM, protected, encode([PROTOCOL, suite.name, purpose])])


def content_aad(header: bytes) -> bytes:
    """Return the AEAD's additional data: Enc_structure (RFC 9052, section 5.3)."""
    return encode(["Encrypt", PROTECTED, header])


class Sealer:
    """Seals many messages to one recipient for the price of one key encapsulation.

    Safe for threads. Draws a new content key after 2^20 messages or one hour; IVs are
    random, so that a fork of the process cannot repeat one.

    :param monotonic: a clock in seconds, e.g. ``time.monotonic``.
    """

    def __init__(self, recipient: PublicKey, purpose: Purpose, *, monotonic: Callable[[], float]) -> None:
        self.recipient = recipient
        self._purpose = purpose
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._rekey()

    def _rekey(self) -> None:
        content_key = os.urandom(CONTENT_KEY_BYTES)
        suite = SUITES[self.recipient.suite]
        protected = encode({HEADER_ALG: suite.algorithm, HEADER_KID: self.recipient.key_id})
        info = recipient_info(suite, protected, self._purpose)
        try:
            wrapped = suite.hpke.encrypt(content_key, self.recipient.hpke_key, info=info)
        except ValueError:
            raise SealingError() from None
        enc, ciphertext = wrapped[: suite.encapsulated_bytes], wrapped[suite.encapsulated_bytes :]
        self._block = encode([protected, {HEADER_EK: enc}, ciphertext])
        self._aead = AESGCM(content_key)
        self._left = REKEY_MESSAGES
        self._expires = self._monotonic() + REKEY_SECONDS

    def seal(self, header: bytes, plaintext: bytes) -> Sealed:
        """Pad and seal one message under its public header (deterministic CBOR).

        :raises SealingError: whatever went wrong.
        """
        with self._lock:
            if self._left <= 0 or self._monotonic() >= self._expires:
                self._rekey()
            self._left -= 1
            aead, block = self._aead, self._block
        iv = os.urandom(IV_BYTES)
        try:
            return Sealed(block, iv, aead.encrypt(iv, pad(plaintext), content_aad(header)))
        except (OverflowError, MalformedError):
            raise SealingError() from None


def to_cose_encrypt(sealed: Sealed) -> bytes:
    """Return the tagged COSE_Encrypt that a sealed message stands for."""
    recipient = decode(sealed.recipient)
    return encode(Tag(COSE_ENCRYPT_TAG, [PROTECTED, {HEADER_IV: sealed.iv}, sealed.ciphertext, [recipient]]))
