"""Chat templates: bounded, sandboxed, and read from a model's own files."""

from __future__ import annotations

import json

import pytest

from ephemeralml.wire.errors import EngineError, ModelError
from ephemeralml.wire.job import Turn
from ephemeralml.workers.engines import chat
from ephemeralml.workers.engines.chat import ChatTemplate

HI = [Turn("user", "hi")]


def of(config: object, **files: bytes) -> ChatTemplate | None:
    named = {name.replace("__", "."): content for name, content in files.items()}
    return ChatTemplate.of({"tokenizer_config.json": json.dumps(config).encode(), **named})


def test_the_template_is_found_where_models_keep_it() -> None:
    assert of({}) is None
    assert ChatTemplate.of({}) is None
    plain = of({"chat_template": "{{ bos_token }}{{ messages[0].content }}", "bos_token": {"content": "<s>"}})
    assert plain is not None
    assert plain.render(HI) == "<s>hi"
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    several = of({"chat_template": named})
    assert several is not None
    assert several.render(HI) == "yes"
    own_file = of({"chat_template": "config"}, chat_template__jinja=b"file")
    assert own_file is not None
    assert own_file.render(HI) == "file"


@pytest.mark.parametrize("source", [5, "{% for %}", "{{ 'a' | no_such_filter }}", "x" * 262_145])
def test_a_template_that_is_none_is_refused(source: object) -> None:
    with pytest.raises(ModelError, match="CHAT_TEMPLATE_MALFORMED"):
        of({"chat_template": source})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.sys }}",
        "{{ lipsum.__globals__['os'].system('true') }}",
        "{% include 'file' %}",
        "{{ messages[0].content.format_map.__self__.__class__.__init__.__globals__ }}",
        "{% for a in range(1000000000) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('secret ' + messages[0].content) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_template_reaches_nothing_but_the_conversation(source: str) -> None:
    with pytest.raises(EngineError, match="ENGINE_BAD_INPUT") as caught:
        print(ChatTemplate(source, {}).render(HI))
    assert "hi" not in str(caught.value).split()


def test_a_template_that_puts_out_too_much_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_PROMPT_CHARACTERS", 1000)
    with pytest.raises(EngineError, match="ENGINE_INPUT_TOO_LONG"):
        ChatTemplate("{% for a in range(99999) %}xy{% endfor %}", {}).render(HI)
    monkeypatch.setattr(chat, "MAX_PIECES", 10)
    with pytest.raises(EngineError, match="ENGINE_INPUT_TOO_LONG"):
        ChatTemplate("{% for a in range(99) %}{{ '' }}{% endfor %}", {}).render(HI)


@pytest.mark.parametrize("turns", [[], [Turn("", "a")], [Turn("r" * 65, "a")], [Turn("user", "a")] * 1025])
def test_conversations_have_bounds(turns: list[Turn]) -> None:
    with pytest.raises(EngineError, match="ENGINE_BAD_INPUT"):
        ChatTemplate("x", {}).render(turns)


def test_templates_see_neither_clock_nor_environment() -> None:
    source = "{{ strftime_now is defined }} {{ now is defined }} {{ environ is defined }}"
    assert ChatTemplate(source, {}).render(HI) == "False False False"
