"""Chunks: one size, one job, one place in a run; and the parameters of generate."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.wire.chunk import (
    CHUNK_BYTES,
    ChunkHeader,
    Deltas,
    decode_chunk,
    fill,
    is_chunk,
    read_deltas,
    seal_chunk,
)
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import Error, MalformedError, SealingError, VerificationError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.header import ReplyHeader
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import decode_message, encode_message
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealer

from ..vectors import generate_stream
from . import strategies as some

SPEC = Path(__file__).resolve().parents[2] / "spec"
GRAMMAR = (SPEC / "wire.cddl").read_text() + (SPEC / "stream.cddl").read_text()
KEY = PrivateKey.from_seed("x25519", bytes(32))
SALT = bytes(range(32))
HEADER = ChunkHeader(bytes(16), "minilm", KEY.public_key.key_id, bytes(8), 0, False)

headers = st.builds(
    ChunkHeader,
    *(some.octets(16), some.pools, some.octets(32), some.octets(8), st.integers(0, (1 << 20) - 1)),
    st.booleans(),
)
texts = st.lists(st.tuples(st.integers(0, 2047), st.text(max_size=600)), max_size=6)


def sealed(deltas: Deltas, header: ChunkHeader = HEADER, salt: bytes = SALT) -> bytes:
    return seal_chunk(Sealer(KEY.public_key, "chunk", monotonic=lambda: 0.0), salt, header, deltas)


def opened(message: bytes, salt: bytes = SALT) -> Deltas:
    head, content = decode_chunk(message)
    return read_deltas(salt, head, Opener([KEY], "chunk").open(head, content))


@lru_cache
def schema(rule: str) -> pycddl.Schema:
    return pycddl.Schema(f"start = {rule}\n{GRAMMAR}")


def follows(rule: str, data: bytes) -> None:
    schema(rule).validate_cbor(data)


@given(headers)
def test_headers(header: ChunkHeader) -> None:
    follows("chunk-header", header.encode())
    assert ChunkHeader.decode(header.encode()) == header
    with pytest.raises(MalformedError):
        ReplyHeader.decode(header.encode())


@given(texts)
def test_filling_loses_and_reorders_nothing(pending: list[tuple[int, str]]) -> None:
    whole: dict[int, str] = {}
    for index, text in pending:
        whole[index] = whole.get(index, "") + text
    got = dict.fromkeys(whole, "")
    rest: list[tuple[int, str]] = pending
    for _ in range(100):
        deltas, rest = fill(rest)
        for index, text in deltas:
            got[index] += text
        assert opened(sealed(deltas)) == deltas
        if not rest:
            break
        assert deltas
    assert got == whole


@given(texts)
def test_every_chunk_has_one_size(pending: list[tuple[int, str]]) -> None:
    assert len(sealed(fill(pending)[0])) == len(sealed(()))


def test_a_chunk_is_told_from_other_messages_and_refused_by_their_readers() -> None:
    message = sealed(((0, "a"),))
    assert is_chunk(message)
    assert not is_chunk(encode_message(b"a pack"))
    with pytest.raises(MalformedError):
        decode_message(message)
    follows("chunk-message", message)


def test_too_much_text_is_refused() -> None:
    with pytest.raises(MalformedError, match="CHUNK_TOO_LARGE"):
        sealed(((0, "a" * CHUNK_BYTES),))


def test_who_does_not_know_the_salt_makes_no_chunk() -> None:
    """Anybody who learns the public reply key can seal to it."""
    with pytest.raises(VerificationError, match="CHUNK_NOT_OF_JOB"):
        opened(sealed(((0, "forged"),), salt=bytes(32)))


def test_header_and_purpose_are_authenticated() -> None:
    message = decode(sealed(((0, "a"),)))
    assert isinstance(message, list)
    moved = ChunkHeader.decode(message[1])
    message[1] = ChunkHeader(moved.job_id, moved.pool, moved.key_id, moved.run, 1, moved.last).encode()
    with pytest.raises(SealingError):
        opened(encode(message))
    head, content = decode_chunk(sealed(()))
    with pytest.raises(SealingError):
        Opener([KEY], "result").open(head, content)


@given(st.data())
def test_mutated_chunks_are_refused_with_our_errors(data: st.DataObject) -> None:
    message = bytearray(sealed(((0, "text"),)))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Error):
        opened(bytes(message))


def test_published_vectors_are_what_the_generator_makes(tmp_path: Path) -> None:
    for name, text in generate_stream.build().items():
        assert (generate_stream.PUBLISHED / name).read_text() == text
    fresh = json.loads(generate_stream.build(tmp_path)["chunks.json"])
    kept = json.loads((generate_stream.PUBLISHED / "chunks.json").read_text())
    assert [item["plaintext"] for item in fresh] == [item["plaintext"] for item in kept]


def test_parameters_follow_the_grammar() -> None:
    for vector in generate_stream.parameters():
        follows("generate-parameters", encode(vector["parameters"]))


integers = st.integers(-(2**70), 2**70)
anything = (
    integers | st.floats() | st.text(max_size=5) | st.booleans() | st.none() | st.lists(st.text(max_size=4))
)
NAMES = [*GenerateParameters.__dataclass_fields__, "n", "functions"]


@given(st.dictionaries(st.sampled_from(NAMES), anything, max_size=3))
def test_parameters_are_read_or_refused(parameters: dict[str, Any]) -> None:
    try:
        read = GenerateParameters.read(parameters)
    except MalformedError:
        return
    assert GenerateParameters.read(read.to_parameters()) == read
    assert encode(read.effective())


@pytest.mark.parametrize(
    ("parameters", "inputs"),
    [
        ({"max_tokens": 0}, 1),
        ({"max_tokens": 131_073}, 1),
        ({"max_tokens": True}, 1),
        ({"max_tokens": 8.0}, 1),
        ({"max_tokens": 1024}, 1025),
        ({"temperature": 2.001}, 1),
        ({"temperature": -0.1}, 1),
        ({"temperature": float("nan")}, 1),
        ({"temperature": True}, 1),
        ({"temperature": "1"}, 1),
        ({"top_k": -1}, 1),
        ({"top_p": 0}, 1),
        ({"top_p": 1.01}, 1),
        ({"min_p": float("inf")}, 1),
        ({"repetition_penalty": 0}, 1),
        ({"presence_penalty": 2.5}, 1),
        ({"frequency_penalty": -2.5}, 1),
        ({"seed": -1}, 1),
        ({"seed": 1 << 32}, 1),
        ({"stop": "END"}, 1),
        ({"stop": [""]}, 1),
        ({"stop": ["a" * 257]}, 1),
        ({"stop": ["a"] * 17}, 1),
        ({"stop": ["\ud800"]}, 1),
        ({"stop": [1]}, 1),
        ({"logprobs": 1}, 1),
        ({"top_logprobs": 5}, 1),
        ({"top_logprobs": 21, "logprobs": True}, 1),
        ({"logprobs": True, "top_logprobs": 20, "max_tokens": 9_524}, 1),
        ({"normalize": True}, 1),
    ],
)
def test_parameters_out_of_bounds(parameters: dict[str, Any], inputs: int) -> None:
    with pytest.raises(MalformedError, match="BAD_PARAMETERS"):
        GenerateParameters.read(parameters, inputs)


def test_parameters_within_bounds() -> None:
    read = GenerateParameters.read({"temperature": 0, "stop": ["a"], "seed": 5, "stream": True})
    assert (read.temperature, read.stop, read.seed) == (0.0, ("a",), 5)
    recorded = read.effective()
    assert "seed" not in recorded
    assert "stream" not in recorded
    assert recorded["temperature"] == 0.0
    assert recorded["max_tokens"] == 256
