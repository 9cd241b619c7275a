"""The local KMS's keys on disk, and the blobs that they wrap.

Wrapped blob: version byte 1, key id (16 bytes), IV (12 bytes), AES-256-GCM
ciphertext and tag; additional data is the deterministic CBOR of
``[1, key id, encryption context]``.

``keys.json`` is written whole, but only when a key is made or its state changes: releasing
a key writes no more than an audit line. The keys in it are wrapped under ``master.key``,
by default beside it. That keeps them out of a backup or copy of ``keys.json`` alone, and
from nobody who can read both files.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ....wire.encoding import encode
from ....wire.errors import ConfigurationError
from .config import ACCOUNT
from .refusals import Refusal

KEYS_FILE: Final = "keys.json"
MASTER_FILE: Final = "master.key"
FILE_VERSION: Final = 2
MAX_ALIASES: Final = 50
BLOB_VERSION: Final = 1
_HEAD: Final = 17
_IV: Final = 12
_TAG: Final = 16


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One KMS key; its secret bytes never leave this module.

    :param alias: the name that its policy is found by. :param aliases: further names.
    :param deletion_at: when it is to be deleted, Unix seconds; None: it is not.
    """

    id: uuid.UUID
    alias: str
    created_at: int
    secret: bytes = field(repr=False)
    enabled: bool = True
    deletion_at: int | None = None
    aliases: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """AWS's name of its state (AWS KMS Developer Guide, "Key states")."""
        if self.deletion_at is not None:
            return "PendingDeletion"
        return "Enabled" if self.enabled else "Disabled"

    def check_usable(self) -> None:
        """Refuse a key that must not be used.

        :raises Refusal: ``DisabledException`` or ``KMSInvalidStateException``.
        """
        if self.deletion_at is not None:
            raise Refusal("KMSInvalidStateException", "the key is pending deletion")
        if not self.enabled:
            raise Refusal("DisabledException", "the key is disabled")

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

    :param master: file of the key that keys are wrapped under at rest; made when missing.
    :param now: Unix seconds; keys whose time has come are deleted.
    :raises ConfigurationError: ``KMS_STORE_UNUSABLE`` or ``KMS_STORE_EXPOSED`` (others may read it).
    """

    def __init__(
        self, directory: Path, aliases: Iterable[str], *, master: Path | None = None, now: float | None = None
    ) -> None:
        self._path = directory / KEYS_FILE
        self._master_path = master or directory / MASTER_FILE
        self._lock = threading.Lock()
        now = time.time() if now is None else now
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_private(self._path, self._master_path)
            self._master = AESGCM(
                _master_key(master or directory / MASTER_FILE, fresh=not self._path.exists())
            )
            found = self._load() if self._path.exists() else []
            keys = [key for key in found if not _is_due(key, now)]
            missing = sorted(set(aliases) - {key.alias for key in keys})
            keys += [MasterKey(uuid.uuid4(), alias, int(now), secrets.token_bytes(32)) for alias in missing]
            if keys != found:
                self._save(keys)
        except OSError as error:
            raise ConfigurationError(
                "KMS_STORE_UNUSABLE", f"cannot use the KMS's folder: {error.strerror}"
            ) from None
        self._take(keys)

    def all(self) -> tuple[MasterKey, ...]:
        """Return every key, by alias."""
        return tuple(sorted(self._keys.values(), key=lambda key: key.alias))

    def find(self, key_id: str, now: float) -> MasterKey:
        """Return a key by id, alias or the ARN of either.

        :raises Refusal: ``NotFoundException``.
        """
        name = key_id
        if key_id.startswith("arn:aws:kms:"):
            name = key_id.split(":", 5)[-1].removeprefix("key/")
        key = self._by_name.get(name)
        if key is None or _is_due(key, now):
            raise Refusal("NotFoundException", "there is no such key")
        return key

    def of_blob(self, blob: bytes, now: float) -> MasterKey:
        """Return the key that a blob says it was wrapped with.

        :raises Refusal: ``InvalidCiphertextException``.
        """
        if len(blob) <= _HEAD + _IV + _TAG or blob[0] != BLOB_VERSION:
            raise _invalid_ciphertext()
        key = self._by_name.get(str(uuid.UUID(bytes=blob[1:_HEAD])))
        if key is None or _is_due(key, now):
            raise _invalid_ciphertext()
        return key

    def set_state(self, key: MasterKey, *, enabled: bool, deletion_at: int | None) -> MasterKey:
        """Change a key's state on disk and then here; an ``OSError`` leaves both as they were."""
        return self._change(replace(key, enabled=enabled, deletion_at=deletion_at))

    def add_alias(self, key: MasterKey, alias: str) -> None:
        """Give a key another name.

        :raises Refusal: ``AlreadyExistsException`` or ``LimitExceededException``.
        """
        with self._lock:
            if alias in self._by_name:
                raise Refusal("AlreadyExistsException", "the alias is taken")
            if len(key.aliases) >= MAX_ALIASES:
                raise Refusal("LimitExceededException", "the key has too many aliases")
        self._change(replace(key, aliases=(*key.aliases, alias)))

    def _change(self, changed: MasterKey) -> MasterKey:
        with self._lock:
            keys = [changed if key.id == changed.id else key for key in self._keys.values()]
            self._save(keys)
            self._take(keys)
        return changed

    def _take(self, keys: Iterable[MasterKey]) -> None:
        self._keys = {key.id: key for key in keys}
        self._by_name = {
            name: key for key in self._keys.values() for name in (key.alias, str(key.id), *key.aliases)
        }

    def _load(self) -> list[MasterKey]:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            if value["version"] != FILE_VERSION:
                raise ValueError
            return [self._read(entry) for entry in value["keys"]]
        except (ValueError, KeyError, TypeError, AttributeError, InvalidTag):
            raise ConfigurationError(
                "KMS_STORE_UNUSABLE", "the KMS's key file is damaged, or not of this master key"
            ) from None

    def _read(self, entry: Mapping[str, Any]) -> MasterKey:
        wrapped = base64.b64decode(entry["wrapped"], validate=True)
        about = {name: value for name, value in entry.items() if name != "wrapped"}
        secret = self._master.decrypt(wrapped[:_IV], wrapped[_IV:], encode(about))
        return MasterKey(
            uuid.UUID(entry["id"]),
            entry["alias"],
            entry["created_at"],
            secret,
            entry["enabled"],
            entry["deletion_at"],
            tuple(entry["aliases"]),
        )

    def _write(self, key: MasterKey) -> dict[str, Any]:
        about: dict[str, Any] = {
            "id": str(key.id),
            "alias": key.alias,
            "aliases": list(key.aliases),
            "created_at": key.created_at,
            "enabled": key.enabled,
            "deletion_at": key.deletion_at,
        }
        # All that stands beside the key is bound to it: a state cannot be edited without the master key.
        iv = secrets.token_bytes(_IV)
        wrapped = iv + self._master.encrypt(iv, key.secret, encode(about))
        return {**about, "wrapped": base64.b64encode(wrapped).decode()}

    def _save(self, keys: Iterable[MasterKey]) -> None:
        text = json.dumps({"version": FILE_VERSION, "keys": [self._write(key) for key in keys]})
        write_private(self._path, text.encode())


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 whole: a crash leaves the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    # The name is only there to stay once the folder is written too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_private(*paths: Path) -> None:
    for path in paths:
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError("KMS_STORE_EXPOSED", "a key file is not private: chmod 600 it")


def _master_key(path: Path, *, fresh: bool) -> bytes:
    if not path.exists() and fresh:
        write_private(path, secrets.token_bytes(32))
    key = path.read_bytes()
    if len(key) != 32:
        raise ConfigurationError("KMS_STORE_UNUSABLE", "the KMS's master key has not 32 bytes")
    return key


def _is_due(key: MasterKey, now: float) -> bool:
    return key.deletion_at is not None and key.deletion_at <= now


def _invalid_ciphertext() -> Refusal:
    return Refusal("InvalidCiphertextException", "the blob was not made by this key under this context")
