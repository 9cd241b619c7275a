"""Picks a model folder's files by an explicit list of kinds; says what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...wire.errors import ModelError

SUFFIXES: Final = frozenset({".safetensors", ".json", ".txt"})
SKIPPED: Final = frozenset({"README.md", "onnx", "openvino", ".git", "LICENSE"})
MAX_FILES: Final = 256


@dataclass(frozen=True)
class FolderFiles:
    """Files to package by name (relative, POSIX), and the names that were left out."""

    taken: dict[str, Path]
    left_out: tuple[str, ...]


def folder_files(folder: Path) -> FolderFiles:
    """Return what of a sentence-transformers model folder belongs into a package.

    :raises ModelError: ``MODEL_FOLDER_UNREADABLE``, ``MODEL_FOLDER_EMPTY`` or ``MODEL_TOO_MANY_FILES``.
    """
    try:
        base = folder.resolve(strict=True)
        found = sorted(path for path in base.rglob("*") if path.is_file())
    except OSError as error:
        raise ModelError(
            "MODEL_FOLDER_UNREADABLE", f"cannot read the model folder: {error.strerror}"
        ) from None
    taken: dict[str, Path] = {}
    left_out: list[str] = []
    for path in found:
        name = path.relative_to(base).as_posix()
        inside = path.resolve().is_relative_to(base)
        if inside and path.suffix in SUFFIXES and not SKIPPED & set(name.split("/")):
            taken[name] = path
        else:
            left_out.append(name)
    if not any(name.endswith(".safetensors") for name in taken):
        raise ModelError("MODEL_FOLDER_EMPTY", "the folder holds no *.safetensors")
    if len(taken) > MAX_FILES:
        raise ModelError("MODEL_TOO_MANY_FILES", f"more than {MAX_FILES} files")
    return FolderFiles(taken, tuple(left_out))
