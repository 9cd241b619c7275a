"""Engines turn the inputs of a job into outputs, inside the TEE.

::

    engine = load_engine("openvino", files)           # files: name -> bytes, in memory
    with MicroBatcher(engine) as batcher:             # one per worker, for all its threads
        result = batcher.run(EmbedRequest(("A sentence.",)))

    engine = load_generate_engine("transformers", files, EngineSettings())
    for piece in engine.submit(GenerateRequest("Once upon a time")):
        print(piece, end="")
"""

from __future__ import annotations

from contextlib import suppress

from ...wire.errors import ConfigurationError
from .base import Backend, EmbedRequest, EmbedResult, Engine, Precision
from .batcher import MicroBatcher
from .files import ModelFiles
from .generate import GenerateEngine, GenerateRequest, Generation
from .generate_backends import GENERATE_BACKENDS, EngineSettings, load_any_engine, load_generate_engine

__all__ = [
    "Backend",
    "EmbedRequest",
    "EmbedResult",
    "Engine",
    "EngineSettings",
    "GenerateEngine",
    "GenerateRequest",
    "Generation",
    "MicroBatcher",
    "ModelFiles",
    "Precision",
    "import_engine",
    "load_any_engine",
    "load_engine",
    "load_generate_engine",
]


def import_engine(backend: str) -> None:
    """Import what a backend needs, so that it is there when :func:`load_engine` is called.

    Says nothing of what is missing: that is for :func:`load_engine`.
    """
    with suppress(ImportError):
        if backend == "openvino":
            from . import openvino_engine as _openvino  # noqa: F401
        elif backend == "torch":
            from . import torch_engine as _torch  # noqa: F401
        elif backend in GENERATE_BACKENDS:
            from . import generate_loop as _loop  # noqa: F401


def load_engine(
    backend: Backend, files: ModelFiles, *, precision: Precision = "auto", threads: int | None = None
) -> Engine:
    """Load a model into an engine.

    :param backend: ``"openvino"``, ``"torch"`` or, for measurements, ``"noop"``; nothing falls back to it.
    :param files: the model's files in memory; buffers must stay unchanged while the engine lives.
    :param precision: ``"auto"`` takes bf16 where backend and CPU have it, else f32.
    :param threads: threads of a forward pass, 1 or more; None for all cores.
    :raises ConfigurationError: ``ENGINE_UNKNOWN``, ``ENGINE_BAD_SETTING``, ``EXTRA_MISSING`` or
        ``ENGINE_PRECISION_UNAVAILABLE``.
    :raises ModelError: the model is malformed or of a kind that the backend does not support.
    """
    if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
        raise ConfigurationError("ENGINE_BAD_SETTING", "threads must be 1 to 1024")
    if backend == "openvino":
        try:
            from .openvino_engine import OpenVinoEngine
        except ImportError:
            message = "the openvino backend is not installed: pip install 'ephemeralml[worker]'"
            raise ConfigurationError("EXTRA_MISSING", message) from None
        return OpenVinoEngine(files, precision=precision, threads=threads)
    if backend == "torch":
        try:
            from .torch_engine import TorchEngine
        except ImportError:
            message = "the torch backend is not installed: pip install 'ephemeralml[worker-torch]'"
            raise ConfigurationError("EXTRA_MISSING", message) from None
        return TorchEngine(files, precision=precision, threads=threads)
    if backend == "noop":
        from .noop_engine import NoopEngine

        return NoopEngine()
    raise ConfigurationError("ENGINE_UNKNOWN", "the backend must be openvino, torch or noop")
