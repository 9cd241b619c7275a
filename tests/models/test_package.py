"""Model packages: what goes in comes out, the same model has one hash, the format is the written one."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pycddl
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ephemeralml.attestation.key_release.protocol import DataKey
from ephemeralml.producer.lab import minilm_folder
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import Error, ModelError
from ephemeralml.workers.models import folder_files, inspect_package, open_package, package_model
from ephemeralml.workers.models.manifest import Manifest
from ephemeralml.workers.models.stream import MAGIC, PackageHeader

from .forge import KEY, OWNER, SIGNER, chunks, load, make, tensors


def test_round_trip_keeps_every_file(folder: Path, package: bytes) -> None:
    model = load(package)
    assert sorted(model.files) == ["1_Pooling/config.json", "config.json", "empty.txt", "model.safetensors"]
    for name, content in model.files.items():
        assert bytes(content) == (folder / name).read_bytes()
    assert model.manifest_hash == model.manifest.digest


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192])
def test_files_of_every_size_around_a_chunk(tmp_path: Path, size: int) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"v" * size)
    (tmp_path / "model.safetensors").write_bytes(tensors(a=b"1234"))
    assert bytes(load(make(tmp_path, tmp_path / "m.eml")).files["vocab.txt"]) == b"v" * size


def test_same_model_has_the_same_hash_in_every_package(folder: Path, package: bytes, tmp_path: Path) -> None:
    again = make(folder, tmp_path / "again.eml", key=bytes(32))
    assert again != package
    assert load(again, key=bytes(32)).manifest_hash == load(package).manifest_hash


def test_other_id_version_or_content_has_another_hash(folder: Path, package: bytes, tmp_path: Path) -> None:
    other = inspect_package(io.BytesIO(make(folder, tmp_path / "other.eml", model_id="n")))
    assert other["manifest_hash"] != load(package).manifest_hash.hex()


def test_inspect_needs_no_key(package: bytes) -> None:
    about = inspect_package(io.BytesIO(package))
    assert (about["model"], about["version"], about["signature"]) == ("m", "1", "not checked")
    assert about["manifest_hash"] == load(package).manifest_hash.hex()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_id": ""}, "MANIFEST_MALFORMED"),
        ({"model_id": "m" * 257}, "MANIFEST_MALFORMED"),
        ({"model_version": "1" * 129}, "MANIFEST_MALFORMED"),
        ({"model_id": "\ud800"}, "MANIFEST_MALFORMED"),
        ({"data_key": lambda _: DataKey(bytes(16), b"w")}, "MODEL_KEY_LENGTH"),
        ({"data_key": lambda _: DataKey(KEY, bytes(7000))}, "PACKAGE_MALFORMED"),
        ({"chunk_bytes": 1}, "PACKAGE_MALFORMED"),
        ({"out": "missing/m.eml"}, "PACKAGE_NOT_WRITTEN"),
    ],
)
def test_nothing_is_written_that_no_worker_would_open(
    folder: Path, tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    settings: dict[str, Any] = {
        "out": "m.eml",
        "model_id": "m",
        "model_version": "1",
        "signing_key": OWNER,
        "data_key": lambda _: DataKey(KEY, b"w"),
        **change,
    }
    out = tmp_path / settings.pop("out")
    with pytest.raises(ModelError, match=code):
        package_model(folder_files(folder), out, **settings)
    assert list(tmp_path.iterdir()) == []


def test_file_name_that_a_manifest_cannot_hold_is_refused_before_a_key_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "my vocab.txt").write_text("a")
    (tmp_path / "model.safetensors").write_bytes(tensors(a=b"1234"))
    with pytest.raises(ModelError, match="BAD_FILE_NAME"):
        package_model(
            folder_files(tmp_path),
            tmp_path / "m.eml",
            model_id="m",
            model_version="1",
            signing_key=OWNER,
            data_key=lambda _: pytest.fail("a key was asked for"),
        )


@pytest.mark.parametrize("change", [b"another", b"a longer text than before"])
def test_file_that_changes_while_it_is_packaged(tmp_path: Path, change: bytes) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"one way")
    (tmp_path / "model.safetensors").write_bytes(tensors(a=b"1234"))

    def rewrite(name: str, _: int) -> None:
        if name == "vocab.txt":
            (tmp_path / name).write_bytes(change)

    with pytest.raises(ModelError, match="MODEL_CHANGED"):
        package_model(
            folder_files(tmp_path),
            tmp_path / "m.eml",
            model_id="m",
            model_version="1",
            signing_key=OWNER,
            data_key=lambda _: DataKey(KEY, b"w"),
            progress=rewrite,
        )
    assert not list(tmp_path.glob("m.eml*"))


def test_file_that_disappears_before_it_is_packaged(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"v")
    (tmp_path / "model.safetensors").write_bytes(tensors(a=b"1234"))
    files = folder_files(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(ModelError, match="MODEL_FILE_UNREADABLE"):
        package_model(
            files,
            tmp_path / "m.eml",
            model_id="m",
            model_version="1",
            signing_key=OWNER,
            data_key=lambda _: DataKey(KEY, b"w"),
        )


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a//b", "a/../b", "", "a\\b", "é.json", "e\u0301.json", ".hidden", "a/./b", "a\0b"]
)
def test_manifest_refuses_names_that_lead_elsewhere(name: str) -> None:
    payload = {1: 1, 2: "m", 3: "1", 4: "sentence-transformers", 5: [[name, 1, bytes(32)]], 6: []}
    with pytest.raises(Error, match="BAD_FILE_NAME"):
        Manifest.decode(encode(payload))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({1: 2}, "UNKNOWN_VERSION"),
        ({4: "pickle"}, "UNKNOWN_FORMAT"),
        ({5: []}, "OUT_OF_BOUNDS"),
        ({5: [["a.txt", -1, bytes(32)]]}, "MANIFEST_ENTRY"),
        ({5: [["a.txt", True, bytes(32)]]}, "MANIFEST_ENTRY"),
        ({5: [["a.txt", 1 << 41, bytes(32)]]}, "MANIFEST_ENTRY"),
        ({5: [["a.txt", 1, bytes(31)]]}, "MANIFEST_ENTRY"),
        ({5: [["a.txt", 1]]}, "MANIFEST_ENTRY"),
        ({5: [["b.txt", 1, bytes(32)], ["a.txt", 1, bytes(32)]]}, "MANIFEST_ORDER"),
        ({5: [["a.txt", 1, bytes(32)], ["a.txt", 1, bytes(32)]]}, "MANIFEST_ORDER"),
        ({5: [[f"{n:03}.txt", 1, bytes(32)] for n in range(257)]}, "OUT_OF_BOUNDS"),
        ({6: ["not-there.txt"]}, "MANIFEST_ADAPTER"),
        ({7: 0}, "UNKNOWN_FIELD"),
    ],
)
def test_manifest_is_a_closed_form(change: dict[int, object], code: str) -> None:
    payload = {1: 1, 2: "m", 3: "1", 4: "sentence-transformers", 5: [["a.txt", 1, bytes(32)]], 6: []}
    Manifest.decode(encode(payload))
    with pytest.raises(Error, match=code):
        Manifest.decode(encode({**payload, **change}))


def test_reader_made_from_the_specification_alone(folder: Path, package: bytes) -> None:
    """spec/model-package.md, sentence by sentence, with nothing of ours but the CBOR decoder."""
    assert package[:8] == b"EMLPKG1\n"
    place = 12 + int.from_bytes(package[8:12], "big")
    header: Any = decode(package[12:place])
    manifest: Any = decode(decode_sign1(header[6]).payload)
    derived = HKDF(SHA256(), 32, header[2], b"ephemeralml/1 model package").derive(KEY)
    aead, counter = AESGCM(derived), 0
    for index, (name, size, digest) in enumerate(manifest[5]):
        content, chunk = b"", 0
        while chunk == 0 or len(content) < size:
            length = int.from_bytes(package[place : place + 4], "big")
            counter += 1
            last = len(content) + length - 16 == size
            bound = (
                header[2] + hashlib.sha256(package[12 : 12 + int.from_bytes(package[8:12], "big")]).digest()
            )
            aad = bound + index.to_bytes(4, "big") + chunk.to_bytes(8, "big") + bytes([last])
            sealed = package[place + 4 : place + 4 + length]
            content += aead.decrypt(counter.to_bytes(12, "big"), sealed, aad)
            place, chunk = place + 4 + length, chunk + 1
        assert content == (folder / name).read_bytes()
        assert hashlib.sha256(content).digest() == digest
    assert place == len(package)


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
    assert bytes(model.files["vocab.txt"]) == (minilm_folder() / "vocab.txt").read_bytes()
