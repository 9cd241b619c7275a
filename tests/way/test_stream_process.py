"""The whole way of a text with real processes: KMS, package, worker, Redis, a real model, streamed chunks."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer import AsyncClient, Delta, InputItem, JobResult
from ephemeralml.producer.lab import Lab
from ephemeralml.wire.job import Completion, Turn

from ..e2e.conftest import Bench
from ..engines.generate_models import llama_files


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Bench]:
    """A laboratory whose model is a small random Llama."""
    folder = tmp_path / "llama"
    folder.mkdir()
    for name, content in llama_files(context=512).items():
        (folder / name).write_bytes(content)
    lab = Lab.create(tmp_path / "lab")
    with lab.kms():
        lab.package(folder, model_id="random-llama")
        state = tmp_path / "state"
        with broker_running(broker_settings(state_dir=state)) as settings:
            bench = Bench(lab, state, settings)
            yield bench
            for process in bench.processes:
                if process.popen.poll() is None:
                    process.popen.send_signal(signal.SIGTERM)
                    process.end(20)


def texts(result: JobResult) -> list[str]:
    assert result.response is not None
    return [output.text for output in result.response.outputs if isinstance(output, Completion)]


def test_texts_are_generated_streamed_and_covered_by_receipts(writer: Bench, tmp_path: Path) -> None:
    worker = writer.start(
        EPHEMERALML_WORKER_BACKEND="transformers", EPHEMERALML_WORKER_STREAM_INTERVAL_SECONDS="0.05"
    )
    worker.wait_for("ready:", 200)  # it imports torch
    client = writer.client()
    fleet = client.trust_pool("minilm")
    long = {"max_tokens": 200, "seed": 7, "stream": True}
    short = {"max_tokens": 8, "logprobs": True}
    items = [
        InputItem("long", ("Once upon a time",), {**long}),
        InputItem("again", ("Once upon a time",), {**long, "stream": False}),
        InputItem("chat", ((Turn("user", "Hi"),), "Hi"), {**short, "top_logprobs": 2}),
        InputItem("bad", ("Hi",), {"temperature": 9}),
    ]
    pieces: dict[tuple[str, int], list[str]] = {}
    results: dict[str, JobResult] = {}
    with client.plan(fleet, items, tmp_path / "t.ticket", task="generate", pack_jobs=1) as ticket:
        client.push(ticket)
        for event in client.stream(ticket, 100):
            if isinstance(event, Delta):
                assert event.custom_id not in results  # all text comes before its result
                pieces.setdefault((event.custom_id, event.input), []).append(event.text)
            else:
                results[event.custom_id] = event
    assert {name: (result.status, result.code) for name, result in results.items()} == {
        **dict.fromkeys(("long", "again", "chat"), ("succeeded", "")),
        "bad": ("failed", "ENGINE_BAD_PARAMETERS"),
    }
    for (name, place), parts in pieces.items():
        assert "".join(parts) == texts(results[name])[place]
    assert len(pieces["long", 0]) > 2
    assert texts(results["long"]) == texts(results["again"])  # one seed, one text
    assert {result.assurance for name, result in results.items() if name != "bad"} == {"provenance"}
    chat = results["chat"].response
    assert chat is not None
    assert chat.sampling["top_logprobs"] == 2
    assert all(isinstance(out, Completion) and out.logprobs for out in chat.outputs)
    asyncio.run(once_more(AsyncClient(client), tmp_path / "async.ticket"))
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    assert "engine transformers/f32" in worker.text
    assert not any(text in worker.text for text in ("Once upon", *texts(results["chat"])))


async def once_more(client: AsyncClient, ticket_path: Path) -> None:
    item = InputItem("1", ("Es war",), {"max_tokens": 20, "stream": True})
    ticket = await client.plan(await client.trust_pool("minilm"), [item], ticket_path, task="generate")
    with ticket:
        await client.push(ticket)
        events = [event async for event in client.stream(ticket, 100)]
    *deltas, result = events
    assert isinstance(result, JobResult)
    assert ["".join(delta.text for delta in deltas if isinstance(delta, Delta))] == texts(result)
