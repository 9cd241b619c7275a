"""``/v1/chat/completions``: one request is one job of the task ``generate``.

Parameters become those of spec/stream.md, section 1. What would change the answer and cannot be
honoured is refused; only what changes nothing is ignored (docs/proxy.md lists it).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ...wire.generation import GenerateParameters, Scalar
from ...wire.job import Completion, Turn
from ..inputs import InputItem
from ..judge import JobResult
from .calls import Body, Call
from .catalogue import Catalogue
from .errors import ApiError, not_supported

MAX_MESSAGES: Final = 2048
MAX_CHOICES: Final = 16
#: Models know no role ``developer``; it is OpenAI's newer word for ``system``.
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ENDS: Final = {"stop": "stop", "length": "length", "deadline": "length"}
#: Fields that may be sent where they ask for nothing, and are refused where they ask for something.
_EMPTY: Final[dict[str, tuple[object, ...]]] = {
    "tools": ([],),
    "functions": ([],),
    "logit_bias": ({},),
    "tool_choice": ("none",),
    "function_call": ("none",),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}


class StreamOptions(Body):
    """What a stream holds beside texts; ``include_obfuscation`` asks for filling that chunks have anyway."""

    include_usage: bool = False
    include_obfuscation: bool = True


class ChatBody(Body):
    """The body of a request. The last group is taken and goes nowhere."""

    model: str
    messages: list[Any]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    tools: Any = None
    functions: Any = None
    logit_bias: Any = None
    tool_choice: Any = None
    function_call: Any = None
    modalities: Any = None
    response_format: Any = None
    store: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    user: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    parallel_tool_calls: bool | None = None


def read_chat(value: object, catalogue: Catalogue, custom_id: str, *, max_tokens: int) -> Call:
    """Read a request.

    :param max_tokens: of a text whose request names no limit.
    :raises ApiError: it is not one that can be answered.
    :raises pydantic.ValidationError: it is not of its form.
    :raises MalformedError: ``BAD_PARAMETERS``.
    """
    body = ChatBody.model_validate(value)
    for name, harmless in _EMPTY.items():
        asked = getattr(body, name)
        if asked is not None and asked not in harmless:
            raise not_supported(name, "no engine here does this")
    conversation = _conversation(body.messages)
    pool = catalogue.pool(body.model, "generate")
    count = body.n or 1
    parameters = _parameters(body, max_tokens)
    GenerateParameters.read(parameters, count)
    item = InputItem(custom_id, (conversation,) * count, parameters)
    usage = body.stream_options is not None and body.stream_options.include_usage
    render = partial(_render, count)
    return Call(
        "generate", body.model, pool, item, "chatcmpl-", render, stream=bool(body.stream), include_usage=usage
    )


def _parameters(body: ChatBody, max_tokens: int) -> dict[str, Scalar | list[Scalar]]:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise ApiError(
            400,
            "Name max_completion_tokens or max_tokens, not both.",
            param="max_tokens",
            code="invalid_value",
        )
    values: dict[str, Any] = {
        name: getattr(body, name)
        for name in (
            *("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logprobs"),
            *("top_logprobs", "top_k", "min_p", "repetition_penalty"),
        )
    }
    values["max_tokens"] = body.max_completion_tokens or body.max_tokens or max_tokens
    if body.stop:
        values["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    return {name: value for name, value in values.items() if value is not None}


def _conversation(messages: list[Any]) -> tuple[Turn, ...]:
    if not 1 <= len(messages) <= MAX_MESSAGES:
        message = f"'messages' must hold 1 to {MAX_MESSAGES} messages."
        raise ApiError(400, message, param="messages", code="invalid_value")
    return tuple(_turn(index, message) for index, message in enumerate(messages))


def _turn(index: int, message: Any) -> Turn:
    where = f"messages[{index}]"
    if not isinstance(message, dict) or not message.keys() >= {"role", "content"}:
        raise ApiError(400, f"'{where}' needs role and content.", param=where, code="invalid_value")
    extra = [key for key, part in message.items() if key not in ("role", "content", "refusal") and part]
    role = _ROLES.get(message["role"]) if isinstance(message["role"], str) else None
    if role is None or extra:
        raise not_supported(where, "a message is a role (system, developer, user, assistant) and its text")
    return Turn(role, _text(where, message["content"]))


def _text(where: str, content: Any) -> str:
    """Return a message's text, which may come in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        texts = [
            part["text"]
            for part in content
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        ]
        if len(texts) == len(content):
            return "".join(texts)
    raise not_supported(f"{where}.content", "only text is")


def _render(count: int, result: JobResult, response_id: str, created: int) -> dict[str, Any]:
    outputs = completions(result, count)
    return {
        "id": response_id,
        "object": "chat.completion",
        "created": created,
        "model": model_of(result),
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": output.text, "refusal": None},
                "logprobs": logprobs(output),
                "finish_reason": finish_reason(output),
            }
            for index, output in enumerate(outputs)
        ],
        "usage": usage(outputs),
        "system_fingerprint": fingerprint(result),
    }


def completions(result: JobResult, count: int | None = None) -> list[Completion]:
    """Return the texts of a verified result.

    :param count: how many were asked for.
    :raises ApiError: there are not so many.
    """
    assert result.response is not None  # noqa: S101 - held by who judged it
    outputs = [output for output in result.response.outputs if isinstance(output, Completion)]
    if not outputs or (count is not None and len(outputs) != count):
        raise ApiError(
            502, "the worker answered in another form", type="server_error", code="RESPONSE_MISMATCH"
        )
    return outputs


def model_of(result: JobResult) -> str:
    """Return the id of the model that ran, as the receipt states it."""
    return result.response.model if result.response is not None else ""


def fingerprint(result: JobResult) -> str | None:
    """Return what names the engine: with the same seed and fingerprint a text may repeat."""
    if result.response is None:
        return None
    engine = result.response.engine
    return f"{engine.name}-{engine.version}-{engine.precision}-{result.response.model_hash.hex()[:12]}"


def finish_reason(output: Completion) -> Literal["stop", "length"]:
    """Return why a text ended in OpenAI's words; a deadline that came first cut it, as a limit does."""
    return "stop" if _ENDS[output.finish_reason] == "stop" else "length"


def usage(outputs: list[Completion]) -> dict[str, int]:
    """Return the token counts that the worker signed for: the prompt once, all outputs."""
    prompt, written = outputs[0].input_tokens, sum(output.output_tokens for output in outputs)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def logprobs(output: Completion) -> dict[str, Any] | None:
    """Return the log-probabilities of a text in OpenAI's form; None where there are none."""
    if output.logprobs is None:
        return None
    content = [
        _token(item.token, item.logprob)
        | {"top_logprobs": [_token(token, value) for token, value in item.top]}
        for item in output.logprobs
    ]
    return {"content": content, "refusal": None}


def _token(token: bytes, value: float) -> dict[str, Any]:
    return {"token": token.decode(errors="replace"), "logprob": value, "bytes": list(token)}
