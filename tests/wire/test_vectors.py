"""The published vectors: the generator makes them again, readers agree with them, sealed ones open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import MalformedError, SealingError
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.padding import pad, padme, unpad
from ephemeralml.wire.private_keys import PrivateKey

from ..vectors import generate_wire
from ..vectors.wire_invalid import READERS
from .strategies import refuses

PUBLISHED = generate_wire.PUBLISHED


def published(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((PUBLISHED / f"{name}.json").read_text())
    return vectors


def test_the_generator_makes_the_published_files_again(tmp_path: Path) -> None:
    generate_wire.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in PUBLISHED.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (PUBLISHED / path.name).read_bytes(), path.name


def test_sealed_examples_are_made_where_there_are_none(tmp_path: Path) -> None:
    made = generate_wire.sealed(tmp_path)
    kept = published("sealed")
    assert [v["info"] for v in made] == [v["info"] for v in kept]
    assert all(new["iv"] != old["iv"] for new, old in zip(made, kept, strict=True))


def test_a_damaged_published_example_stops_the_generator(tmp_path: Path) -> None:
    vectors = published("sealed")
    vectors[0]["iv"] = "00" * 12
    (tmp_path / "sealed.json").write_text(json.dumps(vectors))
    with pytest.raises(SealingError):
        generate_wire.sealed(tmp_path)


def test_there_are_enough_invalid_cases_and_all_are_refused() -> None:
    vectors = published("invalid")
    assert len({(vector["reader"], vector["name"]) for vector in vectors}) == len(vectors) >= 100
    assert {vector["reader"] for vector in vectors} == READERS.keys()
    for vector in vectors:
        refuses(vector["error"], READERS[vector["reader"]], bytes.fromhex(vector["bytes"]))


def test_valid_messages_are_read_by_their_reader_alone() -> None:
    vectors = published("headers") + published("jobs") + published("packs") + published("announcements")
    assert len(vectors) >= 15
    for vector in vectors:
        data = bytes.fromhex(vector["cbor"])
        assert sha256(data).hex() == vector["sha256"]
        accepted = {reader for reader in READERS if reader != "encoding" and _reads(reader, data)}
        assert accepted == {vector["kind"]}


def _reads(reader: str, data: bytes) -> bool:
    try:
        READERS[reader](data)
    except MalformedError:
        return False
    return True


def test_keys() -> None:
    for vector in published("keys"):
        key = PrivateKey.from_seed(vector["suite"], bytes.fromhex(vector["seed"])).public_key
        assert (key.raw.hex(), key.key_id.hex()) == (vector["public_key"], vector["key_id"])


def test_padding() -> None:
    for vector in published("padding"):
        assert padme(vector["content_bytes"] + 4) == vector["padded_bytes"]
        if "content" in vector:
            assert pad(bytes.fromhex(vector["content"])).hex() == vector["padded"]
            assert unpad(bytes.fromhex(vector["padded"])).hex() == vector["content"]


def test_sealed_examples_open_with_their_seed_for_their_purpose() -> None:
    vectors = published("sealed")
    assert {(v["suite"], v["purpose"]) for v in vectors} == {
        (suite, purpose) for suite in ("xwing", "x25519") for purpose in ("job", "result")
    }
    for vector in vectors:
        key = PrivateKey.from_seed(vector["suite"], bytes.fromhex(vector["seed"]))
        message, header = generate_wire.sealed_message(vector), bytes.fromhex(vector["header"])
        opened = Opener([key], vector["purpose"]).open(header, message)
        assert opened.hex() == vector["plaintext"]
        other: Any = {"job": "result", "result": "job"}[vector["purpose"]]
        with pytest.raises(SealingError):
            Opener([key], other).open(header, message)


def test_every_info_and_aad_says_what_the_specification_says() -> None:
    """Written out byte by byte, without our encoder."""
    ids = {(vector["suite"], vector["seed"]): vector for vector in published("keys")}
    for vector in published("sealed"):
        key_id = bytes.fromhex(ids[vector["suite"], vector["seed"]]["key_id"])
        algorithm = b"\x3a\x00\x01\x11\x70" if vector["suite"] == "xwing" else b"\x18\x32"
        protected = b"\xa2\x01" + algorithm + b"\x04\x58\x20" + key_id
        suite, purpose = vector["suite"].encode(), vector["purpose"].encode()
        extra = b"\x83\x6dephemeralml/1"
        extra += bytes([0x60 | len(suite)]) + suite + bytes([0x60 | len(purpose)]) + purpose
        info = b"\x84\x6eHPKE Recipient\x03\x58" + bytes([len(protected)]) + protected
        info += _head(0x40, len(extra)) + extra
        assert vector["info"] == info.hex()
        header = bytes.fromhex(vector["header"])
        aad = b"\x83\x67Encrypt\x43\xa1\x01\x03" + _head(0x40, len(header)) + header
        assert vector["aad"] == aad.hex()


def _head(major: int, size: int) -> bytes:
    return bytes([major | size]) if size < 24 else bytes([major | 24, size])
