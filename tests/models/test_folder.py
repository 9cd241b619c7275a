"""Which files of a folder are the model, and which are left out by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ephemeralml.producer.lab import minilm_folder
from ephemeralml.wire.errors import ModelError
from ephemeralml.workers.models import folder_files

from .forge import tensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(tensors(a=b"1"))
    return folder


def test_folder_says_what_it_left_out(folder: Path) -> None:
    assert folder_files(folder).left_out == ("README.md", "pytorch_model.bin")


def test_minilm(tmp_path: Path) -> None:
    files = folder_files(minilm_folder())
    assert set(files.left_out) == {".gitattributes", "README.md"}
    assert {"model.safetensors", "modules.json", "tokenizer.json", "1_Pooling/config.json"} <= set(
        files.taken
    )


def test_conversions_and_hidden_folders_are_left_out(model: Path) -> None:
    others = ["onnx/config.json", "openvino/x.json", ".cache/x.json", "a/.git/x.txt", "x.py", "x.JSON"]
    for name in others:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    files = folder_files(model)
    assert sorted(files.left_out) == sorted(others)
    assert list(files.taken) == ["model.safetensors"]


def test_links_are_followed_inside_only(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (model / "same.json").write_text("{}")
    (model / "inside.json").symlink_to("same.json")
    (model / "notes.md").symlink_to(tmp_path / "secret.txt")
    files = folder_files(model)
    assert "inside.json" in files.taken
    assert files.left_out == ("notes.md",)
    for target in (tmp_path / "secret.txt", "missing", "vocab.txt", "../model/../secret.txt"):
        (model / "vocab.txt").symlink_to(target)
        with pytest.raises(ModelError, match="MODEL_LINK") as caught:
            folder_files(model)
        assert str(tmp_path) not in str(caught.value)
        (model / "vocab.txt").unlink()


def test_linked_folder_is_not_entered(model: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.json").write_text("{}")
    (model / "linked").symlink_to(tmp_path / "other")
    (model / "loop").symlink_to(model)
    files = folder_files(model)
    assert list(files.taken) == ["model.safetensors"]
    assert files.left_out == ("linked", "loop")


def test_pipe_under_a_good_name_is_not_read(model: Path) -> None:
    os.mkfifo(model / "pipe.json")
    assert folder_files(model).left_out == ("pipe.json",)


def test_folder_that_is_none(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="MODEL_FOLDER_UNREADABLE") as caught:
        folder_files(tmp_path / "missing")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ModelError, match="MODEL_FOLDER_EMPTY"):
        folder_files(model / "model.safetensors")
    for number in range(256):
        (model / f"{number}.txt").write_text("")
    with pytest.raises(ModelError, match="MODEL_TOO_MANY_FILES"):
        folder_files(model)
