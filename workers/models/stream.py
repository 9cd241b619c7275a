"""The package as bytes: a header, then every file as sealed chunks.

::

    magic "EMLPKG1\\n" | header length (4 bytes, big endian) | header (CBOR)
    for each file, for each chunk: ciphertext length (4 bytes, big endian) | AES-256-GCM ciphertext

The package key is HKDF-SHA256 of the model key with the package id as salt, so that no
nonce repeats under one model key. A chunk's nonce is its counter; its AAD binds package,
header, file, chunk number and last-flag: reordered, cut, doubled or swapped chunks do not
open (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ...wire.encoding import decode, encode, sha256
from ...wire.errors import MalformedError, ModelError
from ...wire.fields import Fields

MAGIC: Final = b"EMLPKG1\n"
VERSION: Final = 1
CHUNK_BYTES: Final = 1 << 20
MAX_CHUNK_BYTES: Final = 16 << 20
MAX_HEADER_BYTES: Final = 131_072
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
LENGTH: Final = struct.Struct(">I")
_INFO: Final = b"ephemeralml/1 model package"


@dataclass(frozen=True, slots=True)
class PackageHeader:
    """What stands before the chunks; bound to every chunk by its hash.

    :param package_id: 16 random bytes. :param wrapped: the model key as the KMS wrapped it.
    """

    package_id: bytes
    chunk_bytes: int
    wrapped: bytes
    context: dict[str, str]
    manifest: bytes

    def encode(self) -> bytes:
        """Return the deterministic CBOR."""
        return encode(
            {
                1: VERSION,
                2: self.package_id,
                3: self.chunk_bytes,
                4: self.wrapped,
                5: self.context,
                6: self.manifest,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> PackageHeader:
        """Read a header.

        :raises ModelError: ``PACKAGE_MALFORMED``.
        """
        try:
            fields = Fields(decode(data, max_bytes=MAX_HEADER_BYTES), "package header", range(1, 7))
            fields.version(1, VERSION)
            context = fields.required(5, dict)
            if not all(isinstance(k, str) and isinstance(v, str) for k, v in context.items()):
                raise MalformedError("WRONG_TYPE", "the context is not text")
            return cls(
                fields.octets(2, 16),
                fields.uint(3, minimum=4096, maximum=MAX_CHUNK_BYTES),
                fields.octets(4, 1, 6144),
                context,
                fields.octets(6, 1, 65_536),
            )
        except MalformedError as error:
            raise ModelError("PACKAGE_MALFORMED", error.code) from None


class ChunkCipher:
    """Seals and opens the chunks of one package.

    :param model_key: 32 bytes. :param header: the encoded package header.
    :raises ModelError: ``MODEL_KEY_LENGTH``.
    """

    def __init__(self, model_key: bytes, package_id: bytes, header: bytes) -> None:
        if len(model_key) != KEY_BYTES:
            raise ModelError("MODEL_KEY_LENGTH", f"a model key has {KEY_BYTES} bytes")
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=package_id, info=_INFO).derive(model_key)
        self._aead = AESGCM(derived)
        self._binding = package_id + sha256(header)
        self._counter = 0

    def seal(self, file: int, chunk: int, last: bool, plaintext: bytes | memoryview) -> bytes:
        """Return the next chunk's ciphertext."""
        return self._aead.encrypt(self._nonce(), plaintext, self._aad(file, chunk, last))

    def open(self, file: int, chunk: int, last: bool, ciphertext: memoryview, into: memoryview) -> None:
        """Open the next chunk straight into memory.

        :raises ModelError: ``PACKAGE_TAMPERED``.
        """
        try:
            self._aead.decrypt_into(self._nonce(), ciphertext, self._aad(file, chunk, last), into)
        except InvalidTag:
            raise ModelError("PACKAGE_TAMPERED", "a chunk does not open") from None

    def _nonce(self) -> bytes:
        self._counter += 1
        return self._counter.to_bytes(12, "big")

    def _aad(self, file: int, chunk: int, last: bool) -> bytes:
        return self._binding + struct.pack(">IQ?", file, chunk, last)


def chunks_of(size: int, chunk_bytes: int) -> Iterator[tuple[int, slice, bool]]:
    """Yield ``(number, place, last)`` of a file's chunks; an empty file has one empty chunk."""
    count = max(1, -(-size // chunk_bytes))
    for number in range(count):
        start = number * chunk_bytes
        yield number, slice(start, min(start + chunk_bytes, size)), number == count - 1
