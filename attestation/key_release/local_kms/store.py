"""The local KMS's keys on disk, and the blobs that they wrap.

Wrapped blob: version byte 1, key id (16 bytes), IV (12 bytes), AES-256-GCM
ciphertext and tag; additional data is the deterministic CBOR of
``[1, key id, encryption context]``.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ....wire.encoding import encode
from ....wire.errors import ConfigurationError
from .config import ACCOUNT
from .refusals import Refusal

KEYS_FILE: Final = "keys.json"
BLOB_VERSION: Final = 1
_HEAD: Final = 17
_IV: Final = 12
_TAG: Final = 16


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One KMS key; its secret bytes never leave this module."""

    id: uuid.UUID
    alias: str
    created_at: int
    secret: bytes = field(repr=False)

    def arn(self, region: str) -> str:
        """Return the key's ARN."""
        return f"arn:aws:kms:{region}:{ACCOUNT}:key/{self.id}"

    def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Return ``plaintext`` wrapped under this key and context."""
        iv = secrets.token_bytes(_IV)
        sealed = AESGCM(self.secret).encrypt(iv, plaintext, self._aad(context))
        return bytes((BLOB_VERSION,)) + self.id.bytes + iv + sealed

    def unwrap(self, blob: bytes, context: Mapping[str, str]) -> bytes:
        """Return what a blob of this key holds.

        :raises Refusal: ``InvalidCiphertextException``.
        """
        iv, sealed = blob[_HEAD : _HEAD + _IV], blob[_HEAD + _IV :]
        try:
            return AESGCM(self.secret).decrypt(iv, sealed, self._aad(context))
        except InvalidTag:
            raise _invalid_ciphertext() from None

    def _aad(self, context: Mapping[str, str]) -> bytes:
        return encode([BLOB_VERSION, self.id.bytes, dict(context)])


class KeyStore:
    """The keys of one folder, a key per alias; made when missing.

    :raises ConfigurationError: ``KMS_STORE_UNUSABLE`` or ``KMS_STORE_EXPOSED`` (others may read it).
    """

    def __init__(self, directory: Path, aliases: Iterable[str]) -> None:
        self._path = directory / KEYS_FILE
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            keys = self._load() if self._path.exists() else []
            missing = sorted(set(aliases) - {key.alias for key in keys})
            if missing:
                keys += [
                    MasterKey(uuid.uuid4(), alias, int(time.time()), secrets.token_bytes(32))
                    for alias in missing
                ]
                self._save(keys)
        except OSError as error:
            raise ConfigurationError(
                "KMS_STORE_UNUSABLE", f"cannot use the KMS's folder: {error.strerror}"
            ) from None
        self._by_name = {name: key for key in keys for name in (key.alias, str(key.id))}

    def find(self, key_id: str) -> MasterKey:
        """Return a key by id, alias or the ARN of either.

        :raises Refusal: ``NotFoundException``.
        """
        name = key_id
        if key_id.startswith("arn:aws:kms:"):
            name = key_id.split(":", 5)[-1].removeprefix("key/")
        try:
            return self._by_name[name]
        except KeyError:
            raise Refusal("NotFoundException", "there is no such key") from None

    def of_blob(self, blob: bytes) -> MasterKey:
        """Return the key that a blob says it was wrapped with.

        :raises Refusal: ``InvalidCiphertextException``.
        """
        if len(blob) <= _HEAD + _IV + _TAG or blob[0] != BLOB_VERSION:
            raise _invalid_ciphertext()
        key = self._by_name.get(str(uuid.UUID(bytes=blob[1:_HEAD])))
        if key is None:
            raise _invalid_ciphertext()
        return key

    def _load(self) -> list[MasterKey]:
        if stat.S_IMODE(self._path.stat().st_mode) & 0o077:
            raise ConfigurationError("KMS_STORE_EXPOSED", "the KMS's key file is not private: chmod 600 it")
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            keys = [
                MasterKey(
                    uuid.UUID(entry["id"]),
                    str(entry["alias"]),
                    int(entry["created_at"]),
                    base64.b64decode(entry["secret"], validate=True),
                )
                for entry in value["keys"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError("KMS_STORE_UNUSABLE", "the KMS's key file is damaged") from None
        if any(len(key.secret) != 32 for key in keys):
            raise ConfigurationError("KMS_STORE_UNUSABLE", "the KMS's key file is damaged")
        return keys

    def _save(self, keys: list[MasterKey]) -> None:
        text = json.dumps(
            {
                "version": 1,
                "keys": [
                    {
                        "id": str(key.id),
                        "alias": key.alias,
                        "created_at": key.created_at,
                        "secret": base64.b64encode(key.secret).decode(),
                    }
                    for key in keys
                ],
            }
        )
        with self._lock:
            temporary = self._path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)


def _invalid_ciphertext() -> Refusal:
    return Refusal("InvalidCiphertextException", "the blob was not made by this key under this context")
