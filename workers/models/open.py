"""Opening a package: decrypt while reading, hash while decrypting, into memory and never to disk."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ...wire.encoding import sha256
from ...wire.errors import ModelError
from .file_kinds import check_file, check_kind
from .manifest import FileEntry, Manifest, read_manifest, verify_manifest
from .memory import anonymous_memory
from .source import Source, SourceReader
from .stream import LENGTH, MAGIC, MAX_HEADER_BYTES, TAG_BYTES, ChunkCipher, PackageHeader, chunks_of


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory: its manifest, the manifest's hash (32 bytes), and its files by name."""

    manifest: Manifest
    manifest_hash: bytes
    files: Mapping[str, memoryview] = field(repr=False)


def open_package(
    source: Source,
    key_provider: Callable[[bytes, Mapping[str, str]], bytes],
    *,
    trusted_signers: Collection[bytes],
    expected_manifest_hash: bytes | None,
) -> LoadedModel:
    """Decrypt and verify a package as it streams in.

    Nothing is handed out before every file's hash matched the signed manifest. Memory: the model and
    one chunk. The key is asked for only once the owner's signature, the model and the context are good.

    :param source: binary file or stream, or an iterable of bytes.
    :param key_provider: unwraps the model key (KMS ``Decrypt``): wrapped key, context to 32 bytes.
    :param trusted_signers: owners' Ed25519 public keys, 32 bytes each.
    :param expected_manifest_hash: refuse any other model; None takes whatever a trusted owner signed.
    :raises ModelError: ``PACKAGE_MALFORMED``, ``PACKAGE_TRUNCATED``, ``PACKAGE_TAMPERED``,
        ``PACKAGE_UNREADABLE``, ``MANIFEST_MALFORMED``, ``MODEL_SIGNER_UNTRUSTED``, ``MODEL_UNEXPECTED``,
        ``MODEL_CONTEXT_MISMATCH``, ``MODEL_KEY_LENGTH``, ``MODEL_TOO_LARGE``, ``MODEL_PICKLE``,
        ``MODEL_FILE_KIND``, ``MODEL_NOT_TEXT`` or ``SAFETENSORS_MALFORMED``.
    :raises KeyReleaseError: the key was not released.
    """
    reader = SourceReader(source)
    encoded, header = read_header(reader)
    manifest, manifest_hash = verify_manifest(header.manifest, trusted_signers)
    if expected_manifest_hash is not None and not hmac.compare_digest(manifest_hash, expected_manifest_hash):
        raise ModelError("MODEL_UNEXPECTED", "the package holds another model")
    context = key_context(manifest, manifest_hash)
    if header.context != context:
        raise ModelError("MODEL_CONTEXT_MISMATCH", "the package's key context is of another model")
    for entry in manifest.files:
        check_kind(entry.name)
    cipher = ChunkCipher(key_provider(header.wrapped, context), header.package_id, encoded)
    buffer = memoryview(bytearray(header.chunk_bytes + TAG_BYTES))
    files = {
        entry.name: _file(reader, cipher, index, entry, buffer) for index, entry in enumerate(manifest.files)
    }
    if not reader.at_end():
        raise ModelError("PACKAGE_MALFORMED", "bytes follow the package")
    return LoadedModel(manifest, manifest_hash, files)


def inspect_package(source: Source) -> dict[str, object]:
    """Return what a package says of itself, without key and without checking its signature.

    :raises ModelError: it is no package.
    """
    _, header = read_header(SourceReader(source))
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


def key_context(manifest: Manifest, manifest_hash: bytes) -> dict[str, str]:
    """Return the encryption context that a model's key is wrapped under."""
    return {"purpose": "model", "model": manifest.model_id, "manifest": manifest_hash.hex()}


def read_header(reader: SourceReader) -> tuple[bytes, PackageHeader]:
    """Return a package's header, encoded and read.

    :raises ModelError: ``PACKAGE_MALFORMED`` or ``PACKAGE_TRUNCATED``.
    """
    if reader.take(len(MAGIC)) != MAGIC:
        raise ModelError("PACKAGE_MALFORMED", "this is no model package")
    length = LENGTH.unpack(reader.take(LENGTH.size))[0]
    if length > MAX_HEADER_BYTES:
        raise ModelError("PACKAGE_MALFORMED", "the header is too long")
    encoded = reader.take(length)
    return encoded, PackageHeader.decode(encoded)


def _file(
    reader: SourceReader, cipher: ChunkCipher, index: int, entry: FileEntry, buffer: memoryview
) -> memoryview:
    memory = anonymous_memory(entry.size)
    digest = hashlib.sha256()
    for number, place, last in chunks_of(entry.size, len(buffer) - TAG_BYTES):
        window = memory[place]
        sealed = buffer[: len(window) + TAG_BYTES]
        if LENGTH.unpack(reader.take(LENGTH.size))[0] != len(sealed):
            raise ModelError("PACKAGE_TAMPERED", "a chunk has the wrong size")
        reader.fill(sealed)
        cipher.open(index, number, last, sealed, window)
        digest.update(window)
    if not hmac.compare_digest(digest.digest(), entry.digest):
        raise ModelError("PACKAGE_TAMPERED", "a file is not what the manifest says")
    check_file(entry.name, memory)
    return memory
