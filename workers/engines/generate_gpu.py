"""What both ExLlama engines share: the GPU is checked first, and one generator is fed while it runs.

There is no fallback to a CPU, ever: no GPU is an error. In production a GPU that does not run in
confidential-computing mode is one too, as the model and the jobs would lie in its memory in clear.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ...attestation.attest.nvml import CcState, NvmlLibrary
from ...wire.errors import ConfigurationError, EngineError, Error, ModelError
from ...wire.generation import GenerateParameters
from .files import ModelFiles
from .generate import GenerateRequest, Reader, Step, Token
from .generate_backends import EngineSettings
from .generate_sampling import with_logprobs
from .generate_text import TokenizerReader
from .torch_engine import memory_folder

#: Both libraries keep keys and values in pages of so many tokens.
PAGE_TOKENS: Final = 256
GIB: Final = 1 << 30
_OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


class Management(Protocol):
    """What is asked of NVIDIA's management library."""

    def state(self) -> CcState:
        """Return how the driver runs its GPUs."""
        ...


def check_gpu(
    torch: Any, settings: EngineSettings, management: Callable[[], Management] = NvmlLibrary
) -> None:
    """Refuse a machine whose GPUs cannot or must not be used, and cap the memory of those that may.

    :raises ConfigurationError: ``NO_GPU``, ``GPU_NOT_CONFIDENTIAL``, ``GPU_MEMORY``, or as
        :class:`~ephemeralml.attestation.attest.nvml.NvmlLibrary`.
    """
    if not torch.cuda.is_available() or torch.cuda.device_count() < 1:
        raise ConfigurationError(
            "NO_GPU",
            "this backend computes on a CUDA GPU and never on a CPU: give the machine one, or choose "
            "the transformers or llama backend",
        )
    if settings.require_cc:
        state = management().state()
        if not state.on or state.dev_tools:
            raise ConfigurationError(
                "GPU_NOT_CONFIDENTIAL",
                "the GPU does not run in confidential-computing mode (or its developer tools are on)",
            )
    if settings.gpu_memory_gib is None:
        return
    for device in range(torch.cuda.device_count()):
        total = int(torch.cuda.get_device_properties(device).total_memory)
        if settings.gpu_memory_gib * GIB > total:
            raise ConfigurationError("GPU_MEMORY", f"GPU {device} has only {total / GIB:.1f} GiB")
        torch.cuda.set_per_process_memory_fraction(settings.gpu_memory_gib * GIB / total, device)


def import_library(name: str, extra: str) -> Any:
    """Import a library that compiles its CUDA part when it is imported, with telemetry and downloads off.

    :raises ConfigurationError: ``EXTRA_MISSING`` or ``ENGINE_NOT_COMPILED``.
    """
    for variable in _OFFLINE:
        os.environ[variable] = "1"
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            "EXTRA_MISSING", f"the {name} backend is not installed: pip install 'ephemeralml[{extra}]'"
        ) from None
    except Exception as error:  # a compiler's messages, with paths
        kind = type(error).__name__
        raise ConfigurationError(
            "ENGINE_NOT_COMPILED", f"the CUDA part of {name} cannot be built or loaded here ({kind})"
        ) from None


def cache_tokens(settings: EngineSettings, context: int) -> int:
    """Return the tokens that all texts share, in whole pages.

    :raises ConfigurationError: ``ENGINE_BAD_SETTING``.
    """
    wanted = 2 * context if settings.cache_tokens is None else settings.cache_tokens
    if wanted < context:
        raise ConfigurationError("ENGINE_BAD_SETTING", "cache_tokens is smaller than one context")
    return -(-wanted // PAGE_TOKENS) * PAGE_TOKENS


class ExLlamaStepper(ABC):
    """A generator of ExLlama (either version) as a :class:`.generate.Stepper`.

    The library schedules: what is added joins the batch that runs as soon as its pages fit. End
    tokens are the library's stop conditions, stop texts are watched outside, so that both engines
    end texts alike. Prompts are made into tokens outside too, from the package's own tokenizer.
    """

    name: str
    backend: str
    precision: str
    version: str
    notice = ""
    max_tokens: int
    max_sequences: int
    #: The library keeps more itself and begins them when there is room.
    queue_factor: Final = 4

    def __init__(self, files: ModelFiles, settings: EngineSettings, torch: Any) -> None:
        self.reader: Reader = TokenizerReader(files)
        self._torch = torch
        self._vocabulary = 0
        self._jobs: dict[int, tuple[Any, GenerateParameters]] = {}
        try:
            with memory_folder(files) as folder:
                self._generator = self._load(str(folder), settings)
        except Error:
            raise
        except torch.cuda.OutOfMemoryError:
            raise ConfigurationError(
                "GPU_MEMORY", "the model and its cache do not fit into the GPU"
            ) from None
        except Exception:  # anything may come out of the library, and its text names the folder
            raise ModelError("MODEL_UNSUPPORTED", f"{self.name} cannot load this model") from None

    @abstractmethod
    def _load(self, folder: str, settings: EngineSettings) -> Any:
        """Load model, cache and tokenizer from a folder, and return the generator over them."""

    @abstractmethod
    def _job(self, key: int, prompt: Any, request: GenerateRequest, max_new: int) -> Any:
        """Return the library's job."""

    @abstractmethod
    def _forget_pages(self) -> None:
        """Forget the keys and values of texts that are done, while nothing runs."""

    def add(self, key: int, prompt: Sequence[int], request: GenerateRequest, max_new: int) -> None:
        """See :meth:`.generate.Stepper.add`."""
        ids = self._torch.tensor([list(prompt)], dtype=self._torch.long)
        try:
            job = self._job(key, ids, request, max_new)
            self._generator.enqueue(job)
        except (AssertionError, ValueError):
            raise EngineError("ENGINE_INPUT_TOO_LONG", "a text does not fit into the GPU's cache") from None
        self._jobs[key] = job, request.parameters

    def step(self) -> list[Step]:
        """See :meth:`.generate.Stepper.step`."""
        steps = []
        for result in self._generator.iterate():
            job = result["job"]
            key = job.identifier
            if key not in self._jobs:
                continue
            parameters = self._jobs[key][1]
            self._jobs[key] = job, parameters  # exllamav3 may go on with another job of the same name
            if result["stage"] == "error":
                steps.append(Step(key, failed=True))
            elif result["stage"] == "streaming":
                steps.append(Step(key, self._tokens(result, parameters), ended=bool(result["eos"])))
        return steps

    def drop(self, key: int) -> None:
        """See :meth:`.generate.Stepper.drop`."""
        known = self._jobs.pop(key, None)
        if known is not None:
            self._generator.cancel(known[0])
        # A later prompt with the same beginning would be quicker, which tells its sender about this one.
        if not self._jobs:
            self._forget_pages()

    def close(self) -> None:
        """See :meth:`.generate.Stepper.close`."""
        self._jobs.clear()
        self._generator = None
        self._unload()
        self._torch.cuda.empty_cache()

    @abstractmethod
    def _unload(self) -> None:
        """Free the model's memory."""

    def _tokens(self, result: dict[str, Any], parameters: GenerateParameters) -> tuple[Token, ...]:
        """Return a result's tokens; what the library holds back at the end (the end token) included."""
        parts = [result, result["held"]] if result["eos"] and "held" in result else [result]
        tokens: list[Token] = []
        for part in parts:
            if "token_ids" not in part:
                continue
            ids = [int(token) for token in part["token_ids"].flatten().tolist()]
            logits = part.get("logits")
            for place, token in enumerate(ids):
                tokens.append(
                    Token(token) if logits is None else self._told(token, logits[0, place], parameters)
                )
        end = result.get("eos_triggering_token_id")
        if end is not None and (not tokens or tokens[-1].id != end):
            tokens.append(Token(int(end)))
        return tuple(tokens)

    def _told(self, token: int, logits: Any, parameters: GenerateParameters) -> Token:
        # The libraries pad the vocabulary.
        return with_logprobs(token, logits.float().cpu().numpy()[: self._vocabulary], parameters)
