"""Chat templates: conversations become prompts as the model's own files say.

Templates are Jinja2 programs from the model's package, which is signed by its owner and
measured. They still run in Jinja2's immutable sandbox with bounds on everything, because what
they are given comes from clients. They see neither clock nor environment: the same
conversation always gives the same prompt. What templates of the field expect is here as the
transformers library has it (``trim_blocks``, ``lstrip_blocks``, loop controls, ``tojson``,
``raise_exception``): https://huggingface.co/docs/transformers/chat_templating.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from ...wire.errors import ConfigurationError, EngineError, ModelError
from ...wire.job import Turn
from .files import ModelFiles, read_map, read_text

MAX_TEMPLATE_BYTES: Final = 262_144
MAX_TURNS: Final = 1024
MAX_PROMPT_CHARACTERS: Final = 4 << 20
#: Pieces that a template may put out: bounds loops that put out nothing else.
MAX_PIECES: Final = 1 << 20
MAX_ROLE_CHARACTERS: Final = 64
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class _RefusedError(Exception):
    """The template itself refuses the conversation."""


class ChatTemplate:
    """One model's template, compiled.

    :param source: the Jinja2 text. :param special: names of special tokens to their texts.
    :raises ModelError: ``CHAT_TEMPLATE_MALFORMED``. :raises ConfigurationError: ``EXTRA_MISSING``.
    """

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        try:
            from jinja2 import TemplateError
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            message = "chat templates need jinja2: pip install 'ephemeralml[worker-torch]'"
            raise ConfigurationError("EXTRA_MISSING", message) from None
        if len(source.encode()) > MAX_TEMPLATE_BYTES:
            raise ModelError("CHAT_TEMPLATE_MALFORMED", "the chat template is too large")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError, MemoryError):
            raise ModelError("CHAT_TEMPLATE_MALFORMED", "the chat template cannot be read") from None
        self._special = dict(special)

    @classmethod
    def of(cls, files: ModelFiles) -> ChatTemplate | None:
        """Return the template of a model's files; None where they hold none.

        ``chat_template.jinja`` counts before ``tokenizer_config.json``; of several, the one named default.

        :raises ModelError: ``CHAT_TEMPLATE_MALFORMED`` or as :func:`.files.read_map`.
        """
        config = read_map(files, "tokenizer_config.json", optional=True)
        source = config.get("chat_template")
        if "chat_template.jinja" in files:
            source = read_text(files, "chat_template.jinja")
        if isinstance(source, list):
            named = {item.get("name"): item.get("template") for item in source if isinstance(item, dict)}
            source = named.get("default")
        if source is None:
            return None
        if not isinstance(source, str):
            raise ModelError("CHAT_TEMPLATE_MALFORMED", "the chat template is not a text")
        return cls(source, _special_tokens(config))

    def render(self, turns: Sequence[Turn]) -> str:
        """Return the prompt for a conversation, ready for the model's answer.

        :raises EngineError: ``ENGINE_BAD_INPUT``: the template does not take it, or a bound is passed.
        """
        if not 1 <= len(turns) <= MAX_TURNS:
            raise EngineError("ENGINE_BAD_INPUT", f"a conversation has 1 to {MAX_TURNS} turns")
        if any(not turn.role or len(turn.role) > MAX_ROLE_CHARACTERS for turn in turns):
            raise EngineError("ENGINE_BAD_INPUT", "a turn's role is empty or too long")
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return self._render(messages)
        except EngineError:
            raise
        except Exception:  # a template may raise anything, and quote the conversation in it
            raise EngineError(
                "ENGINE_BAD_INPUT", "the chat template does not take this conversation"
            ) from None

    def _render(self, messages: list[dict[str, str]]) -> str:
        pieces: list[str] = []
        size = 0
        stream = self._template.generate(messages=messages, add_generation_prompt=True, **self._special)
        for count, piece in enumerate(stream):
            size += len(piece)
            if size > MAX_PROMPT_CHARACTERS or count >= MAX_PIECES:
                raise EngineError("ENGINE_INPUT_TOO_LONG", "the rendered conversation is too long")
            pieces.append(piece)
        return "".join(pieces)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    special = {}
    for name in _SPECIAL:
        value = config.get(name)
        if isinstance(value, dict):  # as AddedToken is written down
            value = value.get("content")
        if isinstance(value, str):
            special[name] = value
    return special


def _tojson(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(_: object) -> NoReturn:
    raise _RefusedError
