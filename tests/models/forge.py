"""Makes packages: honest ones through the library, hostile ones by hand, under good signatures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.key_release.protocol import DataKey
from ephemeralml.wire.cose import sign1
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import KeyReleaseError
from ephemeralml.workers.models import LoadedModel, Source, folder_files, open_package, package_model
from ephemeralml.workers.models.manifest import PROTECTED, FileEntry, Manifest
from ephemeralml.workers.models.stream import LENGTH, MAGIC, ChunkCipher, PackageHeader, chunks_of

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = OWNER.public_key().public_bytes_raw()
KEY = bytes(range(100, 132))
WRAPPED = b"wrapped"
CHUNK = 4096


def tensors(**values: bytes) -> bytes:
    """Return a safetensors file of U8 vectors."""
    header, offset = {}, 0
    for name, value in values.items():
        header[name] = {"dtype": "U8", "shape": [len(value)], "data_offsets": [offset, offset + len(value)]}
        offset += len(value)
    return with_header(json.dumps(header).encode(), b"".join(values.values()))


def with_header(header: bytes, data: bytes = b"") -> bytes:
    """Return a safetensors file of a given header."""
    return len(header).to_bytes(8, "little") + header + data


def make(folder: Path, out: Path, key: bytes = KEY, signer: Ed25519PrivateKey = OWNER, **more: str) -> bytes:
    """Package a folder as the owner does."""
    package_model(
        folder_files(folder),
        out,
        model_id=more.get("model_id", "m"),
        model_version="1",
        signing_key=signer,
        data_key=lambda _: DataKey(key, WRAPPED),
        chunk_bytes=CHUNK,
    )
    return out.read_bytes()


def forge(
    files: Mapping[str, bytes],
    sizes: Mapping[str, int] | None = None,
    digests: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return a package of any files, signed by the owner, without any of the packager's checks.

    :param sizes: what the manifest says of a file's size, where it lies. :param digests: the same of hashes.
    """
    entries = tuple(
        FileEntry(name, (sizes or {}).get(name, len(content)), (digests or {}).get(name, sha256(content)))
        for name, content in sorted(files.items())
    )
    manifest = Manifest("m", "1", entries)
    context = {"purpose": "model", "model": "m", "manifest": manifest.digest.hex()}
    signed = sign1(manifest.encode(), OWNER, protected=PROTECTED)
    encoded = PackageHeader(bytes(16), CHUNK, WRAPPED, context, signed).encode()
    cipher = ChunkCipher(KEY, bytes(16), encoded)
    out = [MAGIC, LENGTH.pack(len(encoded)), encoded]
    for index, entry in enumerate(entries):
        content = files[entry.name]
        for number, place, last in chunks_of(len(content), CHUNK):
            sealed = cipher.seal(index, number, last, content[place])
            out += [LENGTH.pack(len(sealed)), sealed]
    return b"".join(out)


def load(
    data: bytes | Source,
    key: bytes = KEY,
    signers: tuple[bytes, ...] = (SIGNER,),
    expected: bytes | None = None,
    asked: list[str] | None = None,
) -> LoadedModel:
    """Open a package as a worker does; ``asked`` collects the contexts that the KMS was asked for."""

    def provider(wrapped: bytes, context: Mapping[str, str]) -> bytes:
        if asked is not None:
            asked.append(context["model"])
        if wrapped != WRAPPED or context["model"] != "m":
            raise KeyReleaseError("KMS_REFUSED_REQUEST", "another blob or context than the KMS wrapped")
        return key

    source = io.BytesIO(data) if isinstance(data, bytes) else data
    return open_package(source, provider, trusted_signers=signers, expected_manifest_hash=expected)


def chunks(data: bytes) -> tuple[bytes, list[bytes]]:
    """Split a package into its head and its framed chunks."""
    start = len(MAGIC) + 4 + LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + 4])[0]
    head, pieces, place = data[:start], [], start
    while place < len(data):
        size = 4 + LENGTH.unpack(data[place : place + 4])[0]
        pieces.append(data[place : place + size])
        place += size
    return head, pieces
