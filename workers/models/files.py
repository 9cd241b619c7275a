"""Picks a model folder's files by an explicit list of kinds; says what it leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ...wire.errors import ModelError
from .file_kinds import SUFFIXES, TENSORS
from .manifest import MAX_FILES

# Conversions for other engines; whatever is hidden is left out too.
SKIPPED: Final = frozenset({"onnx", "openvino"})
# PEFT's names (peft.utils.constants: SAFETENSORS_WEIGHTS_NAME); the library saves one adapter per folder.
ADAPTER: Final = "adapter_model.safetensors"


@dataclass(frozen=True)
class FolderFiles:
    """Files to package by name (relative, POSIX), and the names that were left out."""

    taken: dict[str, Path]
    left_out: tuple[str, ...]


def folder_files(folder: Path) -> FolderFiles:
    """Return what of a sentence-transformers model folder belongs into a package.

    Taken are ``*.safetensors``, ``*.json`` and ``*.txt`` outside of hidden folders and of conversions
    for other engines. Links are followed inside the folder only, and links to folders not at all.

    :raises ModelError: ``MODEL_FOLDER_UNREADABLE``, ``MODEL_FOLDER_EMPTY``, ``MODEL_TOO_MANY_FILES``, or
        ``MODEL_LINK`` for a file of these kinds that links out of the folder or nowhere.
    """
    try:
        base = folder.resolve(strict=True)
        found = sorted(path for path in base.rglob("*") if path.is_symlink() or not path.is_dir())
    except (OSError, RuntimeError):
        raise ModelError("MODEL_FOLDER_UNREADABLE", "cannot read the model folder") from None
    taken: dict[str, Path] = {}
    left_out: list[str] = []
    for path in found:
        name = path.relative_to(base).as_posix()
        if _wanted(name) and _is_inside(path, base):
            taken[name] = path
        else:
            left_out.append(name)
    if not any(name.endswith(TENSORS) for name in taken):
        raise ModelError("MODEL_FOLDER_EMPTY", "the folder holds no *.safetensors")
    if len(taken) > MAX_FILES:
        raise ModelError("MODEL_TOO_MANY_FILES", f"more than {MAX_FILES} files")
    return FolderFiles(taken, tuple(left_out))


def adapters_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of adapters (PEFT, LoRA) among a model's files, sorted."""
    return tuple(sorted(name for name in names if PurePosixPath(name).name == ADAPTER))


def _wanted(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and not SKIPPED & set(parts) and Path(name).suffix in SUFFIXES


def _is_inside(path: Path, base: Path) -> bool:
    """Whether this is a regular file; a link that leads elsewhere would silently change the model."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise _bad_link() from None
    if not target.is_relative_to(base):
        raise _bad_link()
    return target.is_file()


def _bad_link() -> ModelError:
    return ModelError("MODEL_LINK", "a model file links out of its folder or nowhere; copy the file itself")
