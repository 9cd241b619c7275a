"""Reads input files: JSON lines or plain text, checked whole before anything is submitted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..wire.encoding import encode
from ..wire.errors import ConfigurationError, MalformedError
from ..wire.job import MAX_INPUTS, Input, Scalar, Turn

MAX_LINE_BYTES: Final = 1 << 20
MAX_ITEMS: Final = 50_000
_KEYS: Final = frozenset({"id", "parameters"})
_INPUTS: Final = frozenset({"text", "inputs", "messages"})


@dataclass(frozen=True, slots=True)
class InputItem:
    """One job to be: the caller's own id, its texts (or conversations), and engine parameters by name."""

    custom_id: str
    texts: tuple[Input, ...] = field(repr=False)
    parameters: dict[str, Scalar | list[Scalar]] = field(default_factory=dict)


def read_inputs(path: Path) -> list[InputItem]:
    """Read a file of inputs: ``.jsonl`` / ``.ndjson`` as JSON lines, anything else as one text per line.

    A JSON line is a string, or an object with ``text``, ``inputs`` (a list of texts) or ``messages`` (a
    conversation: objects with ``role`` and ``content``), and optional ``id`` and ``parameters``. Empty
    lines are skipped. Messages name lines, never contents.

    :raises ConfigurationError: ``INPUT_UNREADABLE``.
    :raises MalformedError: ``INPUT_EMPTY``, ``INPUT_LINE_TOO_LONG``, ``INPUT_NOT_JSON``, ``INPUT_NOT_UTF8``,
        ``INPUT_BAD_ITEM``, ``INPUT_DUPLICATE_ID`` or ``INPUT_TOO_MANY``.
    """
    as_json = path.suffix.lower() in {".jsonl", ".ndjson"}
    items: list[InputItem] = []
    seen: set[str] = set()
    for number, line in _lines(path):
        item = _json_item(number, line) if as_json else InputItem(str(number), (line,))
        if item.custom_id in seen:
            raise MalformedError("INPUT_DUPLICATE_ID", f"line {number} repeats an id")
        if len(items) >= MAX_ITEMS:
            raise MalformedError("INPUT_TOO_MANY", f"more than {MAX_ITEMS} items; split the file")
        seen.add(item.custom_id)
        items.append(item)
    if not items:
        raise MalformedError("INPUT_EMPTY", "the input file has no lines with content")
    return items


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 2):
                number += 1
                if len(raw.rstrip(b"\r\n")) > MAX_LINE_BYTES:
                    raise MalformedError(
                        "INPUT_LINE_TOO_LONG", f"line {number} is over {MAX_LINE_BYTES} bytes"
                    )
                try:
                    text = raw.decode().strip()
                except UnicodeDecodeError:
                    raise MalformedError("INPUT_NOT_UTF8", f"line {number} is not UTF-8") from None
                if text:
                    yield number, text
    except OSError as error:
        raise ConfigurationError(
            "INPUT_UNREADABLE", f"cannot read the input file: {error.strerror}"
        ) from None


def _json_item(number: int, line: str) -> InputItem:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise MalformedError("INPUT_NOT_JSON", f"line {number} is not JSON") from None
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict) or len(value.keys() & _INPUTS) != 1 or value.keys() - _INPUTS - _KEYS:
        raise _bad(number, "needs 'text', 'inputs' or 'messages', and only 'id' and 'parameters' beside")
    texts = _inputs(number, value)
    custom_id = value.get("id", str(number))
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= 256:
        raise _bad(number, "has an id that is not a text of 1 to 256 characters")
    parameters = _parameters(number, value.get("parameters", {}))
    try:
        flat = [text if isinstance(text, str) else [[t.role, t.content] for t in text] for text in texts]
        encode([flat, parameters, custom_id])  # numbers beyond 64 bits, lone surrogates
    except MalformedError:
        raise _bad(number, "has a value that cannot travel") from None
    return InputItem(custom_id, tuple(texts), parameters)


def _inputs(number: int, value: dict[str, Any]) -> list[Input]:
    if "messages" in value:
        messages = value["messages"]
        if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_INPUTS:
            raise _bad(number, f"needs 1 to {MAX_INPUTS} messages")
        return [tuple(_turn(number, message) for message in messages)]
    texts = [value["text"]] if "text" in value else value["inputs"]
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_INPUTS or not all(_text(t) for t in texts):
        raise _bad(number, f"needs 1 to {MAX_INPUTS} texts")
    return texts


def _turn(number: int, message: Any) -> Turn:
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        raise _bad(number, "has a message that is not 'role' and 'content'")
    if not _text(message["role"]) or not isinstance(message["content"], str):
        raise _bad(number, "has a message whose role or content is not a text")
    return Turn(message["role"], message["content"])


def _parameters(number: int, value: Any) -> dict[str, Scalar | list[Scalar]]:
    if not isinstance(value, dict):
        raise _bad(number, "has parameters that are not a map")
    flat = [part for item in value.values() for part in (item if isinstance(item, list) else [item])]
    if len(flat) > MAX_INPUTS or not all(isinstance(part, (int, float, str, bool)) for part in flat):
        raise _bad(number, "has parameters that are not plain values")
    result: dict[str, Scalar | list[Scalar]] = value
    return result


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _bad(number: int, why: str) -> MalformedError:
    return MalformedError("INPUT_BAD_ITEM", f"line {number} {why}")
