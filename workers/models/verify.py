"""What can be verified of a package without its key: signature, header, sizes and chunk layout."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from ...wire.errors import ModelError
from .file_kinds import check_kind
from .manifest import Manifest, verify_manifest
from .open import key_context, read_header
from .source import Source, SourceReader
from .stream import LENGTH, TAG_BYTES, PackageHeader, chunks_of


def verify_package(
    source: Source, *, trusted_signers: Collection[bytes], expected_manifest_hash: bytes | None
) -> tuple[Manifest, bytes, PackageHeader]:
    """Return manifest, its hash and the header of a package that is in order, as far as that shows outside.

    Not checked: what the chunks hold. That takes the key (:func:`.open.open_package`).

    :raises ModelError: as :func:`.open.open_package`, up to the key.
    """
    reader = SourceReader(source)
    _, header = read_header(reader)
    manifest, manifest_hash = verify_manifest(header.manifest, trusted_signers)
    if expected_manifest_hash is not None and not hmac.compare_digest(manifest_hash, expected_manifest_hash):
        raise ModelError("MODEL_UNEXPECTED", "the package holds another model")
    if header.context != key_context(manifest, manifest_hash):
        raise ModelError("MODEL_CONTEXT_MISMATCH", "the package's key context is of another model")
    for entry in manifest.files:
        check_kind(entry.name)
    buffer = memoryview(bytearray(header.chunk_bytes + TAG_BYTES))
    for entry in manifest.files:
        for _, place, _ in chunks_of(entry.size, header.chunk_bytes):
            sealed = place.stop - place.start + TAG_BYTES
            if LENGTH.unpack(reader.take(LENGTH.size))[0] != sealed:
                raise ModelError("PACKAGE_TAMPERED", "a chunk has the wrong size")
            reader.fill(buffer[:sealed])
    if not reader.at_end():
        raise ModelError("PACKAGE_MALFORMED", "bytes follow the package")
    return manifest, manifest_hash, header
