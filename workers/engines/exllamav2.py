"""Text generation on NVIDIA GPUs by exllamav2: EXL2 and FP16 models of the Llama family.

Continuous batching is its dynamic generator's, which needs flash-attn 2.5.7 or newer for paged
attention; without that, texts are made one after the other, and the engine says so. Interface:
https://github.com/turboderp-org/exllamav2, version 0.3.2 (``generator/dynamic.py``).
"""

from __future__ import annotations

from typing import Any

from ...wire.errors import ConfigurationError
from ...wire.generation import GenerateParameters
from .files import ModelFiles, read_map
from .generate import GenerateRequest
from .generate_backends import EngineSettings
from .generate_gpu import PAGE_TOKENS, ExLlamaStepper, cache_tokens, check_gpu, import_library
from .generate_torch import context_of

#: Rows that its model prepares buffers for; the generator evaluates up to 8 tokens per sequence.
_ROWS_PER_SEQUENCE = 8


class ExLlamaV2Stepper(ExLlamaStepper):
    """See :class:`.generate_gpu.ExLlamaStepper`.

    :raises ConfigurationError: ``EXTRA_MISSING``, ``ENGINE_NOT_COMPILED``, ``ENGINE_BAD_SETTING`` or as
        :func:`.generate_gpu.check_gpu`. :raises ModelError: the model is malformed or not supported.
    """

    name = "exllamav2"
    backend = "exllamav2"

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        torch = import_library("torch", "worker-exllamav2")
        check_gpu(torch, settings)
        self._library = import_library("exllamav2", "worker-exllamav2")
        self._generators = import_library("exllamav2.generator", "worker-exllamav2")
        self.version = str(import_library("exllamav2.version", "worker-exllamav2").__version__)
        self.precision = precision_of(files)
        self.max_tokens = context_of(files, settings.context_tokens)
        super().__init__(files, settings, torch)

    def _load(self, folder: str, settings: EngineSettings) -> Any:
        library = self._library
        paged = bool(import_library("exllamav2.attn", "worker-exllamav2").has_flash_attn_with_paged)
        config = library.ExLlamaV2Config(folder)
        config.arch_compat_overrides()
        # Its page table wants whole pages; the texts themselves stay within max_tokens.
        config.max_seq_len = -(-self.max_tokens // PAGE_TOKENS) * PAGE_TOKENS
        config.max_input_len = max(PAGE_TOKENS, min(config.max_input_len, config.max_seq_len))
        self.max_sequences, batch = 1, 1
        if paged:
            batch = min(settings.max_sequences, config.max_input_len // _ROWS_PER_SEQUENCE)
            self.max_sequences = batch * self.queue_factor
        else:
            self.notice = "flash-attn 2.5.7 or newer is not there: exllamav2 makes one text at a time"
            config.no_flash_attn = True
        self._model = library.ExLlamaV2(config)
        tokens = cache_tokens(settings, self.max_tokens) if paged else config.max_seq_len
        cache = library.ExLlamaV2Cache(self._model, max_seq_len=tokens, lazy=True)
        self._model.load_autosplit(cache)
        self._vocabulary = int(config.vocab_size)
        return self._generators.ExLlamaV2DynamicGenerator(
            model=self._model,
            cache=cache,
            tokenizer=library.ExLlamaV2Tokenizer(config),
            max_batch_size=batch,
            max_q_size=_ROWS_PER_SEQUENCE,
            paged=paged,
        )

    def _job(self, key: int, prompt: Any, request: GenerateRequest, max_new: int) -> Any:
        return self._generators.ExLlamaV2DynamicJob(
            input_ids=prompt,
            max_new_tokens=max_new,
            gen_settings=self._generators.ExLlamaV2Sampler.Settings(**sampling(request.parameters)),
            seed=request.seed,
            stop_conditions=sorted(self.reader.ends),
            return_logits=request.parameters.logprobs,
            identifier=key,
        )

    def _forget_pages(self) -> None:
        self._generator.reset_page_table()

    def _unload(self) -> None:
        self._model.unload()


def sampling(parameters: GenerateParameters) -> dict[str, Any]:
    """Return the library's sampler settings; every one that has another default is set."""
    values: dict[str, Any] = {
        "token_repetition_penalty": parameters.repetition_penalty,
        "token_repetition_range": -1,
        "token_repetition_decay": 0,
        "token_presence_penalty": parameters.presence_penalty,
        "token_frequency_penalty": parameters.frequency_penalty,
        "temperature": parameters.temperature,
        "top_k": parameters.top_k,
        # 0 is off here, as 1 is for us.
        "top_p": 0.0 if parameters.top_p == 1.0 else parameters.top_p,
        "min_p": parameters.min_p,
    }
    if parameters.temperature == 0.0:  # as the library's own Settings.greedy() has it
        values |= {"temperature": 1.0, "top_k": 1, "top_p": 0.0, "min_p": 0.0}
    return values


def precision_of(files: ModelFiles) -> str:
    """Return how the weights are kept: ``"exl2-4.0bpw"`` or the like, or ``"f16"``.

    :raises ConfigurationError: ``ENGINE_PRECISION_UNAVAILABLE``: quantised in another way.
    """
    quantised = read_map(files, "config.json").get("quantization_config")
    if quantised is None:
        return "f16"
    if not isinstance(quantised, dict) or quantised.get("quant_method") != "exl2":
        raise ConfigurationError("ENGINE_PRECISION_UNAVAILABLE", "exllamav2 takes EXL2 and FP16 models only")
    bits = quantised.get("bits")
    return f"exl2-{float(bits):.2f}bpw" if isinstance(bits, (int, float)) else "exl2"
