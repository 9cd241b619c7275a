"""How a sentence-transformers model is put together, read from its own small files.

Both backends go through here, so that neither accepts a module (a dotted Python
path in ``modules.json``) that is not on the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tokenizers import Encoding, Tokenizer, normalizers

from ...wire.errors import EngineError, ModelError
from .base import EmbedRequest
from .files import ModelFiles, read_json, read_map, read_text

PoolingMode = Literal["mean", "cls"]
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """The parts of a model that decide how text becomes one vector.

    :param config: ``config.json`` of the transformer.
    :param folder: where the transformer's files lie, ``""`` or with a trailing ``/``.
    :param max_tokens: longest input, special tokens included.
    :param pooling: how token vectors become one.
    :param normalizes: whether the model itself scales its vectors to length 1.
    :param lower: whether text is lower-cased before the tokenizer's own normaliser.
    :param default_prompt: put before every text when the request names none.
    """

    config: dict[str, Any]
    folder: str
    max_tokens: int
    pooling: PoolingMode
    normalizes: bool
    lower: bool
    default_prompt: str


class Tokens(NamedTuple):
    """Token ids per text, after truncation, and whether each was truncated."""

    ids: list[list[int]]
    truncated: list[bool]


def read_sentence_model(files: ModelFiles) -> SentenceModel:
    """Read ``modules.json``, pooling, length limit and prompts.

    :raises ModelError: ``MODEL_UNSUPPORTED`` for anything that would have to be guessed.
    """
    folder, pooling, normalizes = _modules(files)
    config = read_map(files, folder + "config.json")
    sentence = read_map(files, folder + "sentence_bert_config.json", optional=True)
    return SentenceModel(
        config=config,
        folder=folder,
        max_tokens=_max_tokens(files, folder, config, sentence),
        pooling=pooling,
        normalizes=normalizes,
        lower=sentence.get("do_lower_case") is True,
        default_prompt=_default_prompt(files),
    )


def _modules(files: ModelFiles) -> tuple[str, PoolingMode, bool]:
    modules = read_json(files, "modules.json")
    try:
        parts = [(str(m["type"]), str(m["path"])) for m in sorted(modules, key=lambda m: int(m["idx"]))]
    except (KeyError, TypeError, ValueError):
        raise ModelError("MODEL_FILE_MALFORMED", "modules.json is not a list of modules") from None
    kinds = [kind.rpartition(".")[2] for kind, _ in parts if kind.startswith("sentence_transformers.")]
    if len(kinds) != len(parts) or kinds not in (
        ["Transformer", "Pooling"],
        ["Transformer", "Pooling", "Normalize"],
    ):
        raise ModelError("MODEL_UNSUPPORTED", "modules must be Transformer, Pooling and optionally Normalize")
    folder = f"{parts[0][1]}/" if parts[0][1] else ""
    return folder, _pooling(read_map(files, f"{parts[1][1]}/config.json")), len(kinds) == 3


def _pooling(config: dict[str, Any]) -> PoolingMode:
    mode = config.get("pooling_mode")
    legacy = [name for key, name in _LEGACY_POOLING.items() if config.get(key) is True]
    modes = [mode] if isinstance(mode, str) else list(mode or legacy)
    if config.get("include_prompt") is False:
        raise ModelError("MODEL_UNSUPPORTED", "pooling without the prompt is not supported")
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise ModelError("MODEL_UNSUPPORTED", "pooling must be mean or cls")


def _max_tokens(files: ModelFiles, folder: str, config: dict[str, Any], sentence: dict[str, Any]) -> int:
    positions = config.get("max_position_embeddings")
    if type(positions) is not int or positions < 4:
        raise ModelError("MODEL_UNSUPPORTED", "config.json has no max_position_embeddings")
    if config.get("model_type") in ("roberta", "xlm-roberta"):
        positions -= int(config.get("pad_token_id") or 0) + 1
    limit = sentence.get("max_seq_length")
    if limit is None:
        limit = read_map(files, folder + "tokenizer_config.json", optional=True).get(
            "model_max_length", positions
        )
    if type(limit) not in (int, float) or limit < 3:
        raise ModelError("MODEL_UNSUPPORTED", "the length limit is not a number of tokens")
    return int(min(limit, positions))


def _default_prompt(files: ModelFiles) -> str:
    config = read_map(files, "config_sentence_transformers.json", optional=True)
    name = config.get("default_prompt_name")
    prompt = (config.get("prompts") or {}).get(name, "") if name is not None else ""
    if not isinstance(prompt, str):
        raise ModelError("MODEL_FILE_MALFORMED", "the default prompt is not text")
    return prompt


class TextReader:
    """Texts to token ids, truncated as the reference does: content is cut, special tokens stay.

    :raises ModelError: ``MODEL_FILE_MISSING`` or ``MODEL_FILE_MALFORMED``.
    """

    def __init__(self, files: ModelFiles, model: SentenceModel) -> None:
        source = read_text(files, model.folder + "tokenizer.json")
        try:
            self._tokenizer = Tokenizer.from_str(source)
        except Exception:
            raise ModelError("MODEL_FILE_MALFORMED", "tokenizer.json cannot be read") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)
        if model.lower:
            own = self._tokenizer.normalizer
            chain = [normalizers.Lowercase(), *([own] if own is not None else [])]
            self._tokenizer.normalizer = normalizers.Sequence(chain)
        self._default_prompt = model.default_prompt
        self.vocabulary = max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def prompted(self, request: EmbedRequest) -> list[str]:
        """Return the request's texts as the model reads them, prompt in front."""
        prompt = self._default_prompt if request.prompt is None else request.prompt
        return [prompt + text for text in request.texts] if prompt else list(request.texts)

    def read(self, texts: Sequence[str]) -> Tokens:
        """Tokenize all texts at once.

        :raises EngineError: ``ENGINE_BAD_INPUT``.
        """
        try:
            encodings: list[Encoding] = self._tokenizer.encode_batch_fast(list(texts))
        except Exception:  # the library raises bare Exception, and its text may quote the input
            raise EngineError("ENGINE_BAD_INPUT", "a text cannot be tokenized") from None
        return Tokens([e.ids for e in encodings], [bool(e.overflowing) for e in encodings])
