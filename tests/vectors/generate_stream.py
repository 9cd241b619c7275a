"""Writes spec/vectors/stream/: ``python -m tests.vectors.generate_stream``.

Everything but the sealing follows from fixed seeds; the sealed example is kept from the
published file, opened and checked again, and made only where there is none yet.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ephemeralml.wire.chunk import (
    CHUNK_BYTES,
    ChunkHeader,
    Deltas,
    decode_chunk,
    read_deltas,
    seal_chunk,
)
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import Error
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.sealing import Sealer

from . import wire_samples as samples

PUBLISHED = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "stream"
SALT = samples.filled(0x80, 32)
Vectors = list[dict[str, Any]]


def chunk_headers() -> dict[str, ChunkHeader]:
    """Return a first, a last and the highest header."""
    names = (
        samples.filled(0x10, 16),
        "minilm",
        samples.public_key("xwing", 2).key_id,
        samples.filled(0x20, 8),
    )
    return {
        "first": ChunkHeader(*names, 0, False),
        "last": ChunkHeader(*names, 7, True),
        "highest": ChunkHeader(*names, (1 << 20) - 1, False),
    }


def chunk_deltas() -> dict[str, Deltas]:
    """Return an empty chunk, one of two inputs, and one of long characters."""
    return {
        "empty": (),
        "two-inputs": ((0, "Once upon"), (1, "Es war"), (0, " a time")),
        "characters": ((2047, "水" * 300),),
    }


def headers() -> Vectors:
    """Return headers of chunks."""
    return [{"name": name, "cbor": header.encode().hex()} for name, header in chunk_headers().items()]


def chunks(published: Path) -> Vectors:
    """Return whole chunks with the keys that open them.

    :raises AssertionError: a published one opens to something else.
    """
    path = published / "chunks.json"
    known = {v["name"]: v for v in json.loads(path.read_text())} if path.exists() else {}
    return [
        _chunk(name, header, deltas, known.get(name))
        for (name, deltas), header in zip(chunk_deltas().items(), chunk_headers().values(), strict=True)
    ]


def _chunk(name: str, header: ChunkHeader, deltas: Deltas, known: dict[str, Any] | None) -> dict[str, Any]:
    private = samples.private_key("xwing", 2)
    if known is None:
        sealer = Sealer(private.public_key, "chunk", monotonic=time.monotonic)
        message = seal_chunk(sealer, SALT, header, deltas)
    else:
        message = bytes.fromhex(known["message"])
    head, sealed = decode_chunk(message)
    plaintext = Opener([private], "chunk").open(head, sealed)
    if head != header.encode() or read_deltas(SALT, head, plaintext) != deltas:
        raise AssertionError(f"{name} opens to something else")
    return {
        "name": name,
        "seed": samples.filled(2, 32).hex(),
        "salt": SALT.hex(),
        "deltas": [list(delta) for delta in deltas],
        "plaintext": plaintext.hex(),
        "message": message.hex(),
    }


def _frame(value: object) -> bytes:
    content = encode(value)
    return (len(content).to_bytes(2, "big") + content).ljust(CHUNK_BYTES, b"\0")


def invalid() -> Vectors:
    """Return what must be refused, each checked against its reader."""
    header = chunk_headers()["first"].encode()
    fields = decode(header)
    if not isinstance(fields, dict):
        raise AssertionError("a header is a map")
    good = _frame([bytes(32), []])
    cases: list[tuple[str, str, bytes, str]] = [
        ("header", "index-too-high", encode({**fields, 10: 1 << 20}), "OUT_OF_BOUNDS"),
        ("header", "index-true", encode({**fields, 10: True}), "WRONG_TYPE"),
        ("header", "last-one", encode({**fields, 11: 1}), "WRONG_TYPE"),
        ("header", "run-of-seven", encode({**fields, 9: bytes(7)}), "OUT_OF_BOUNDS"),
        ("header", "reply-header", samples.reply_headers()["single"].encode(), "MISSING_FIELD"),
        ("header", "reply-header-batch", samples.reply_headers()["batch"].encode(), "UNKNOWN_FIELD"),
        ("header", "other-version", encode({**fields, 1: 2}), "UNKNOWN_VERSION"),
        ("content", "tag-wrong", good, "CHUNK_NOT_OF_JOB"),
        ("content", "one-byte-more", good + b"\0", "PADDING"),
        ("content", "one-byte-less", good[:-1], "PADDING"),
        ("content", "filling-not-zero", good[:-1] + b"\1", "PADDING"),
        ("content", "length-beyond", b"\xff\xff" + good[2:], "PADDING"),
        ("content", "not-an-array", _frame({}), "WRONG_TYPE"),
        ("content", "input-2048", _frame([bytes(32), [[2048, "a"]]]), "OUT_OF_BOUNDS"),
        ("content", "input-negative", _frame([bytes(32), [[-1, "a"]]]), "OUT_OF_BOUNDS"),
        ("content", "text-bytes", _frame([bytes(32), [[0, b"a"]]]), "WRONG_TYPE"),
        ("message", "pack", encode([0, b"a"]), "WRONG_TYPE"),
        ("message", "form-float", encode([2.0, b"a", b"b", bytes(12), b"c"]), "WRONG_TYPE"),
        ("message", "iv-of-eleven", encode([2, b"a", b"b", bytes(11), b"c"]), "WRONG_TYPE"),
        ("message", "too-large", encode([2, b"a", b"b", bytes(12), bytes(8192)]), "CBOR_TOO_LARGE"),
    ]
    return [
        {"reader": reader, "name": name, "bytes": data.hex(), "error": _refused(reader, data, code)}
        for reader, name, data, code in cases
    ]


def _refused(reader: str, data: bytes, code: str) -> str:
    try:
        read(reader, data)
    except Error as error:
        if error.code == code:
            return code
        raise AssertionError(f"{error.code} instead of {code}") from None
    raise AssertionError("was accepted")


def read(reader: str, data: bytes) -> object:
    """Read bytes of a vector with the reader that it names."""
    if reader == "header":
        return ChunkHeader.decode(data)
    if reader == "message":
        return decode_chunk(data)
    return read_deltas(SALT, chunk_headers()["first"].encode(), data)


def parameters() -> Vectors:
    """Return parameters as they are read: what a job holds, and what the response records."""
    jobs: dict[str, dict[str, Any]] = {
        "none": {},
        "greedy": {"temperature": 0, "max_tokens": 1},
        "all": {
            **{"max_tokens": 131_072, "temperature": 0.5, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
            **{"repetition_penalty": 1.1, "presence_penalty": -2, "frequency_penalty": 2, "seed": 2**32 - 1},
            **{"stop": ["\n\n", "END"], "chat_template": True, "stream": True},
        },
        "logprobs": {"max_tokens": 9_523, "logprobs": True, "top_logprobs": 20},
    }
    return [
        {"name": name, "parameters": given, "recorded": GenerateParameters.read(given).effective()}
        for name, given in jobs.items()
    ]


def build(published: Path = PUBLISHED) -> dict[str, str]:
    """Return every file's text by name."""
    vectors = {
        "headers": headers(),
        "chunks": chunks(published),
        "invalid": invalid(),
        "parameters": parameters(),
    }
    return {f"{name}.json": json.dumps(v, indent=1, ensure_ascii=True) + "\n" for name, v in vectors.items()}


def main(folder: Path) -> None:
    """Write every file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in build().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PUBLISHED)
