"""Packaging: check and hash every file, sign the manifest, seal the chunks."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...attestation.key_release.protocol import DataKey
from ...wire.errors import ModelError
from .file_kinds import check_file
from .files import FolderFiles, adapters_of
from .manifest import FileEntry, Manifest, sign_manifest
from .stream import CHUNK_BYTES, LENGTH, MAGIC, ChunkCipher, PackageHeader, chunks_of

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

    No key is asked for before every file was checked.

    :param data_key: asks the KMS for a fresh model key under the given encryption context.
    :param progress: called with each file's name and size in bytes, before it is sealed.
    :param chunk_bytes: plaintext bytes of a chunk, 4 KiB to 16 MiB.
    :raises ModelError: what :func:`.file_kinds.check_file` refuses; ``MANIFEST_MALFORMED``,
        ``PACKAGE_MALFORMED`` or ``MODEL_KEY_LENGTH`` for an id, key or chunk size that does not fit the
        format; ``MODEL_CHANGED``, ``MODEL_FILE_UNREADABLE`` or ``PACKAGE_NOT_WRITTEN``.
    :raises KeyReleaseError: no key.
    """
    manifest = _manifest(files, model_id, model_version)
    signed = sign_manifest(manifest, signing_key)
    context = {"purpose": "model", "model": model_id, "manifest": manifest.digest.hex()}
    key = data_key(context)
    header = PackageHeader(os.urandom(16), chunk_bytes, key.wrapped, context, signed)
    encoded = header.encode()
    PackageHeader.decode(encoded)
    cipher = ChunkCipher(key.plaintext, header.package_id, encoded)
    try:
        with _whole_or_nothing(out) as file:
            file.write(MAGIC + LENGTH.pack(len(encoded)) + encoded)
            for index, entry in enumerate(manifest.files):
                progress(entry.name, entry.size)
                with _mapped(files.taken[entry.name]) as content:
                    _write_file(file, cipher, index, entry, content, chunk_bytes)
            size = file.tell()
    except OSError as error:
        raise ModelError("PACKAGE_NOT_WRITTEN", f"cannot write the package: {error.strerror}") from None
    return Packaged(manifest, manifest.digest, size)


def _manifest(files: FolderFiles, model_id: str, model_version: str) -> Manifest:
    entries = []
    for name, path in sorted(files.taken.items()):
        with _mapped(path) as content:
            check_file(name, content)
            entries.append(FileEntry(name, len(content), hashlib.sha256(content).digest()))
    return Manifest(model_id, model_version, tuple(entries), adapters_of(files.taken))


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[BinaryIO]:
    draft = out.with_name(out.name + ".part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, out)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """A file's bytes, mapped and not copied."""
    try:
        with path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            area = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError("MODEL_FILE_UNREADABLE", f"cannot read a model file: {error.strerror}") from None
    view = memoryview(b"" if area is None else area)
    try:
        yield view
    finally:
        # Views of it may live on in an error's traceback; then the map goes when that goes.
        with suppress(BufferError):
            view.release()
            if area is not None:
                area.close()


def _write_file(
    file: BinaryIO, cipher: ChunkCipher, index: int, entry: FileEntry, content: memoryview, chunk_bytes: int
) -> None:
    if len(content) != entry.size:
        raise _changed()
    digest = hashlib.sha256()
    for number, place, last in chunks_of(entry.size, chunk_bytes):
        with content[place] as chunk:
            digest.update(chunk)
            sealed = cipher.seal(index, number, last, chunk)
        file.write(LENGTH.pack(len(sealed)))
        file.write(sealed)
    if digest.digest() != entry.digest:
        raise _changed()


def _changed() -> ModelError:
    return ModelError("MODEL_CHANGED", "a model file changed while it was packaged")
