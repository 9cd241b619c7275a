"""Packaging: hash every file, sign the manifest, seal the chunks."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...attestation.key_release.protocol import DataKey
from ...wire.errors import ModelError
from .files import FolderFiles
from .manifest import FileEntry, Manifest, check_name, sign_manifest
from .safetensors_header import check_file
from .stream import CHUNK_BYTES, LENGTH, MAGIC, ChunkCipher, PackageHeader, chunk_sizes

_NO_PROGRESS: Final[Callable[[str, int], None]] = lambda _name, _size: None  # noqa: E731


@dataclass(frozen=True)
class Packaged:
    """A package that was written: its manifest, the manifest's hash, and its size in bytes."""

    manifest: Manifest
    manifest_hash: bytes
    size: int


def package_model(
    files: FolderFiles,
    out: Path,
    *,
    model_id: str,
    model_version: str,
    signing_key: Ed25519PrivateKey,
    data_key: Callable[[Mapping[str, str]], DataKey],
    progress: Callable[[str, int], None] = _NO_PROGRESS,
    chunk_bytes: int = CHUNK_BYTES,
) -> Packaged:
    """Write an encrypted, signed package; it appears under its name only when it is whole.

    :param data_key: asks the KMS for a fresh model key under the given encryption context.
    :param progress: called with each file's name and size.
    :raises ModelError: a file is refused or cannot be read. :raises KeyReleaseError: no key.
    """
    draft = out.with_name(out.name + ".part")
    try:
        manifest = _manifest(files, model_id, model_version)
        context = {"purpose": "model", "model": model_id, "manifest": manifest.digest.hex()}
        key = data_key(context)
        signed = sign_manifest(manifest, signing_key)
        header = PackageHeader(os.urandom(16), chunk_bytes, key.wrapped, context, signed)
        encoded = header.encode()
        cipher = ChunkCipher(key.plaintext, header.package_id, encoded)
        with draft.open("wb") as file:
            file.write(MAGIC + LENGTH.pack(len(encoded)) + encoded)
            for index, entry in enumerate(manifest.files):
                progress(entry.name, entry.size)
                with _mapped(files.taken[entry.name]) as content:
                    _write_chunks(file.write, cipher, index, content, chunk_bytes)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(draft, out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ModelError("PACKAGE_NOT_WRITTEN", f"cannot write the package: {error.strerror}") from None
    return Packaged(manifest, manifest.digest, size)


def _manifest(files: FolderFiles, model_id: str, model_version: str) -> Manifest:
    entries = []
    for name, path in sorted(files.taken.items()):
        with _mapped(path) as content:
            check_file(name, content)
            digest = hashlib.sha256(content).digest()
            entries.append(FileEntry(check_name(name), len(content), digest))
    return Manifest(model_id, model_version, tuple(entries))


class _mapped:
    """A file's bytes, mapped and not copied."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> memoryview:
        with self._path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            self._map = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._view = memoryview(b"") if self._map is None else memoryview(self._map)
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.release()
        if self._map is not None:
            self._map.close()


def _write_chunks(
    write: Callable[[bytes], object], cipher: ChunkCipher, file: int, content: memoryview, chunk_bytes: int
) -> None:
    sizes = chunk_sizes(len(content), chunk_bytes)
    start = 0
    for number, size in enumerate(sizes):
        sealed = cipher.seal(file, number, number == len(sizes) - 1, content[start : start + size])
        write(LENGTH.pack(len(sealed)))
        write(sealed)
        start += size
