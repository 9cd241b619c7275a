"""GGUF files: the structure is judged before a parser in C sees them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.wire.errors import ModelError
from ephemeralml.workers.models.file_kinds import check_file
from ephemeralml.workers.models.gguf_header import check_gguf


def name(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return name(key) + struct.pack("<I", kind) + value


def tensor(key: str, *sides: int, offset: int = 0) -> bytes:
    return name(key) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, 0, offset)


ENTRIES = [
    entry("general.architecture", 8, name("llama")),
    entry("llama.context_length", 4, struct.pack("<I", 256)),
    entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + name("a") + name("b")),
    entry("tokenizer.ggml.scores", 9, struct.pack("<IQ2f", 6, 2, 0.0, 1.0)),
]


def file(
    entries: list[bytes] = ENTRIES, tensors: list[bytes] | None = None, *, version: int = 3, data: int = 64
) -> bytes:
    tensors = [tensor("a", 4, 2), tensor("b", 8, offset=32)] if tensors is None else tensors
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    return head + b"".join(entries) + b"".join(tensors) + bytes(data)


@pytest.mark.parametrize("version", [2, 3])
def test_good_files_pass(version: int) -> None:
    check_file("model.gguf", memoryview(file(version=version)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"PK\3\4" + file()[4:],
        file(version=1),
        file(version=4),
        file(entries=[ENTRIES[0], ENTRIES[0]]),
        file(entries=[entry("a", 13, b"")]),
        file(entries=[entry("a", 9, struct.pack("<IQ", 9, 1))]),
        file(entries=[entry("a", 9, struct.pack("<IQ", 4, 1 << 30))]),
        file(entries=[entry("a", 8, struct.pack("<Q", 1 << 60))]),
        file(tensors=[tensor("a", 4), tensor("a", 4)]),
        file(tensors=[tensor("a")]),
        file(tensors=[tensor("a", 1, 1, 1, 1, 1)]),
        file(tensors=[tensor("a", 1 << 41)]),
        file(tensors=[tensor("a", 1 << 30, 1 << 30)]),
        file(tensors=[tensor("a", 4, offset=31)]),
        file(tensors=[tensor("a", 4, offset=1 << 62)]),
        file(data=0),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0) + bytes(64),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40) + bytes(64),
    ],
)
def test_others_are_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"GGUF_MALFORMED|MODEL_PICKLE"):
        check_file("model.gguf", memoryview(content))


@given(st.integers(0, len(file()) - 65))
def test_a_file_that_ends_early_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match="GGUF_MALFORMED"):
        check_gguf(memoryview(file()[:size]))


@given(st.integers(0, len(file()) - 65), st.integers(1, 255))
def test_a_changed_byte_raises_nothing_else(place: int, flip: int) -> None:
    content = bytearray(file())
    content[place] ^= flip
    try:
        check_gguf(memoryview(content))
    except ModelError as error:
        assert error.code == "GGUF_MALFORMED"  # noqa: PT017


def test_templates_are_text() -> None:
    check_file("chat_template.jinja", memoryview(b"{{ messages }}"))
    with pytest.raises(ModelError, match="MODEL_NOT_TEXT"):
        check_file("chat_template.jinja", memoryview(b"\xff"))
