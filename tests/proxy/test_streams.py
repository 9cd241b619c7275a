"""Streaming: held until the receipt is verified by default, or as chunks are opened where that is wanted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest

from ephemeralml.wire.chunk import ChunkHeader, seal_chunk
from ephemeralml.wire.sealing import Sealer
from ephemeralml.workers.pipeline import Reply

from .conftest import Stand
from .host import MODEL, Host

Make = Callable[..., Stand]
TEXT = "user:hi "


def chunks(host: Host, reply: Reply, texts: list[str]) -> None:
    """Publish what a worker publishes while it generates."""
    job, run = host.jobs[-1], os.urandom(8)
    sealer = Sealer(job.reply_key, "chunk", monotonic=time.monotonic)
    for index, text in enumerate(texts):
        header = ChunkHeader(
            reply.sealed.job_id, host.pool, job.reply_key.key_id, run, index, index == len(texts) - 1
        )
        host.publisher.publish(reply.reply_to, seal_chunk(sealer, job.salt, header, ((0, text),)))


def streaming(
    host: Host, texts: list[str], then: Callable[[list[Reply]], list[Reply]] = lambda replies: replies
) -> None:
    def meddle(replies: list[Reply]) -> list[Reply]:
        for reply in replies:
            chunks(host, reply, texts)
        return then(replies)

    host.meddle = meddle


def ask(client: openai.OpenAI, **more: Any) -> openai.Stream[Any]:
    stream: openai.Stream[Any] = client.chat.completions.create(
        model=MODEL.id, messages=[{"role": "user", "content": "hi"}], stream=True, **more
    )
    return stream


def text_of(chunk: Any) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def test_by_default_no_chunks_are_asked_for(client: openai.OpenAI, shared: Stand) -> None:
    assert "".join(map(text_of, ask(client))) == TEXT
    assert "stream" not in shared.host.jobs[-1].parameters


def test_by_default_a_refused_receipt_lets_no_text_out(stand: Make) -> None:
    served = stand()
    served.host.meddle = lambda replies: [
        Reply(reply.reply_to, replace(reply.sealed, outcome=reply.sealed.outcome[:-1] + b"?"))
        for reply in replies
    ]
    with served.openai as client, served.hastened(), pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 503


def test_as_sealed_text_comes_before_the_result(stand: Make) -> None:
    served = stand(stream="as-sealed")
    read = threading.Event()

    def hold(replies: list[Reply]) -> list[Reply]:
        assert read.wait(20)
        return replies

    streaming(served.host, ["user:", "hi "], hold)
    with served.openai as client:
        found = ""
        for chunk in ask(client, stream_options={"include_usage": True}):
            found += text_of(chunk)
            if found == TEXT:
                read.set()
        assert found == TEXT
        assert chunk.usage.total_tokens == 2
        assert served.host.jobs[-1].parameters["stream"] is True
        receipt = served.proxy.service.receipts.report(chunk.id)
        assert receipt is not None
        assert receipt["assurance"] == "provenance"


def test_as_sealed_without_chunks_the_result_brings_the_text(stand: Make) -> None:
    served = stand(stream="as-sealed")
    with served.openai as client:
        assert "".join(map(text_of, ask(client, n=2))) == TEXT * 2


def flipped(replies: list[Reply]) -> list[Reply]:
    return [
        Reply(reply.reply_to, replace(reply.sealed, outcome=reply.sealed.outcome[:-1] + b"?"))
        for reply in replies
    ]


@pytest.mark.parametrize(
    ("texts", "then", "code"),
    [
        (["user:"], flipped, "SIG_FAILED"),
        (["something else"], lambda replies: replies, "STREAM_MISMATCH"),
        (["user:"], lambda replies: [], "JOB_UNANSWERED"),
    ],
)
def test_as_sealed_a_result_that_fails_ends_the_stream_with_an_error(
    stand: Make, texts: list[str], then: Callable[[list[Reply]], list[Reply]], code: str
) -> None:
    served = stand(stream="as-sealed", timeout_s=1 if code == "JOB_UNANSWERED" else 60)
    streaming(served.host, texts, then)
    body = {"model": MODEL.id, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with served.openai as client, served.http() as http, served.hastened():
        found: list[str] = []
        with pytest.raises(openai.APIError) as caught:
            found.extend(map(text_of, ask(client)))
        assert "".join(found) == texts[0]
        assert caught.value.code == code
        raw = http.post("/v1/chat/completions", json=body).text
    assert "[DONE]" not in raw
    assert raw.rstrip().splitlines()[-1].startswith('data: {"error":')
    assert served.proxy.service.receipts.database.rows("SELECT count(*) FROM receipts") == [(0,)]


def test_chunks_of_a_host_change_nothing(stand: Make) -> None:
    """Who knows the reply key, but not the job's salt, makes no chunk that counts."""
    served = stand(stream="as-sealed")

    def meddle(replies: list[Reply]) -> list[Reply]:
        job = served.host.jobs[-1]
        served.host.jobs[-1] = replace(job, salt=bytes(32))
        chunks(served.host, replies[0], ["forged"])
        return replies

    served.host.meddle = meddle
    with served.openai as client:
        assert "".join(map(text_of, ask(client))) == TEXT


def test_who_leaves_a_stream_is_forgotten(stand: Make) -> None:
    served = stand(stream="as-sealed")
    streaming(served.host, ["user:"], lambda _: [])
    with served.openai as client:
        stream = ask(client)
        next(iter(stream))
        stream.close()
    deadline = time.monotonic() + 20
    while served.proxy.service.session.pending:
        assert time.monotonic() < deadline
        time.sleep(0.02)
