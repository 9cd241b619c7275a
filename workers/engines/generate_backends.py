"""Makes any engine by its backend's name: embedding, generating, or from a plug-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from ...wire.errors import ConfigurationError
from .base import Backend, Precision
from .files import ModelFiles
from .generate import GenerateEngine, Stepper
from .plugins import AnyEngine, load_plugin

EMBED_BACKENDS: Final = frozenset({"openvino", "torch", "noop"})
GENERATE_BACKENDS: Final = frozenset({"transformers", "llama", "exllamav2", "exllamav3"})


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine is to use the machine.

    :param precision: ``"auto"``, ``"f32"`` or ``"bf16"``; quantised models have their own.
    :param threads: of CPU engines; None for all cores. :param context_tokens: of a text, None: the model's.
    :param cache_tokens: that all texts on a GPU share; None for twice the context.
    :param max_sequences: texts at once on a GPU. :param gpu_memory_gib: most that may be used per GPU;
        None for all. :param require_cc: GPUs must run in confidential-computing mode.
    :param plugins: names of plug-ins that may be loaded.
    """

    precision: Precision = "auto"
    threads: int | None = None
    context_tokens: int | None = None
    cache_tokens: int | None = None
    max_sequences: int = 32
    gpu_memory_gib: float | None = None
    require_cc: bool = True
    plugins: tuple[str, ...] = ()


def load_any_engine(backend: str, files: ModelFiles, settings: EngineSettings) -> AnyEngine:
    """Load a model into the engine of a backend.

    :raises ConfigurationError: as :func:`.load_engine` and :func:`.plugins.load_plugin`;
        ``NO_GPU``, ``GPU_NOT_CONFIDENTIAL`` or ``GPU_MEMORY`` for the backends on a GPU.
    :raises ModelError: the model is malformed or of a kind that the backend does not support.
    """
    if backend in EMBED_BACKENDS:
        from . import load_engine

        return load_engine(
            cast("Backend", backend), files, precision=settings.precision, threads=settings.threads
        )
    if backend in GENERATE_BACKENDS:
        return load_generate_engine(backend, files, settings)
    return load_plugin(
        backend, files, allowed=settings.plugins, precision=settings.precision, threads=settings.threads
    )


def load_generate_engine(backend: str, files: ModelFiles, settings: EngineSettings) -> GenerateEngine:
    """Load a model into one of the engines that generate; raises as :func:`load_any_engine`."""
    try:
        stepper = _stepper(backend, files, settings)
    except ImportError:
        raise _extra_missing(backend) from None
    from .generate_loop import GenerateLoop

    return GenerateLoop(stepper)


def _stepper(backend: str, files: ModelFiles, settings: EngineSettings) -> Stepper:
    if backend == "transformers":
        from .generate_torch import TransformersStepper

        return TransformersStepper(
            files,
            precision=settings.precision,
            threads=settings.threads,
            context_tokens=settings.context_tokens,
        )
    if backend == "llama":
        from .llama_cpp import LlamaStepper

        return LlamaStepper(files, threads=settings.threads, context_tokens=settings.context_tokens)
    if backend == "exllamav2":
        from .exllamav2 import ExLlamaV2Stepper

        return ExLlamaV2Stepper(files, settings)
    if backend == "exllamav3":
        from .exllamav3 import ExLlamaV3Stepper

        return ExLlamaV3Stepper(files, settings)
    raise ConfigurationError("ENGINE_UNKNOWN", "no engine that generates has this name")


def _extra_missing(backend: str) -> ConfigurationError:
    extra = {"transformers": "worker-torch", "llama": "worker-llama"}.get(backend, f"worker-{backend}")
    return ConfigurationError(
        "EXTRA_MISSING", f"the {backend} backend is not installed: pip install 'ephemeralml[{extra}]'"
    )
