"""Pickles are refused in every disguise, when packaging and when opening."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest

from ephemeralml.wire.errors import ModelError
from ephemeralml.workers.models.file_kinds import check_file, check_kind

from .forge import forge, load, make, tensors, with_header


def zipped() -> bytes:
    """Return what torch.save writes today: a pickle in a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": [1.0]}))
    return out.getvalue()


PICKLES = {f"protocol {n}": pickle.dumps({"weight": [1.0, 2.0]}, protocol=n) for n in range(2, 6)}
DISGUISED = {**PICKLES, "zip": zipped(), "zip of text": b"PK\x03\x04 all of it UTF-8"}


@pytest.mark.parametrize("content", DISGUISED.values(), ids=DISGUISED)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_pickle_under_an_innocent_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(tensors(a=b"1234"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="MODEL_PICKLE"):
        make(tmp_path, tmp_path / "out.eml")
    assert not list(tmp_path.glob("out.eml*"))
    with pytest.raises(ModelError, match="MODEL_PICKLE"):
        load(forge({name: content}))


@pytest.mark.parametrize("protocol", [0, 1])
def test_old_pickle_without_magic_is_no_safetensors(protocol: int) -> None:
    with pytest.raises(ModelError, match="SAFETENSORS_MALFORMED"):
        load(forge({"model.safetensors": pickle.dumps({"a": [1.0]}, protocol=protocol)}))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pytorch_model.bin", "MODEL_PICKLE"),
        ("model.pt", "MODEL_PICKLE"),
        ("MODEL.PT", "MODEL_PICKLE"),
        ("a/b.pkl", "MODEL_PICKLE"),
        ("x.ckpt", "MODEL_PICKLE"),
        ("x.npy", "MODEL_PICKLE"),
        ("modeling.py", "MODEL_FILE_KIND"),
        ("model.onnx", "MODEL_FILE_KIND"),
        ("lib.so", "MODEL_FILE_KIND"),
        ("model.SAFETENSORS", "MODEL_FILE_KIND"),
        ("safetensors", "MODEL_FILE_KIND"),
    ],
)
def test_name_is_refused_before_the_key_is_asked_for(name: str, code: str) -> None:
    asked: list[str] = []
    with pytest.raises(ModelError, match=code):
        check_kind(name)
    with pytest.raises(ModelError, match=code):
        load(forge({"model.safetensors": tensors(a=b"1"), name: b"harmless"}), asked=asked)
    assert asked == []


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580, 0x10280])
def test_header_whose_length_looks_like_a_pickle_is_good(length: int) -> None:
    content = with_header(b"{}".ljust(length))
    assert content[:1] == b"\x80"
    check_file("model.safetensors", memoryview(content))


def test_text_must_be_utf8() -> None:
    check_file("vocab.txt", memoryview("añ\u4e2d".encode()))
    edge = b"a" * ((1 << 20) - 1) + "é".encode()
    check_file("vocab.txt", memoryview(edge))
    for broken in (b"\xff\xfe", edge[:-1], "é".encode("latin-1")):
        with pytest.raises(ModelError, match="MODEL_NOT_TEXT"):
            check_file("vocab.txt", memoryview(broken))
