"""Keys of endpoints: derived from one master secret, so that no database, dump or backup holds any.

HKDF-SHA256 (RFC 5869) over the gateway's master secret; ``info`` names purpose, endpoint and version.
Rotation counts the version up. A master secret that is lost or changed changes every key, therefore
each endpoint keeps eight bytes that tell, and the sender refuses to sign with another one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ....wire.errors import ConfigurationError
from .signing import Ed25519SigningKey, HmacKey

Signing = Literal["v1", "v1a"]
MASTER_BYTES: Final = 32
CHECK_BYTES: Final = 8
_LABEL: Final = b"ephemeralml/1 webhook "


@dataclass(frozen=True)
class Master:
    """The gateway's master secret, 32 bytes: whoever has it can sign as every endpoint's sender."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != MASTER_BYTES:
            raise _bad_master()

    def key(self, signing: Signing, endpoint_id: bytes, version: int) -> HmacKey | Ed25519SigningKey:
        """Return an endpoint's key of a version, counting from 1."""
        derived = self._derive(signing.encode(), endpoint_id + version.to_bytes(4, "big"), MASTER_BYTES)
        if signing == "v1":
            return HmacKey(derived)
        return Ed25519SigningKey(Ed25519PrivateKey.from_private_bytes(derived))

    def check(self, endpoint_id: bytes) -> bytes:
        """Return the eight bytes that tell this master secret from another one."""
        return self._derive(b"check", endpoint_id, CHECK_BYTES)

    def is_of(self, endpoint_id: bytes, check: bytes) -> bool:
        """Return whether an endpoint's keys come from this master secret."""
        return hmac.compare_digest(self.check(endpoint_id), check)

    def _derive(self, purpose: bytes, of: bytes, length: int) -> bytes:
        info = _LABEL + purpose + b" " + of
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self.secret)


def shown(key: HmacKey | Ed25519SigningKey) -> str:
    """Return what the receiver is given: ``whsec_…`` (secret) or ``whpk_…`` (public)."""
    return key.text if isinstance(key, HmacKey) else key.public.text


def read_master(text: str) -> Master:
    """Read a master secret: base64 of 32 bytes.

    :raises ConfigurationError: ``BAD_WEBHOOK_MASTER``; never shows it.
    """
    try:
        return Master(base64.b64decode(text.strip(), validate=True))
    except (binascii.Error, ValueError):
        raise _bad_master() from None


def master_of_file(path: Path) -> Master:
    """Return the master secret of a file (mode 0600), made where there is none.

    :raises ConfigurationError: ``BAD_WEBHOOK_MASTER``, or ``WEBHOOK_MASTER_UNREADABLE``.
    """
    try:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(MASTER_BYTES)))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)  # fails where another process was first
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return read_master(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(
            "WEBHOOK_MASTER_UNREADABLE", f"the file of the webhooks' master secret: {reason}"
        ) from None


def _bad_master() -> ConfigurationError:
    return ConfigurationError("BAD_WEBHOOK_MASTER", "the webhooks' master secret is base64 of 32 bytes")
