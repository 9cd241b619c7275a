"""OpenAI's own client against the proxy: what it asks for, it gets, and every answer has a receipt."""

from __future__ import annotations

import base64
import hashlib
import struct

import httpx
import openai
import pytest

from .conftest import Stand
from .host import MODEL


def test_models_are_listed_by_id_pool_and_alias(client: openai.OpenAI, shared: Stand) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["text-embedding-3-small", MODEL.id, shared.host.pool]
    assert client.models.retrieve(MODEL.id).owned_by == "ephemeralml"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-7")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_in_both_encodings_are_the_same_numbers(
    client: openai.OpenAI, encoding: str | None
) -> None:
    more = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model=MODEL.id, input=["one", "two"], **more)  # type: ignore[arg-type]
    assert answer.model == MODEL.id
    assert [item.index for item in answer.data] == [0, 1]
    vector = answer.data[0].embedding
    if encoding == "base64":
        raw = base64.b64decode(vector)  # type: ignore[arg-type]
        vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    assert len(vector) == 384
    assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-5)
    again = client.embeddings.create(model=MODEL.id, input="one", encoding_format="float").data[0].embedding
    assert list(vector) == again
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 6


def test_dimensions_are_honoured_or_refused(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model=MODEL.id, input="x", dimensions=16).data[0].embedding) == 16
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL.id, input="x", dimensions=5000)
    assert caught.value.code == "ENGINE_BAD_PARAMETERS"


def test_every_answer_names_its_receipt(client: openai.OpenAI, http: httpx.Client) -> None:
    answer = client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="x")
    where = answer.headers["x-ephemeralml-receipt"]
    assert answer.headers["x-ephemeralml-assurance"] == "provenance"
    assert where == f"/receipts/{answer.parse()._request_id}"
    report = http.get(where).json()
    assert (report["status"], report["assurance"], report["report"]["verdict"]) == (
        "succeeded",
        "provenance",
        "sound",
    )
    receipt = http.get(where, headers={"accept": "application/cose"})
    assert receipt.headers["content-type"].startswith("application/cose")
    assert receipt.content == base64.b64decode(report["receipt"]) == http.get(where + "/air").content
    assert hashlib.sha256(http.get(where + "/evidence").content).hexdigest() == report["evidence_sha256"]
    assert http.get(where + "/outcome").content == base64.b64decode(report["outcome"])


def test_chat_is_answered_with_usage_and_fingerprint(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL.id,
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "good "}, {"type": "text", "text": "day"}]},
        ],
        temperature=0,
        max_completion_tokens=5,
        seed=7,
        stop="END",
        logprobs=True,
        top_logprobs=1,
    )
    assert answer.choices[0].message.content == "system:be brief user:good day "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 2)
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.5
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint


def test_several_choices_come_from_one_job(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL.id, messages=[{"role": "user", "content": "hi"}], n=3, max_tokens=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, 3)


def test_a_stream_is_the_verified_text(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL.id,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "user:hi "
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 2
