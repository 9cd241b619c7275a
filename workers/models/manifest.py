"""The manifest: what a model is, file by file, signed by its owner.

Its SHA-256 is the receipt's ``model_hash`` (scheme ``sha256-manifest``). It depends on
the model's contents alone, not on keys, package or time: the same model packaged twice
has the same hash.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...wire.cose import decode_sign1, sign1, verify_sign1
from ...wire.encoding import decode, encode, sha256
from ...wire.errors import MalformedError, ModelError, VerificationError
from ...wire.fields import Fields

VERSION: Final = 1
FORMAT: Final = "sentence-transformers"
CONTENT_TYPE: Final = "application/vnd.ephemeralml.manifest+cbor"
PROTECTED: Final[dict[int, object]] = {1: -8, 3: CONTENT_TYPE}
MAX_MANIFEST_BYTES: Final = 65_536
MAX_FILES: Final = 256
MAX_FILE_BYTES: Final = 1 << 40
MAX_NAME_BYTES: Final = 255
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: relative POSIX name, size in bytes, SHA-256."""

    name: str
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's identity. ``files`` are sorted by name; ``adapters`` are names of files among them."""

    model_id: str
    model_version: str
    files: tuple[FileEntry, ...]
    adapters: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the deterministic CBOR that is hashed and signed."""
        return encode(
            {
                1: VERSION,
                2: self.model_id,
                3: self.model_version,
                4: FORMAT,
                5: [[entry.name, entry.size, entry.digest] for entry in self.files],
                6: list(self.adapters),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Read a manifest.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_MANIFEST_BYTES), "manifest", range(1, 7))
        fields.version(1, VERSION)
        if fields.text(4, 1, 64) != FORMAT:
            raise MalformedError("UNKNOWN_FORMAT", "the model's format is not known")
        files = tuple(_entry(item) for item in fields.items(5, 1, MAX_FILES))
        names = [entry.name for entry in files]
        if names != sorted(set(names)):
            raise MalformedError("MANIFEST_ORDER", "files are not sorted by name, or one stands twice")
        adapters = fields.items(6, 0, MAX_FILES)
        if not all(isinstance(name, str) and name in names for name in adapters):
            raise MalformedError("MANIFEST_ADAPTER", "an adapter is not among the files")
        return cls(
            fields.text(2, 1, 256), fields.text(3, 1, 128), files, tuple(str(name) for name in adapters)
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoded manifest, 32 bytes."""
        return sha256(self.encode())


def check_name(name: str) -> str:
    """Return ``name`` when it is a safe relative POSIX name.

    :raises MalformedError: ``BAD_FILE_NAME``.
    """
    # The parts' alphabet is ASCII, so that a name has one form only (NFC) and no control characters.
    parts = name.split("/")
    if len(name) > MAX_NAME_BYTES or not all(_PART.fullmatch(part) for part in parts):
        raise MalformedError("BAD_FILE_NAME", "a file's name is not a plain relative name")
    return name


def _entry(item: object) -> FileEntry:
    match item:
        case [str() as name, int() as size, bytes() as digest] if type(size) is int:
            if 0 <= size <= MAX_FILE_BYTES and len(digest) == 32:
                return FileEntry(check_name(name), size, digest)
    raise MalformedError("MANIFEST_ENTRY", "a manifest's file entry is not of its form")


def sign_manifest(manifest: Manifest, key: Ed25519PrivateKey) -> bytes:
    """Return the manifest as COSE_Sign1 by the model's owner, once it reads as one.

    :raises ModelError: ``MANIFEST_MALFORMED``, e.g. the id is too long or a file's name has a blank.
    """
    try:
        signed = sign1(manifest.encode(), key, protected=PROTECTED)
    except MalformedError as error:
        raise _malformed(error) from None
    read_manifest(signed)
    return signed


def read_manifest(signed: bytes) -> tuple[Manifest, bytes]:
    """Return the manifest and its payload bytes without checking the signature (for inspection).

    :raises ModelError: ``MANIFEST_MALFORMED``.
    """
    try:
        message = decode_sign1(signed)
        if message.protected != PROTECTED or message.unprotected:
            raise MalformedError("COSE_HEADER", "wrong headers")
        return Manifest.decode(message.payload), message.payload
    except MalformedError as error:
        raise _malformed(error) from None


def _malformed(error: MalformedError) -> ModelError:
    return ModelError("MANIFEST_MALFORMED", f"{error.message} ({error.code})")


def verify_manifest(signed: bytes, trusted_signers: Collection[bytes]) -> tuple[Manifest, bytes]:
    """Return the manifest and its hash once a trusted owner's signature was found on it.

    :param trusted_signers: Ed25519 public keys, 32 bytes each.
    :raises ModelError: ``MANIFEST_MALFORMED`` or ``MODEL_SIGNER_UNTRUSTED``.
    """
    manifest, payload = read_manifest(signed)
    message = decode_sign1(signed)
    for signer in trusted_signers:
        try:
            verify_sign1(message, signer)
        except VerificationError:
            continue
        return manifest, sha256(payload)
    raise ModelError("MODEL_SIGNER_UNTRUSTED", "no trusted owner signed this model")
