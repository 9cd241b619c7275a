"""A small model folder and its package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .forge import make, tensors


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(folder, tmp_path_factory.mktemp("out") / "m.eml")
