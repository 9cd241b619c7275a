"""Fuzz targets of generation: chunks, parameters, GGUF headers."""

from __future__ import annotations

from functools import cache
from typing import Any

from ephemeralml.wire.chunk import ChunkHeader, decode_chunk, is_chunk, read_deltas
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import MalformedError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.workers.models.gguf_header import check_gguf

from ..models.test_gguf_header import ENTRIES, file
from ..vectors import generate_stream as stream
from .target import Target


def _header(data: bytes) -> None:
    assert ChunkHeader.decode(data).encode() == data, "two byte strings are read as one header"


def _message(data: bytes) -> None:
    header, sealed = decode_chunk(data)
    assert is_chunk(data)
    assert encode([2, header, sealed.recipient, sealed.iv, sealed.ciphertext]) == data


@cache
def _chunks() -> list[dict[str, Any]]:
    return stream.chunks(stream.PUBLISHED)


def _deltas(data: bytes) -> None:
    head = stream.chunk_headers()["first"].encode()
    read_deltas(stream.SALT, head, data)
    known = [chunk["plaintext"] for chunk in _chunks()]
    assert data.hex() in known, "content that nobody who knows the salt has made"


def _parameters(data: bytes) -> None:
    given = decode(data)
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise MalformedError("NOT_A_MAP", "parameters are a map")
    read = GenerateParameters.read(given)
    assert GenerateParameters.read(read.to_parameters()) == read


TARGETS = (
    Target("chunk-header", lambda: [h.encode() for h in stream.chunk_headers().values()], _header),
    Target("chunk-message", lambda: [bytes.fromhex(c["message"]) for c in _chunks()], _message),
    Target("chunk-content", lambda: [bytes.fromhex(c["plaintext"]) for c in _chunks()], _deltas),
    Target(
        "generate-parameters",
        lambda: [encode(vector["parameters"]) for vector in stream.parameters()],
        _parameters,
        (b"ktemperature", b"dstop", b"dseed"),
    ),
    Target(
        "gguf", lambda: [file(), file(ENTRIES[:1])], lambda data: check_gguf(memoryview(data)), (b"GGUF",)
    ),
)
