"""Text generation on NVIDIA GPUs by exllamav3: EXL3 models of many architectures, and FP16 ones.

Its paged attention is its own, so that continuous batching needs nothing beside it. Interface:
https://github.com/turboderp-org/exllamav3, version 1.6.5 (``generator/generator.py``, ``job.py``).
"""

from __future__ import annotations

from typing import Any

from ...wire.errors import ConfigurationError
from ...wire.generation import GenerateParameters
from .files import ModelFiles, read_map
from .generate import GenerateRequest
from .generate_backends import EngineSettings
from .generate_gpu import ExLlamaStepper, cache_tokens, check_gpu, import_library
from .generate_torch import context_of


class ExLlamaV3Stepper(ExLlamaStepper):
    """See :class:`.generate_gpu.ExLlamaStepper`.

    :raises ConfigurationError: ``EXTRA_MISSING``, ``ENGINE_NOT_COMPILED``, ``ENGINE_BAD_SETTING`` or as
        :func:`.generate_gpu.check_gpu`. :raises ModelError: the model is malformed or not supported.
    """

    name = "exllamav3"
    backend = "exllamav3"

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        torch = import_library("torch", "worker-exllamav3")
        check_gpu(torch, settings)
        self._library = import_library("exllamav3", "worker-exllamav3")
        self.version = str(import_library("exllamav3.version", "worker-exllamav3").__version__)
        self.precision = precision_of(files)
        self.max_tokens = context_of(files, settings.context_tokens)
        self.max_sequences = settings.max_sequences * self.queue_factor
        super().__init__(files, settings, torch)

    def _load(self, folder: str, settings: EngineSettings) -> Any:
        library = self._library
        config = library.Config.from_directory(folder)
        self._model = library.Model.from_config(config)
        # One page more than the texts take: the library keeps a slot beyond the last token.
        tokens = cache_tokens(settings, self.max_tokens + 1)
        cache = library.Cache(self._model, max_num_tokens=tokens)
        self._model.load(progressbar=False)
        self._vocabulary = int(config.vocab_size)
        return library.Generator(
            model=self._model,
            cache=cache,
            tokenizer=library.Tokenizer.from_config(config),
            max_batch_size=settings.max_sequences,
            # No tier beyond the GPU: neither host memory nor a disk is to hold what texts are made of.
            cpu_cache_size=0,
            disk_cache_dir=None,
        )

    def _job(self, key: int, prompt: Any, request: GenerateRequest, max_new: int) -> Any:
        return self._library.Job(
            input_ids=prompt,
            max_new_tokens=max_new,
            sampler=self._library.ComboSampler(**sampling(request.parameters)),
            seed=request.seed,
            stop_conditions=sorted(self.reader.ends),
            return_logits=request.parameters.logprobs,
            identifier=key,
        )

    def _forget_pages(self) -> None:
        self._generator.pagetable.reset_page_table()

    def _unload(self) -> None:
        self._model.unload()


def sampling(parameters: GenerateParameters) -> dict[str, Any]:
    """Return the arguments of the library's ComboSampler, whose order of steps is penalties, temperature,
    min-p, top-k, top-p."""
    return {
        "rep_p": parameters.repetition_penalty,
        "pres_p": parameters.presence_penalty,
        "freq_p": parameters.frequency_penalty,
        "temperature": parameters.temperature,
        "min_p": parameters.min_p,
        "top_k": parameters.top_k,
        "top_p": parameters.top_p,
    }


def precision_of(files: ModelFiles) -> str:
    """Return how the weights are kept: ``"exl3-4.00bpw"`` or the like, or ``"f16"``.

    :raises ConfigurationError: ``ENGINE_PRECISION_UNAVAILABLE``: quantised in another way.
    """
    quantised = read_map(files, "config.json").get("quantization_config")
    if quantised is None:
        return "f16"
    if not isinstance(quantised, dict) or quantised.get("quant_method") != "exl3":
        raise ConfigurationError("ENGINE_PRECISION_UNAVAILABLE", "exllamav3 takes EXL3 and FP16 models only")
    bits = quantised.get("bits")
    return f"exl3-{float(bits):.2f}bpw" if isinstance(bits, (int, float)) else "exl3"
