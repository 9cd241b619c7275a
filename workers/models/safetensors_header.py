"""Checks a safetensors file before anything is loaded from it.

Format: 8 bytes little endian header length, JSON header, tensors
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Final, NoReturn

from ...wire.errors import ModelError

MAX_HEADER_BYTES: Final = 100_000_000
MAX_TENSORS: Final = 100_000
MAX_RANK: Final = 16
MAX_SIDE: Final = 1 << 40
METADATA: Final = "__metadata__"
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


def check_safetensors(content: memoryview) -> None:
    """Check the header: bounds, known dtypes, shapes that fit, no holes and no overlap.

    :raises ModelError: ``SAFETENSORS_MALFORMED``.
    """
    if len(content) < 8:
        raise _malformed("it is too short")
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise _malformed("its header's length is out of bounds")
    header = _header(bytes(content[8 : 8 + length]))
    _check_metadata(header.pop(METADATA, {}))
    spans = sorted(map(_span, header.values()))
    size = len(content) - 8 - length
    edges = [(0, 0), *spans, (size, size)]
    if any(left[1] != right[0] for left, right in pairwise(edges)):
        raise _malformed("its tensors overlap, leave holes or do not fit the file")


def _header(encoded: bytes) -> dict[str, object]:
    # The format demands "{" first and UTF-8; json would guess UTF-16 and 32 too, and read another header
    # than other readers do.
    if not encoded.startswith(b"{"):
        raise _malformed("its header is not a map of tensors")
    try:
        header = json.loads(encoded.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _malformed("its header is not JSON, or names a tensor twice") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _malformed("its header holds too many tensors")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate")
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _check_metadata(value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _malformed("its metadata is not a map of texts")


def _span(entry: object) -> tuple[int, int]:
    match entry:
        case {"dtype": str() as dtype, "shape": [*shape], "data_offsets": [start, stop], **rest} if not rest:
            if dtype not in DTYPES:
                raise _malformed("it holds a dtype that is not allowed")
            if len(shape) > MAX_RANK or not all(map(_is_size, (*shape, start, stop))):
                raise _malformed("a tensor's shape or place is out of bounds")
            if start <= stop and math.prod(shape) * DTYPES[dtype] == stop - start:
                return start, stop
    raise _malformed("a tensor's entry does not fit its data")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_SIDE


def _malformed(why: str) -> ModelError:
    return ModelError("SAFETENSORS_MALFORMED", f"a safetensors file is refused: {why}")
