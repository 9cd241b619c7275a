"""Checks a safetensors file before anything is loaded from it; refuses pickles in any disguise.

Format: 8 bytes little endian header length, JSON header, tensors
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Final

from ...wire.errors import ModelError

MAX_HEADER_BYTES: Final = 100_000_000
MAX_TENSORS: Final = 100_000
DTYPES: Final = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
_PICKLED: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PICKLE_SUFFIXES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


def check_file(name: str, content: memoryview) -> None:
    """Refuse a file that could run code or is not what its name says.

    :raises ModelError: ``MODEL_PICKLE`` or ``SAFETENSORS_MALFORMED``.
    """
    start = bytes(content[:4])
    if name.lower().endswith(_PICKLE_SUFFIXES) or start.startswith(_PICKLED):
        raise ModelError(
            "MODEL_PICKLE", "the model holds a pickle or an archive; only safetensors are loaded"
        )
    if name.endswith(".safetensors"):
        check_safetensors(content)


def check_safetensors(content: memoryview) -> None:
    """Check the header: bounds, known dtypes, shapes that fit, no holes and no overlap.

    :raises ModelError: ``SAFETENSORS_MALFORMED``.
    """
    if len(content) < 8:
        raise _malformed("it is too short")
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise _malformed("its header's length is out of bounds")
    try:
        header = json.loads(bytes(content[8 : 8 + length]), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _malformed("its header is not JSON, or names a tensor twice") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _malformed("its header is not a map of tensors")
    spans = sorted(_span(entry) for name, entry in header.items() if name != "__metadata__")
    size = len(content) - 8 - length
    edges = [(0, 0), *spans, (size, size)]
    if any(left[1] != right[0] for left, right in pairwise(edges)):
        raise _malformed("its tensors overlap, leave holes or do not fit the file")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("duplicate")
    return dict(pairs)


def _span(entry: object) -> tuple[int, int]:
    match entry:
        case {"dtype": str() as dtype, "shape": [*shape], "data_offsets": [int() as start, int() as stop]}:
            if dtype not in DTYPES:
                raise _malformed("it holds a dtype that is not allowed")
            plain = all(type(side) is int and 0 <= side < 1 << 40 for side in shape)
            if plain and 0 <= start <= stop and math.prod(shape) * DTYPES[dtype] == stop - start:
                return start, stop
    raise _malformed("a tensor's entry does not fit its data")


def _malformed(why: str) -> ModelError:
    return ModelError("SAFETENSORS_MALFORMED", f"a safetensors file is refused: {why}")
