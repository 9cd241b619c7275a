"""Text generation on the CPU by transformers and torch: the reference, for models that are small.

Sequences of all jobs are in work at once, one forward pass each in turn, so that a long text
holds up nobody; there is no shared pass, which is what the GPU engines are for. Sampling is ours
(:mod:`.generate_sampling`), so that a seed gives the same text wherever the logits are the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...wire.errors import ConfigurationError, ModelError
from .base import Precision
from .files import ModelFiles, read_map
from .generate import GenerateRequest, Reader, Step
from .generate_sampling import Sampler
from .generate_text import TokenizerReader
from .torch_engine import memory_folder

_OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
#: Tokens of a prompt that one step reads, so that other texts go on meanwhile.
PREFILL_TOKENS: Final = 512
MAX_SEQUENCES: Final = 16


@dataclass(slots=True)
class _Running:
    sampler: Sampler
    unread: list[int]
    cache: Any = field(default=None)


class TransformersStepper:
    """A causal language model run by transformers, in float32 or bfloat16; see :class:`.generate.Stepper`.

    :param files: the model: safetensors, ``config.json``, ``tokenizer.json``; copied once into the process.
    :param precision: ``"auto"`` and ``"f32"`` compute in float32, ``"bf16"`` in bfloat16.
    :param threads: torch's threads, for the whole process; None leaves them as they are.
    :param context_tokens: tokens of prompt and output together; None takes the model's own limit.
    :raises ModelError: the model is malformed or of a kind that is not supported.
    :raises ConfigurationError: ``EXTRA_MISSING``, ``ENGINE_BAD_SETTING`` or ``ENGINE_NO_MEMORY_FOLDER``.
    """

    name = "transformers"
    backend = "transformers"
    max_sequences = MAX_SEQUENCES
    notice = ""

    def __init__(
        self,
        files: ModelFiles,
        *,
        precision: Precision = "auto",
        threads: int | None = None,
        context_tokens: int | None = None,
    ) -> None:
        self.precision: str = "f32" if precision == "auto" else precision
        self.reader: Reader = TokenizerReader(files)
        self.max_tokens = context_of(files, context_tokens)
        transformers, self._torch = _import_library()
        if threads is not None:
            self._torch.set_num_threads(threads)
        with memory_folder(files) as folder:
            self._model = _load(transformers, str(folder), self.precision)
        self.version = str(transformers.__version__)
        self._new_cache = transformers.DynamicCache
        self._running: dict[int, _Running] = {}

    def add(self, key: int, prompt: Sequence[int], request: GenerateRequest, max_new: int) -> None:
        """See :meth:`.generate.Stepper.add`."""
        tokens = list(prompt)
        self._running[key] = _Running(Sampler(request.parameters, request.seed, tokens), tokens)

    def step(self) -> list[Step]:
        """See :meth:`.generate.Stepper.step`; a sequence that fails, fails alone."""
        steps = []
        for key, running in self._running.items():
            try:
                steps += self._one(key, running)
            except Exception:  # its text may quote the input
                steps.append(Step(key, failed=True))
        return steps

    def drop(self, key: int) -> None:
        """See :meth:`.generate.Stepper.drop`."""
        self._running.pop(key, None)

    def close(self) -> None:
        """See :meth:`.generate.Stepper.close`."""
        self._running.clear()
        self._model = None

    def _one(self, key: int, running: _Running) -> list[Step]:
        torch = self._torch
        piece, running.unread = running.unread[:PREFILL_TOKENS], running.unread[PREFILL_TOKENS:]
        if running.cache is None:
            running.cache = self._new_cache()
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([piece]),
                past_key_values=running.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        running.cache = out.past_key_values
        if running.unread:
            return []
        token = running.sampler.draw(out.logits[0, -1].float().numpy())
        running.unread = [token.id]
        return [Step(key, (token,))]


def context_of(files: ModelFiles, wanted: int | None) -> int:
    """Return the context in tokens: the model's own limit, or less where a setting says so.

    :raises ModelError: ``MODEL_UNSUPPORTED``. :raises ConfigurationError: ``ENGINE_BAD_SETTING``.
    """
    own = read_map(files, "config.json").get("max_position_embeddings")
    if type(own) is not int or own < 2:
        raise ModelError("MODEL_UNSUPPORTED", "config.json has no max_position_embeddings")
    if wanted is None:
        return own
    if not 2 <= wanted <= own:
        raise ConfigurationError("ENGINE_BAD_SETTING", f"the model's context has 2 to {own} tokens")
    return wanted


def _import_library() -> tuple[Any, Any]:
    for name in _OFFLINE:
        os.environ[name] = "1"
    # torch asks for the user's name when it is imported, and glibc asks a daemon where no variable says it.
    os.environ.setdefault("LOGNAME", "worker")
    try:
        import torch
        import transformers
    except ImportError:
        message = "the transformers backend is not installed: pip install 'ephemeralml[worker-torch]'"
        raise ConfigurationError("EXTRA_MISSING", message) from None
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    return transformers, torch


def _load(library: Any, folder: str, precision: str) -> Any:
    try:
        model = library.AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype="float32" if precision == "f32" else "bfloat16",
        )
    except Exception:  # anything may come out of the library, and its text names the folder
        raise ModelError("MODEL_UNSUPPORTED", "transformers cannot load this model") from None
    return model.eval()
