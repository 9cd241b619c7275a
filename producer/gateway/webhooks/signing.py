"""Signatures of webhooks: Standard Webhooks 1.0, symmetric ``v1`` and asymmetric ``v1a``.

Source: "Standard Webhooks" 1.0.0, section "Signature scheme": the signed content is
``id.timestamp.body``; ``v1`` is HMAC-SHA256 under the bytes of a ``whsec_`` secret, ``v1a`` is
Ed25519 (``whsk_`` private, ``whpk_`` public); several signatures stand with blanks between them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ....wire.errors import ConfigurationError, VerificationError

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
#: The specification wants secrets of 24 to 64 bytes.
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
#: More than any rotation needs; a header is not to make a receiver compute for long.
MAX_SIGNATURES: Final = 16
MAX_SIGNATURE_CHARS: Final = 4096
TOLERANCE_SECONDS: Final = 300
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


class SigningKey(Protocol):
    """Signs what a webhook says."""

    def sign(self, content: bytes) -> str:
        """Return one signature as it stands in the header, with its version."""


class VerifyingKey(Protocol):
    """Verifies what a webhook says."""

    @property
    def version(self) -> str:
        """Of the signatures that it verifies: ``v1`` or ``v1a``."""

    def verifies(self, content: bytes, signature: bytes) -> bool:
        """Return whether a signature of this key's version is right; in constant time."""


@dataclass(frozen=True)
class HmacKey:
    """A shared secret, 24 to 64 bytes: who has it can sign and verify."""

    secret: bytes
    version: str = "v1"

    def __repr__(self) -> str:
        return "HmacKey(…)"

    @property
    def text(self) -> str:
        """``whsec_`` and base64: what the receiver is given."""
        return "whsec_" + base64.b64encode(self.secret).decode()

    def sign(self, content: bytes) -> str:
        """See :class:`SigningKey`."""
        return "v1," + base64.b64encode(self._mac(content)).decode()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        """See :class:`VerifyingKey`."""
        return hmac.compare_digest(self._mac(content), signature)

    def _mac(self, content: bytes) -> bytes:
        return hmac.new(self.secret, content, hashlib.sha256).digest()


@dataclass(frozen=True)
class Ed25519SigningKey:
    """An Ed25519 private key; never leaves the sender."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> Ed25519VerifyingKey:
        """The key that the receiver is given."""
        return Ed25519VerifyingKey(self.private.public_key())

    def sign(self, content: bytes) -> str:
        """See :class:`SigningKey`."""
        return "v1a," + base64.b64encode(self.private.sign(content)).decode()


@dataclass(frozen=True)
class Ed25519VerifyingKey:
    """An Ed25519 public key: the receiver can verify, and cannot sign."""

    public: Ed25519PublicKey
    version: str = "v1a"

    @property
    def text(self) -> str:
        """``whpk_`` and base64."""
        return "whpk_" + base64.b64encode(self.public.public_bytes_raw()).decode()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        """See :class:`VerifyingKey`."""
        try:
            self.public.verify(signature, content)
        except InvalidSignature:
            return False
        return True


def read_verifying_key(text: str) -> VerifyingKey:
    """Return the key of ``whsec_…`` or ``whpk_…``.

    :raises ConfigurationError: ``BAD_WEBHOOK_KEY``; never shows it.
    """
    prefix, _, value = text.partition("_")
    try:
        raw = base64.b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), validate=True)
        if prefix == "whsec" and MIN_SECRET_BYTES <= len(raw) <= MAX_SECRET_BYTES:
            return HmacKey(raw)
        if prefix == "whpk":
            return Ed25519VerifyingKey(Ed25519PublicKey.from_public_bytes(raw))
    except (binascii.Error, ValueError):
        raise _bad_key() from None
    raise _bad_key()


def _bad_key() -> ConfigurationError:
    return ConfigurationError("BAD_WEBHOOK_KEY", "a webhook's key is whsec_… or whpk_…, as it was shown")


def content(message_id: str, timestamp: int, body: bytes) -> bytes:
    """Return what is signed."""
    return b"%s.%d.%s" % (message_id.encode(), timestamp, body)


def headers(keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a webhook, signed by every key.

    :param timestamp: of this attempt, Unix seconds.
    """
    signed = content(message_id, timestamp, body)
    return {
        ID: message_id,
        TIMESTAMP: str(timestamp),
        SIGNATURE: " ".join(key.sign(signed) for key in keys),
    }


@dataclass(frozen=True, slots=True)
class Signed:
    """What the headers of a genuine webhook say. :param timestamp: of the attempt, Unix seconds."""

    message_id: str
    timestamp: int


def verify(
    keys: Sequence[VerifyingKey],
    message_id: str,
    timestamp: str,
    signature: str,
    body: bytes,
    now: float,
    tolerance_s: int = TOLERANCE_SECONDS,
) -> Signed:
    """Verify a webhook's headers and body; signatures of other versions are passed over.

    :param now: Unix seconds. :param tolerance_s: how old, and how far ahead, a timestamp may be.
    :raises VerificationError: ``WEBHOOK_HEADERS``, ``WEBHOOK_TIMESTAMP`` or ``WEBHOOK_SIGNATURE``.
    """
    if _ID.fullmatch(message_id) is None or _SECONDS.fullmatch(timestamp) is None:
        raise VerificationError(
            "WEBHOOK_HEADERS", "the headers of Standard Webhooks are missing or malformed"
        )
    stated = int(timestamp)
    signed = content(message_id, stated, body)
    if timestamp != str(stated) or not any(_verifies(keys, signed, each) for each in _signatures(signature)):
        raise VerificationError("WEBHOOK_SIGNATURE", "no signature of the webhook is of a key that was given")
    if abs(now - stated) > tolerance_s:
        raise VerificationError(
            "WEBHOOK_TIMESTAMP", "the webhook was sent at another time, or the clock is wrong"
        )
    return Signed(message_id, stated)


def _signatures(header: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for word in header[:MAX_SIGNATURE_CHARS].split(" ")[:MAX_SIGNATURES]:
        version, _, text = word.partition(",")
        try:
            found.append((version, base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError):
            continue
    return found


def _verifies(keys: Sequence[VerifyingKey], signed: bytes, signature: tuple[str, bytes]) -> bool:
    version, value = signature
    return any(key.version == version and key.verifies(signed, value) for key in keys)
