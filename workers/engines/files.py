"""Model files as they come out of the encrypted package: names to bytes in memory, never on a disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...wire.errors import ModelError

BytesLike: TypeAlias = bytes | bytearray | memoryview
ModelFiles: TypeAlias = Mapping[str, BytesLike]
"""Relative names with ``/`` (``"model.safetensors"``, ``"1_Pooling/config.json"``) to their contents.

Weights may be shared, not copied: the buffers must stay as they are while an engine made of them lives.
"""

MAX_JSON_BYTES = 64 << 20
MAX_HEADER_BYTES = 100_000_000
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def read_text(files: ModelFiles, name: str) -> str:
    """Return a file as text.

    :raises ModelError: ``MODEL_FILE_MISSING`` or ``MODEL_FILE_MALFORMED``.
    """
    if name not in files:
        raise ModelError("MODEL_FILE_MISSING", f"the model lacks {name}")
    content = memoryview(files[name])
    if content.nbytes > MAX_JSON_BYTES:
        raise ModelError("MODEL_FILE_MALFORMED", f"{name} is too large")
    try:
        return bytes(content).decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError("MODEL_FILE_MALFORMED", f"{name} is not UTF-8") from None


def read_json(files: ModelFiles, name: str) -> Any:
    """Return the parsed content of a JSON file; raises as :func:`read_text`."""
    try:
        return json.loads(read_text(files, name))
    except (ValueError, RecursionError):
        raise ModelError("MODEL_FILE_MALFORMED", f"{name} is not JSON") from None


def read_map(files: ModelFiles, name: str, *, optional: bool = False) -> dict[str, Any]:
    """Return a JSON file that must hold an object; ``optional`` gives ``{}`` where there is none."""
    if optional and name not in files:
        return {}
    value = read_json(files, name)
    if not isinstance(value, dict):
        raise ModelError("MODEL_FILE_MALFORMED", f"{name} does not hold an object")
    return value


def read_weights(files: ModelFiles, folder: str = "") -> dict[str, NDArray[Any]]:
    """Return the floating-point tensors of all ``*.safetensors`` in ``folder`` (``""`` or ``"0_X/"``).

    float32 tensors are views of the file's memory; float16 and bfloat16 become new float32 arrays. Integer
    tensors (position ids) are left out. Format: https://github.com/huggingface/safetensors#format.

    :raises ModelError: ``MODEL_FILE_MISSING``, ``MODEL_FILE_MALFORMED`` or ``MODEL_UNSUPPORTED``.
    """
    weights: dict[str, NDArray[Any]] = {}
    names = [name for name in files if name.startswith(folder) and name.endswith(".safetensors")]
    for name in sorted(name for name in names if "/" not in name[len(folder) :]):
        for key, tensor in _tensors(memoryview(files[name]).cast("B"), name):
            if key in weights:
                raise ModelError("MODEL_FILE_MALFORMED", f"{name} repeats a tensor")
            weights[key] = tensor
    if not weights:
        raise ModelError("MODEL_FILE_MISSING", "the model has no safetensors weights")
    return weights


def _tensors(data: memoryview, name: str) -> list[tuple[str, NDArray[Any]]]:
    header, body = _header(data, name)
    found = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            if dtype.startswith(("I", "U")) or dtype == "BOOL":
                continue
            if dtype not in _DTYPES:
                raise ModelError("MODEL_UNSUPPORTED", "weights must be F32, F16 or BF16")
            if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)):
                raise ValueError
            if end > body.nbytes or end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
                raise ValueError
            found.append((key, _array(body[begin:end], dtype, shape)))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ModelError("MODEL_FILE_MALFORMED", f"{name} has a bad tensor entry") from None
    return found


def _header(data: memoryview, name: str) -> tuple[dict[str, Any], memoryview]:
    size = int.from_bytes(data[:8], "little")
    if data.nbytes < 8 or size > min(MAX_HEADER_BYTES, data.nbytes - 8):
        raise ModelError("MODEL_FILE_MALFORMED", f"{name} is cut short")
    try:
        header = json.loads(bytes(data[8 : 8 + size]))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError("MODEL_FILE_MALFORMED", f"{name} has no readable header")
    return header, data[8 + size :]


def _array(data: memoryview, dtype: str, shape: list[int]) -> NDArray[Any]:
    raw = np.frombuffer(data, dtype=_DTYPES[dtype])
    if dtype == "BF16":
        raw = (raw.astype("<u4") << np.uint32(16)).view("<f4")
    return raw.astype(np.float32, copy=False).reshape(shape)
