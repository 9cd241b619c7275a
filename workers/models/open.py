"""Opening a package: decrypt while reading, hash while decrypting, into memory and never to disk."""

from __future__ import annotations

import hashlib
import hmac
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.exceptions import InvalidTag

from ...wire.encoding import sha256
from ...wire.errors import ModelError
from .manifest import FileEntry, Manifest, read_manifest, verify_manifest
from .safetensors_header import check_file
from .stream import LENGTH, MAGIC, MAX_HEADER_BYTES, TAG_BYTES, ChunkCipher, PackageHeader, chunk_sizes


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory: its manifest, the manifest's hash (32 bytes), and its files by name."""

    manifest: Manifest
    manifest_hash: bytes
    files: Mapping[str, memoryview] = field(repr=False)


def open_package(
    reader: BinaryIO,
    key_provider: Callable[[bytes, Mapping[str, str]], bytes],
    *,
    trusted_signers: tuple[bytes, ...],
    expected_manifest_hash: bytes | None,
) -> LoadedModel:
    """Decrypt and verify a package as it streams in.

    Nothing is handed out before every file's hash matched the signed manifest.

    :param reader: binary file or stream. :param key_provider: unwraps the model key (KMS ``Decrypt``).
    :param trusted_signers: owners' Ed25519 public keys.
    :param expected_manifest_hash: refuse any other model; None takes whatever a trusted owner signed.
    :raises ModelError: ``PACKAGE_MALFORMED``, ``PACKAGE_TRUNCATED``, ``PACKAGE_TAMPERED``,
        ``MANIFEST_MALFORMED``, ``MODEL_SIGNER_UNTRUSTED``, ``MODEL_UNEXPECTED``, ``MODEL_CONTEXT_MISMATCH``,
        ``MODEL_PICKLE`` or ``SAFETENSORS_MALFORMED``.
    :raises KeyReleaseError: the key was not released.
    """
    encoded, header = _header(reader)
    manifest, manifest_hash = verify_manifest(header.manifest, trusted_signers)
    if expected_manifest_hash is not None and not hmac.compare_digest(manifest_hash, expected_manifest_hash):
        raise ModelError("MODEL_UNEXPECTED", "the package holds another model")
    context = {"purpose": "model", "model": manifest.model_id, "manifest": manifest_hash.hex()}
    if header.context != context:
        raise ModelError("MODEL_CONTEXT_MISMATCH", "the package's key context is of another model")
    cipher = ChunkCipher(key_provider(header.wrapped, context), header.package_id, encoded)
    files = {
        entry.name: _file(reader, cipher, index, entry, header.chunk_bytes)
        for index, entry in enumerate(manifest.files)
    }
    if reader.read(1):
        raise ModelError("PACKAGE_MALFORMED", "bytes follow the package")
    return LoadedModel(manifest, manifest_hash, files)


def inspect_package(reader: BinaryIO) -> dict[str, object]:
    """Return what a package says of itself, without key and without checking its signature.

    :raises ModelError: it is no package.
    """
    _, header = _header(reader)
    manifest, payload = read_manifest(header.manifest)
    return {
        "model": manifest.model_id,
        "version": manifest.model_version,
        "manifest_hash": sha256(payload).hex(),
        "signature": "not checked",
        "package_id": header.package_id.hex(),
        "chunk_bytes": header.chunk_bytes,
        "key_context": header.context,
        "adapters": list(manifest.adapters),
        "files": [{"name": e.name, "size": e.size, "sha256": e.digest.hex()} for e in manifest.files],
    }


def _header(reader: BinaryIO) -> tuple[bytes, PackageHeader]:
    if _read(reader, len(MAGIC)) != MAGIC:
        raise ModelError("PACKAGE_MALFORMED", "this is no model package")
    length = LENGTH.unpack(_read(reader, LENGTH.size))[0]
    if length > MAX_HEADER_BYTES:
        raise ModelError("PACKAGE_MALFORMED", "the header is too long")
    encoded = _read(reader, length)
    return encoded, PackageHeader.decode(encoded)


def _file(
    reader: BinaryIO, cipher: ChunkCipher, index: int, entry: FileEntry, chunk_bytes: int
) -> memoryview:
    # Anonymous memory: page aligned for the engine, given back whole, never in a file.
    memory = memoryview(mmap.mmap(-1, max(entry.size, 1)))[: entry.size]
    digest = hashlib.sha256()
    sizes = chunk_sizes(entry.size, chunk_bytes)
    start = 0
    for number, size in enumerate(sizes):
        length = LENGTH.unpack(_read(reader, LENGTH.size))[0]
        if length != size + TAG_BYTES:
            raise ModelError("PACKAGE_TAMPERED", "a chunk has the wrong size")
        window = memory[start : start + size]
        try:
            cipher.open(index, number, number == len(sizes) - 1, _read(reader, length), window)
        except InvalidTag:
            raise ModelError("PACKAGE_TAMPERED", "a chunk does not open") from None
        digest.update(window)
        start += size
    if not hmac.compare_digest(digest.digest(), entry.digest):
        raise ModelError("PACKAGE_TAMPERED", "a file is not what the manifest says")
    check_file(entry.name, memory)
    return memory


def _read(reader: BinaryIO, size: int) -> bytes:
    pieces: list[bytes] = []
    while size:
        piece = reader.read(size)
        if not piece:
            raise ModelError("PACKAGE_TRUNCATED", "the package ends too early")
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
