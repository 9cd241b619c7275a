"""Between tokens and text: the tokenizer of a model's files, and stop texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from ...wire.errors import EngineError, ModelError
from ...wire.job import Turn
from .base import check_text
from .chat import ChatTemplate
from .files import ModelFiles, read_json, read_map, read_text
from .generate import MAX_PROMPT_BYTES

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")


class TokenizerReader:
    """``tokenizer.json`` of a model, its end tokens and chat template; see :class:`.generate.Reader`.

    End tokens are those of ``generation_config.json``, or else of ``config.json``, and the tokenizer's own.

    :raises ModelError: a file is missing or malformed, or no token ends a text.
    """

    def __init__(self, files: ModelFiles) -> None:
        source = read_text(files, "tokenizer.json")
        try:
            self._tokenizer = Tokenizer.from_str(source)
        except Exception:  # the library raises Exception itself
            raise ModelError("MODEL_FILE_MALFORMED", "tokenizer.json cannot be read") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._byte_level = _is_byte_level(read_json(files, "tokenizer.json"))
        self._added = {
            token: added.content for token, added in self._tokenizer.get_added_tokens_decoder().items()
        }
        self._template = ChatTemplate.of(files)
        self.ends = self._end_tokens(files)
        if not self.ends:
            raise ModelError("MODEL_UNSUPPORTED", "no file says which token ends a text")

    def encode(self, prompt: str | Sequence[object]) -> list[int]:
        """See :meth:`.generate.Reader.encode`. Templates write special tokens themselves."""
        if isinstance(prompt, str):
            check_text(prompt, MAX_PROMPT_BYTES, "a prompt")
            return list(self._tokenizer.encode(prompt, add_special_tokens=True).ids)
        if self._template is None:
            raise EngineError("ENGINE_NO_CHAT_TEMPLATE", "the model has no chat template")
        turns = [turn for turn in prompt if isinstance(turn, Turn)]
        for turn in turns:
            check_text(turn.content, MAX_PROMPT_BYTES, "a turn")
        rendered = self._template.render(turns)
        check_text(rendered, MAX_PROMPT_BYTES, "a conversation")
        return list(self._tokenizer.encode(rendered, add_special_tokens=False).ids)

    def decoder(self) -> TokenDecoder:
        """See :meth:`.generate.Reader.decoder`."""
        return TokenDecoder(self._tokenizer)

    def token_bytes(self, token: int) -> bytes:
        """See :meth:`.generate.Reader.token_bytes`."""
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if self._byte_level:
            table = _byte_table()
            return bytes(table[c] for c in piece) if all(c in table for c in piece) else piece.encode()
        if found := _BYTE_TOKEN.fullmatch(piece):
            return bytes.fromhex(found[1])
        return piece.replace("▁", " ").encode()

    def _end_tokens(self, files: ModelFiles) -> frozenset[int]:
        ends: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            value = read_map(files, name, optional=True).get("eos_token_id")
            ends |= {item for item in (value if isinstance(value, list) else [value]) if type(item) is int}
            if ends:
                break
        text = read_map(files, "tokenizer_config.json", optional=True).get("eos_token")
        text = text.get("content") if isinstance(text, dict) else text
        own = self._tokenizer.token_to_id(text) if isinstance(text, str) else None
        return frozenset(ends if own is None else ends | {own})


class TokenDecoder:
    """Decodes one text token by token, special tokens left out; see :class:`.generate.Decoder`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._given = 0

    def push(self, token: int) -> str:
        """See :meth:`.generate.Decoder.push`."""
        self._tokens.append(token)
        try:
            piece: str = self._stream.step(self._tokenizer, token) or ""
        except Exception:  # a token that cannot be decoded after what came before
            piece = ""
        self._given += len(piece)
        return piece

    def flush(self) -> str:
        """See :meth:`.generate.Decoder.flush`."""
        whole: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        rest = whole[self._given :]
        self._given += len(rest)
        return rest


class StopTexts:
    """Ends a text before the first stop text that is completed in it.

    What may still become a stop text is held back, so that nothing that was given is ever taken back.
    Where two are completed by the same character, the longer one counts.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Return what may be given of the text so far; after a stop always nothing."""
        if self.stopped:
            return ""
        held = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)[1]]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Return what was held back, now that the text is at its end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how much of the text's end is a beginning of the stop text."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _is_byte_level(config: Any) -> bool:
    """Whether tokens are spelt in GPT-2's alphabet of bytes."""
    parts = [config.get("decoder"), config.get("pre_tokenizer")] if isinstance(config, dict) else []
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if part.get("type") == "ByteLevel":
                return True
            for name in ("decoders", "pretokenizers"):
                parts += part.get(name) or []
    return False


@lru_cache(maxsize=1)
def _byte_table() -> dict[str, int]:
    """Return GPT-2's characters and their bytes: printable ones stand for themselves, others from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in plain}
    table |= {chr(256 + place): byte for place, byte in enumerate(b for b in range(256) if b not in plain)}
    return table
