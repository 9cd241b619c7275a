"""Which files a model may hold: tensors and text, never a pickle whatever its name is."""

from __future__ import annotations

import codecs
from pathlib import PurePosixPath
from typing import Final

from ...wire.errors import ModelError
from .gguf_header import check_gguf
from .safetensors_header import check_safetensors

TENSORS: Final = ".safetensors"
GGUF: Final = ".gguf"
TEXT: Final = frozenset({".json", ".txt", ".jinja"})
SUFFIXES: Final = TEXT | {TENSORS, GGUF}
_PICKLE_SUFFIXES: Final = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
)
# Zip, and the PROTO opcode of pickle protocols 2 to 5 (https://docs.python.org/3/library/pickletools.html).
_PICKLED: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_WINDOW_BYTES: Final = 1 << 20


def check_kind(name: str) -> None:
    """Refuse a file by its name alone, before its content is touched.

    :raises ModelError: ``MODEL_PICKLE`` or ``MODEL_FILE_KIND``.
    """
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in _PICKLE_SUFFIXES:
        raise _pickle()
    if suffix not in SUFFIXES:
        raise ModelError(
            "MODEL_FILE_KIND", "a model holds *.safetensors, *.gguf, *.json, *.txt, *.jinja only"
        )


def check_file(name: str, content: memoryview) -> None:
    """Refuse a file that is not what its name says.

    A safetensors file begins with its header's length, which may be any bytes, those of a pickle
    too (a header of 640 bytes gives 80 02): so its structure is judged, and the magic bytes only
    name the fault.

    :raises ModelError: ``MODEL_PICKLE``, ``MODEL_FILE_KIND``, ``SAFETENSORS_MALFORMED``,
        ``GGUF_MALFORMED`` or ``MODEL_NOT_TEXT``.
    """
    check_kind(name)
    pickled = bytes(content[:4]).startswith(_PICKLED)
    try:
        if name.endswith(TENSORS):
            check_safetensors(content)
        elif name.endswith(GGUF):
            check_gguf(content)
        else:
            _check_text(content)
    except ModelError:
        if pickled:
            raise _pickle() from None
        raise
    if pickled and not name.endswith((TENSORS, GGUF)):
        raise _pickle()


def _check_text(content: memoryview) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), _WINDOW_BYTES):
            decoder.decode(content[start : start + _WINDOW_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ModelError("MODEL_NOT_TEXT", "a *.json, *.txt or *.jinja file is not UTF-8") from None


def _pickle() -> ModelError:
    return ModelError("MODEL_PICKLE", "the model holds a pickle or an archive; only safetensors are loaded")
