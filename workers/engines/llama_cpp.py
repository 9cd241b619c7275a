"""Text generation on the CPU by llama.cpp (llama-cpp-python): GGUF models, quantised ones too.

One text at a time. Sampling is ours (:mod:`.generate_sampling`), tokens and chat template are the
GGUF file's own. Interface: https://llama-cpp-python.readthedocs.io, version 0.3.
"""

from __future__ import annotations

import codecs
import ctypes
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ...wire.errors import ConfigurationError, EngineError, ModelError
from ...wire.job import Turn
from .base import check_text
from .chat import ChatTemplate
from .files import ModelFiles
from .generate import MAX_PROMPT_BYTES, GenerateRequest, Reader, Step
from .generate_sampling import Sampler

PREFILL_TOKENS: Final = 512
#: Of GGUF's ``general.file_type``: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
FILE_TYPES: Final = {
    "0": "f32", "1": "f16", "2": "q4_0", "3": "q4_1", "7": "q8_0", "8": "q5_0", "9": "q5_1", "10": "q2_k",
    "12": "q3_k_m", "14": "q4_k_s", "15": "q4_k_m",
    "16": "q5_k_s", "17": "q5_k_m", "18": "q6_k", "32": "bf16",
}  # fmt: skip


class LlamaStepper:
    """A GGUF model run by llama.cpp; see :class:`.generate.Stepper`.

    :param files: the model; the one file ``*.gguf`` of it is copied once, into anonymous memory.
    :param threads: of a forward pass; None for all cores. :param context_tokens: None takes the model's own.
    :raises ModelError: the model is malformed or not supported.
    :raises ConfigurationError: ``EXTRA_MISSING`` or ``ENGINE_BAD_SETTING``.
    """

    name = "llama.cpp"
    backend = "llama"
    max_sequences = 1
    notice = "llama.cpp makes one text at a time"

    def __init__(
        self, files: ModelFiles, *, threads: int | None = None, context_tokens: int | None = None
    ) -> None:
        try:
            llama_cpp: Any = importlib.import_module("llama_cpp")
        except ImportError:
            message = "the llama backend is not installed: pip install 'ephemeralml[worker-llama]'"
            raise ConfigurationError("EXTRA_MISSING", message) from None
        self._library: Any = llama_cpp
        self.version = str(llama_cpp.__version__)
        names = [name for name in files if name.endswith(".gguf")]
        if len(names) != 1:
            raise ModelError("MODEL_FILE_MISSING", "the llama backend takes a model of one file *.gguf")
        self._model = self._load(memoryview(files[names[0]]), threads, context_tokens)
        self.max_tokens = int(self._model.n_ctx())
        self.precision = FILE_TYPES.get(str(self._model.metadata.get("general.file_type")), "gguf")
        self.reader: Reader = LlamaReader(llama_cpp, self._model)
        self._key: int | None = None
        self._unread: list[int] = []
        self._sampler: Sampler

    def add(self, key: int, prompt: Sequence[int], request: GenerateRequest, max_new: int) -> None:
        """See :meth:`.generate.Stepper.add`."""
        self._model.reset()
        self._key, self._unread = key, list(prompt)
        self._sampler = Sampler(request.parameters, request.seed, list(prompt))

    def step(self) -> list[Step]:
        """See :meth:`.generate.Stepper.step`."""
        if self._key is None:
            return []
        piece, self._unread = self._unread[:PREFILL_TOKENS], self._unread[PREFILL_TOKENS:]
        self._model.eval(piece)
        if self._unread:
            return []
        pointer = self._library.llama_get_logits_ith(self._model.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(self._model.n_vocab(),))
        token = self._sampler.draw(logits)
        self._unread = [token.id]
        return [Step(self._key, (token,))]

    def drop(self, key: int) -> None:
        """See :meth:`.generate.Stepper.drop`."""
        if key == self._key:
            self._key, self._unread = None, []
            self._model.reset()

    def close(self) -> None:
        """See :meth:`.generate.Stepper.close`."""
        self._key = None
        self._model.close()

    def _load(self, content: memoryview, threads: int | None, context_tokens: int | None) -> Any:
        if bytes(content[:4]) != b"GGUF":
            raise ModelError("MODEL_FILE_MALFORMED", "the *.gguf file is no GGUF file")
        with _MemoryFile(content) as path:
            try:
                model = self._library.Llama(
                    model_path=path,
                    n_ctx=context_tokens or 0,  # 0: the model's own
                    n_batch=PREFILL_TOKENS,
                    n_threads=threads,
                    n_threads_batch=threads,
                    n_gpu_layers=0,
                    verbose=False,
                )
            except Exception:  # anything may come out of the library, and its text names the file
                raise ModelError("MODEL_UNSUPPORTED", "llama.cpp cannot load this model") from None
        own = int(model._model.n_ctx_train())
        if context_tokens is not None and context_tokens > own:
            model.close()
            raise ConfigurationError("ENGINE_BAD_SETTING", f"the model's context has at most {own} tokens")
        return model


class LlamaReader:
    """The tokenizer and chat template inside a GGUF file; see :class:`.generate.Reader`."""

    def __init__(self, library: Any, model: Any) -> None:
        self._library, self._model = library, model
        self._vocabulary = library.llama_model_get_vocab(model.model)
        count = int(model.n_vocab())
        self.ends = frozenset(
            token for token in range(count) if library.llama_vocab_is_eog(self._vocabulary, token)
        )
        if not self.ends:
            raise ModelError("MODEL_UNSUPPORTED", "the GGUF file does not say which token ends a text")
        source = model.metadata.get("tokenizer.chat_template")
        special = {"bos_token": self._text(model.token_bos()), "eos_token": self._text(model.token_eos())}
        self._template = None if source is None else ChatTemplate(source, special)

    def encode(self, prompt: str | Sequence[object]) -> list[int]:
        """See :meth:`.generate.Reader.encode`."""
        if isinstance(prompt, str):
            check_text(prompt, MAX_PROMPT_BYTES, "a prompt")
            return list(self._model.tokenize(prompt.encode(), add_bos=True, special=False))
        if self._template is None:
            raise EngineError("ENGINE_NO_CHAT_TEMPLATE", "the model has no chat template")
        turns = [turn for turn in prompt if isinstance(turn, Turn)]
        for turn in turns:
            check_text(turn.content, MAX_PROMPT_BYTES, "a turn")
        rendered = self._template.render(turns)
        check_text(rendered, MAX_PROMPT_BYTES, "a conversation")
        return list(self._model.tokenize(rendered.encode(), add_bos=False, special=True))

    def decoder(self) -> BytesDecoder:
        """See :meth:`.generate.Reader.decoder`."""
        return BytesDecoder(lambda token: self._piece(token, special=False))

    def token_bytes(self, token: int) -> bytes:
        """See :meth:`.generate.Reader.token_bytes`."""
        return self._piece(token, special=True)

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(1024)
        size = self._library.llama_token_to_piece(self._vocabulary, token, buffer, 1024, 0, special)
        return buffer.raw[: max(int(size), 0)]

    def _text(self, token: int) -> str:
        return "" if token < 0 else self._piece(token, special=True).decode(errors="replace")


class BytesDecoder:
    """Puts the bytes of tokens together into characters; see :class:`.generate.Decoder`."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """See :meth:`.generate.Decoder.push`."""
        return self._decoder.decode(self._piece(token))

    def flush(self) -> str:
        """See :meth:`.generate.Decoder.flush`."""
        return self._decoder.decode(b"", final=True)


class _MemoryFile:
    """A file in anonymous memory that has a path while the ``with`` block lasts."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def __enter__(self) -> str:
        self._descriptor = os.memfd_create("model")
        view = self._content.cast("B")
        while view:
            view = view[os.write(self._descriptor, view) :]
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
