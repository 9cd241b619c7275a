"""Model packages: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pycddl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.key_release.protocol import DataKey
from ephemeralml.producer.lab import minilm_folder
from ephemeralml.wire.cose import decode_sign1, sign1
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import Error, KeyReleaseError, ModelError
from ephemeralml.workers.models import LoadedModel, folder_files, inspect_package, open_package, package_model
from ephemeralml.workers.models.manifest import PROTECTED, Manifest
from ephemeralml.workers.models.safetensors_header import check_safetensors
from ephemeralml.workers.models.stream import LENGTH, MAGIC, PackageHeader

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = OWNER.public_key().public_bytes_raw()
KEY = bytes(range(100, 132))
CHUNK = 4096


def tensors(**values: bytes) -> bytes:
    """Return a safetensors file of U8 vectors."""
    header, offset = {}, 0
    for name, value in values.items():
        header[name] = {"dtype": "U8", "shape": [len(value)], "data_offsets": [offset, offset + len(value)]}
        offset += len(value)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(values.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "config.json").write_text('{"hidden_size": 4}')
    (folder / "empty.txt").write_text("")
    (folder / "model.safetensors").write_bytes(tensors(a=os.urandom(9000), b=os.urandom(100)))
    (folder / "README.md").write_text("not part of it")
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 a pickle in a zip")
    return folder


def make(folder: Path, out: Path, key: bytes = KEY, signer: Ed25519PrivateKey = OWNER) -> bytes:
    package_model(
        folder_files(folder),
        out,
        model_id="m",
        model_version="1",
        signing_key=signer,
        data_key=lambda _: DataKey(key, b"wrapped"),
        chunk_bytes=CHUNK,
    )
    return out.read_bytes()


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(folder, tmp_path_factory.mktemp("out") / "m.eml")


def load(data: bytes, key: bytes = KEY, signers: tuple[bytes, ...] = (SIGNER,), **more: bytes) -> LoadedModel:
    def provider(wrapped: bytes, context: Mapping[str, str]) -> bytes:
        if wrapped != b"wrapped" or context["model"] != "m":
            raise KeyReleaseError("KMS_REFUSED_REQUEST", "another blob or context than the KMS wrapped")
        return key

    return open_package(
        io.BytesIO(data), provider, trusted_signers=signers, expected_manifest_hash=more.get("expected")
    )


def chunks(data: bytes) -> tuple[bytes, list[bytes]]:
    """Split a package into its head and its framed chunks."""
    start = len(MAGIC) + 4 + LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + 4])[0]
    head, pieces, place = data[:start], [], start
    while place < len(data):
        size = 4 + LENGTH.unpack(data[place : place + 4])[0]
        pieces.append(data[place : place + size])
        place += size
    return head, pieces


def test_round_trip_keeps_every_file(folder: Path, package: bytes) -> None:
    model = load(package)
    assert sorted(model.files) == ["1_Pooling/config.json", "config.json", "empty.txt", "model.safetensors"]
    for name, content in model.files.items():
        assert bytes(content) == (folder / name).read_bytes()
    assert model.manifest_hash == model.manifest.digest


def test_folder_says_what_it_left_out(folder: Path) -> None:
    assert folder_files(folder).left_out == ("README.md", "pytorch_model.bin")


def test_same_model_has_the_same_hash_in_every_package(folder: Path, package: bytes, tmp_path: Path) -> None:
    again = make(folder, tmp_path / "again.eml")
    assert again != package
    assert load(again).manifest_hash == load(package).manifest_hash


def test_inspect_needs_no_key(package: bytes) -> None:
    about = inspect_package(io.BytesIO(package))
    assert (about["model"], about["version"], about["signature"]) == ("m", "1", "not checked")
    assert about["manifest_hash"] == load(package).manifest_hash.hex()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": bytes(32)}, "PACKAGE_TAMPERED"),
        ({"signers": (bytes(32),)}, "MODEL_SIGNER_UNTRUSTED"),
        ({"signers": ()}, "MODEL_SIGNER_UNTRUSTED"),
        ({"expected": bytes(32)}, "MODEL_UNEXPECTED"),
    ],
)
def test_wrong_key_signer_or_model(package: bytes, change: dict[str, Any], code: str) -> None:
    with pytest.raises(ModelError, match=code):
        load(package, **change)


def test_chunks_reordered_doubled_dropped_or_cut(package: bytes) -> None:
    head, pieces = chunks(package)
    assert len(pieces) == 3 + 3
    swapped = [pieces[1], pieces[0], *pieces[2:]]
    same_size = [*pieces[:3], pieces[4], pieces[3], *pieces[5:]]
    for broken in (swapped, same_size, [*pieces[:4], pieces[3], *pieces[4:]], pieces[:-1], pieces[1:], []):
        with pytest.raises(ModelError, match=r"PACKAGE_(TAMPERED|TRUNCATED)"):
            load(head + b"".join(broken))
    for cut in (0, 4, len(MAGIC), len(head) - 1, len(head), len(head) + 2, len(package) - 1):
        with pytest.raises(ModelError, match="PACKAGE_TRUNCATED"):
            load(package[:cut])
    with pytest.raises(ModelError, match="PACKAGE_MALFORMED"):
        load(package + b"\0")


def test_chunk_of_another_package_under_the_same_key(folder: Path, package: bytes, tmp_path: Path) -> None:
    head, pieces = chunks(package)
    _, others = chunks(make(folder, tmp_path / "other.eml"))
    with pytest.raises(ModelError, match="PACKAGE_TAMPERED"):
        load(head + others[0] + b"".join(pieces[1:]))


def test_context_of_another_model_is_refused_before_the_key_is_asked_for(package: bytes) -> None:
    head, pieces = chunks(package)
    header = PackageHeader.decode(head[len(MAGIC) + 4 :])
    forged = PackageHeader(
        header.package_id, header.chunk_bytes, header.wrapped, {"purpose": "model"}, header.manifest
    ).encode()
    data = MAGIC + LENGTH.pack(len(forged)) + forged + b"".join(pieces)
    with pytest.raises(ModelError, match="MODEL_CONTEXT_MISMATCH"):
        load(data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 20), mask=st.integers(1, 255))
def test_any_flipped_byte_is_refused_by_our_errors(package: bytes, place: int, mask: int) -> None:
    data = bytearray(package)
    data[place % len(data)] ^= mask
    with pytest.raises(Error):
        load(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused_by_our_errors(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, MAGIC + LENGTH.pack(len(noise)) + noise):
        with pytest.raises(ModelError):
            load(data)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../b", "", "a\\b", "é.json", ".hidden", "a/./b"])
def test_manifest_refuses_names_that_lead_elsewhere(name: str) -> None:
    payload = {1: 1, 2: "m", 3: "1", 4: "sentence-transformers", 5: [[name, 1, bytes(32)]], 6: []}
    with pytest.raises(Error, match="BAD_FILE_NAME"):
        Manifest.decode(encode(payload))


def test_manifest_with_extra_headers_is_refused(package: bytes) -> None:
    head, pieces = chunks(package)
    header = PackageHeader.decode(head[len(MAGIC) + 4 :])
    payload = load(package).manifest.encode()
    signed = sign1(payload, OWNER, protected={**PROTECTED, 4: b"kid"})
    forged = PackageHeader(header.package_id, CHUNK, header.wrapped, header.context, signed).encode()
    with pytest.raises(ModelError, match="MANIFEST_MALFORMED"):
        load(MAGIC + LENGTH.pack(len(forged)) + forged + b"".join(pieces))


@pytest.mark.parametrize("content", [b"PK\x03\x04zip", b"\x80\x04pickle", b"\x80\x02old pickle"])
def test_pickle_in_disguise_is_not_packaged(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="MODEL_PICKLE"):
        make(tmp_path, tmp_path / "out.eml")
    assert not list(tmp_path.glob("out.eml*"))


def entry(dtype: str = "U8", shape: object = (4,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(), "b": entry()},  # overlap
        {"a": entry(offsets=(0, 2), shape=(2,)), "b": entry(offsets=(3, 4), shape=(1,))},  # hole
        {"a": entry(offsets=(0, 8), shape=(8,))},  # past the end
        {"a": entry(offsets=(1, 4), shape=(3,))},  # hole at the start
        {"a": entry(dtype="OBJECT")},
        {"a": entry(shape=(5,))},
        {"a": entry(shape=(-4,))},
        {"a": entry(shape=(True, 4))},
        {"a": entry(offsets=(4, 0))},
        {"a": "not an entry"},
        ["not a map"],
    ],
)
def test_safetensors_header_that_does_not_fit_its_data(header: object) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(ModelError, match="SAFETENSORS_MALFORMED"):
        check_safetensors(memoryview(len(text).to_bytes(8, "little") + text + bytes(4)))


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 2) + b"\xff\xff"]
)
def test_safetensors_header_out_of_bounds(content: bytes) -> None:
    with pytest.raises(ModelError, match="SAFETENSORS_MALFORMED"):
        check_safetensors(memoryview(content))


def test_grammar_of_the_specification(package: bytes) -> None:
    grammar = (Path(__file__).parents[2] / "spec" / "model-package.cddl").read_text()
    header = chunks(package)[0][len(MAGIC) + 4 :]
    signed = PackageHeader.decode(header).manifest
    rules = {
        "package-header": header,
        "manifest": load(package).manifest.encode(),
        "manifest-protected": decode_sign1(signed).protected_bytes,
    }
    for rule, data in rules.items():
        schema = pycddl.Schema(f"root = {rule}\n{grammar}")
        schema.validate_cbor(data)
        with pytest.raises(pycddl.ValidationError):
            schema.validate_cbor(encode({99: 1}))


def test_real_minilm_survives_the_way(tmp_path: Path) -> None:
    make(minilm_folder(), tmp_path / "minilm.eml")
    with (tmp_path / "minilm.eml").open("rb") as file:
        model = open_package(file, lambda *_: KEY, trusted_signers=(SIGNER,), expected_manifest_hash=None)
    assert bytes(model.files["model.safetensors"]) == (minilm_folder() / "model.safetensors").read_bytes()
