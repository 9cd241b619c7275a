"""Texts that arrive before their results: what the host may do to chunks, and what they tell it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from ephemeralml.producer.inputs import InputItem, read_inputs
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.outputs import result_line
from ephemeralml.producer.stream import Delta, JobStream, TicketStreams, job_of
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.chunk import ChunkHeader, decode_chunk, seal_chunk
from ephemeralml.wire.errors import DeliveryError, MalformedError, VerificationError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.job import Completion, Turn
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.sealing import Sealer
from ephemeralml.workers.engines.generate_loop import GenerateLoop
from ephemeralml.workers.runner import GenerateRunner
from ephemeralml.workers.streaming import ChunkStreams

from ..engines.script_stepper import ScriptStepper, answer
from .harness import Stand

LONG = "A long tale. " * 120


@dataclass
class Host:
    """Carries messages, and remembers the chunks among them."""

    chunks: list[tuple[str, bytes]] = field(default_factory=list)
    down: bool = False

    def publish(self, reply_to: str, message: bytes) -> None:
        if self.down:
            raise DeliveryError("BROKER_UNREACHABLE")
        self.chunks.append((reply_to, message))

    def messages(self) -> list[bytes]:
        return [message for _, message in self.chunks]


class StreamStand(Stand):
    """The stand of the other tests, with an engine that generates and ticks that the test gives."""

    host: Host
    stepper: ScriptStepper
    streams: ChunkStreams
    engine: GenerateLoop

    def begin(self, script: Callable[[str], str] = answer, max_streams: int = 64) -> None:
        self.host, self.stepper = Host(), ScriptStepper(script)
        self.engine = GenerateLoop(self.stepper)
        self.streams = ChunkStreams(
            self.host.publish, monotonic=time.monotonic, interval_s=3600, max_streams=max_streams
        )
        self.pipeline.identity = replace(self.pipeline.identity, tasks=("generate",))
        self.pipeline.runner = GenerateRunner(self.engine, unix=lambda: self.now)
        self.pipeline.chunks = self.streams

    def end(self) -> None:
        self.stepper.hold.set()
        self.streams.close()
        self.engine.close()
        self.close()

    def ask(self, *items: InputItem) -> Ticket:
        ticket = self.client.plan(self.fleet(), items, self.folder / str(len(self.tickets)), task="generate")
        self.tickets.append(ticket)
        return ticket

    def results(self, ticket: Ticket) -> list[JobResult]:
        return [self.judge(ticket, reply.sealed) for reply in self.answer(ticket)]


def asking(text: str = "hello", custom_id: str = "1", **parameters: object) -> InputItem:
    return InputItem(custom_id, (text,), {"stream": True, "max_tokens": 4000, **parameters})  # type: ignore[dict-item]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[StreamStand]:
    made = StreamStand(tmp_path)
    made.begin()
    yield made
    made.end()


def texts_of(result: JobResult) -> list[str]:
    assert result.response is not None
    return [output.text for output in result.response.outputs if isinstance(output, Completion)]


def whole(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def chunked(stand: StreamStand, ticket: Ticket, ticks: int = 6) -> JobResult:
    """Run a ticket of one job while chunks go out as the text grows, and return its result."""
    stepper = stand.stepper
    stepper.allow(0)
    results: list[JobResult] = []
    running = threading.Thread(target=lambda: results.extend(stand.results(ticket)))
    running.start()
    stepper.until(lambda: bool(stepper.running))
    for _ in range(ticks):
        stepper.allow(2)
        stepper.until(lambda: stepper.allowed == 0)
        stand.streams.tick()
    stepper.allow(None)
    running.join(60)
    (result,) = results
    return result


def test_the_text_arrives_in_order_and_the_result_covers_it(stand: StreamStand) -> None:
    ticket = stand.ask(asking())
    result = chunked(stand, ticket)
    streams = TicketStreams(ticket)
    got = [delta for message in stand.host.messages() for delta in streams.take(message)]
    assert whole(got) == answer("hello")
    assert streams.finish(result) == []
    assert texts_of(result) == [answer("hello")]
    assert result.status == "succeeded"
    assert {reply_to for reply_to, _ in stand.host.chunks} == {ticket.head.reply_to}


def test_chunks_have_one_size_and_go_out_whether_there_is_text_or_not(stand: StreamStand) -> None:
    """Neither size nor number of chunks says how many tokens a tick brought."""
    for text in ("a", "hello " * 30):
        stand.host.chunks.clear()
        chunked(stand, stand.ask(asking(text)), ticks=9)
        assert len(stand.host.chunks) == 10
        assert len({len(message) for message in stand.host.messages()}) == 1


def test_a_job_that_asks_for_no_chunks_gets_none(stand: StreamStand) -> None:
    ticket = stand.ask(asking(stream=False))
    (result,) = stand.results(ticket)
    stand.streams.tick()
    assert stand.host.chunks == []
    assert whole(TicketStreams(ticket).finish(result)) == answer("hello")


def test_several_inputs_and_jobs_stream_side_by_side(stand: StreamStand) -> None:
    items = [InputItem(n, (f"{n}-1", f"{n}-2"), {"stream": True}) for n in ("x", "y")]
    ticket = stand.ask(*items)
    results = stand.results(ticket)
    streams = TicketStreams(ticket)
    got: dict[tuple[str, int], str] = {}
    deltas = [delta for message in stand.host.messages() for delta in streams.take(message)]
    for delta in [*deltas, *(delta for result in results for delta in streams.finish(result))]:
        key = delta.custom_id, delta.input
        got[key] = got.get(key, "") + delta.text
    assert got == {(n, place): answer(f"{n}-{place + 1}") for n in "xy" for place in (0, 1)}


def test_a_text_longer_than_the_pace_comes_with_the_result(tmp_path: Path) -> None:
    stand = StreamStand(tmp_path)
    stand.begin(lambda _: LONG)
    ticket = stand.ask(asking())
    (result,) = stand.results(ticket)
    assert stand.host.chunks == []  # what is left does not fit into one chunk: none is sent
    assert whole(TicketStreams(ticket).finish(result)) == LONG
    stand.end()


@pytest.mark.parametrize("play", ["lost", "first-lost", "twice", "reversed", "late"])
def test_whatever_the_host_does_to_chunks_the_text_is_whole(stand: StreamStand, play: str) -> None:
    ticket = stand.ask(asking("hello " * 20))
    result = chunked(stand, ticket)
    messages = stand.host.messages()
    carried = {
        "lost": [message for place, message in enumerate(messages) if place % 2],
        "first-lost": messages[1:],
        "twice": [message for message in messages for _ in range(2)],
        "reversed": messages[::-1],
        "late": [],
    }[play]
    streams = TicketStreams(ticket)
    got = [delta for message in carried for delta in streams.take(message)]
    assert answer("hello " * 20).startswith(whole(got))
    got += streams.finish(result)
    assert whole(got) == answer("hello " * 20)
    assert [delta for message in messages for delta in streams.take(message)] == []


def test_chunks_of_others_add_nothing(stand: StreamStand) -> None:
    ticket, other = stand.ask(asking()), stand.ask(asking("other"))
    stand.results(ticket)
    stand.results(other)
    mine, theirs = stand.host.messages()
    record = next(iter(ticket.jobs.values()))
    assert job_of(mine) == bytes.fromhex(record.job_id)
    stream = JobStream(record, ticket.head.pool, Opener([ticket.reply_key], "chunk"))
    assert stream.take(theirs) == []
    assert stream.take(mine[:-1] + bytes([mine[-1] ^ 1])) == []
    assert stream.discarded == 2
    assert whole(stream.take(mine)) == answer("hello")
    assert job_of(b"no chunk") is None
    assert job_of(mine[:2]) is None


def test_a_forged_chunk_needs_the_secret_salt(stand: StreamStand) -> None:
    """The reply key is public to whoever learns it; only who opened the job knows its salt."""
    ticket = stand.ask(asking())
    stand.results(ticket)
    head = ChunkHeader.decode(decode_chunk(stand.host.messages()[0])[0])
    sealer = Sealer(ticket.reply_key.public_key, "chunk", monotonic=time.monotonic)
    forged = seal_chunk(sealer, bytes(32), replace(head, run=bytes(8), index=0), ((0, "forged"),))
    streams = TicketStreams(ticket)
    assert streams.take(forged) == []


def of_worker(ticket: Ticket, run: int, index: int, text: str, *, last: bool = False) -> bytes:
    """Return a chunk as a worker that opened the job can make it."""
    (record,) = ticket.jobs.values()
    key = ticket.reply_key.public_key
    head = ChunkHeader(
        bytes.fromhex(record.job_id), ticket.head.pool, key.key_id, bytes([run]) * 8, index, last
    )
    sealer = Sealer(key, "chunk", monotonic=time.monotonic)
    return seal_chunk(sealer, bytes.fromhex(record.salt), head, ((0, text),))


def test_a_job_that_runs_again_goes_on_with_the_same_text(stand: StreamStand) -> None:
    ticket = stand.ask(asking())
    said = answer("hello")
    streams = TicketStreams(ticket)
    got = streams.take(of_worker(ticket, 1, 0, said[:5]))
    for index, piece in enumerate((said[:3], said[3:9], said[9:])):
        got += streams.take(of_worker(ticket, 2, index, piece))
    assert whole(got) == said
    (result,) = stand.results(ticket)
    assert streams.finish(result) == []


def test_a_text_that_is_not_the_results_is_told(stand: StreamStand) -> None:
    ticket = stand.ask(asking())
    streams = TicketStreams(ticket)
    assert whole(streams.take(of_worker(ticket, 1, 0, "Something else"))) == "Something else"
    assert streams.take(of_worker(ticket, 2, 0, "You said")) == []
    (result,) = stand.results(ticket)
    with pytest.raises(VerificationError, match="STREAM_MISMATCH"):
        streams.finish(result)


def test_a_run_that_says_it_is_whole_must_be_the_whole_text(stand: StreamStand) -> None:
    ticket = stand.ask(asking())
    streams = TicketStreams(ticket)
    streams.take(of_worker(ticket, 1, 0, "You said", last=True))
    (result,) = stand.results(ticket)
    with pytest.raises(VerificationError, match="STREAM_MISMATCH"):
        streams.finish(result)


def test_a_broker_that_is_away_costs_chunks_only(stand: StreamStand) -> None:
    ticket = stand.ask(asking())
    stand.host.down = True
    result = chunked(stand, ticket)
    assert texts_of(result) == [answer("hello")]
    assert stand.host.chunks == []


def test_too_many_streams_get_their_text_with_the_result(tmp_path: Path) -> None:
    stand = StreamStand(tmp_path)
    stand.begin(max_streams=1)
    ticket = stand.ask(asking("a", "1"), asking("b", "2"))
    results = stand.results(ticket)
    assert [texts_of(result) for result in results] == [[answer("a")], [answer("b")]]
    assert len({job_of(message) for message in stand.host.messages()}) == 1
    stand.end()


def test_a_failed_job_has_no_last_chunk(stand: StreamStand) -> None:
    ticket = stand.ask(asking("poison"))
    (result,) = stand.results(ticket)
    assert (result.status, result.code) == ("failed", "ENGINE_BAD_INPUT")
    assert stand.host.chunks == []


def test_the_pace_is_kept_by_a_thread_of_its_own(tmp_path: Path) -> None:
    stand = StreamStand(tmp_path)
    stand.begin()
    streams = ChunkStreams(stand.host.publish, monotonic=time.monotonic, interval_s=0.01)
    stand.pipeline.chunks = streams
    stand.stepper.hold.clear()
    ticket = stand.ask(asking())
    running = threading.Thread(target=lambda: stand.results(ticket))
    running.start()
    deadline = time.monotonic() + 60
    while len(stand.host.chunks) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(stand.host.chunks) >= 3
    stand.stepper.hold.set()
    running.join(60)
    streams.close()
    streams.close()
    stand.end()


# ------------------------------------------------------------- what the response says


def test_parameters_and_seeds_are_recorded(stand: StreamStand) -> None:
    given = {"temperature": 0.5, "top_k": 5, "seed": 3, "stop": ["###"], "max_tokens": 9}
    (result,) = stand.results(stand.ask(InputItem("1", ("a", "b"), given)))  # type: ignore[arg-type]
    assert result.response is not None
    assert result.response.sampling == GenerateParameters.read(given).effective()
    assert [out.seed for out in result.response.outputs if isinstance(out, Completion)] == [3, 4]
    assert [out.output_tokens for out in result.response.outputs if isinstance(out, Completion)] == [9, 9]


def test_conversations_and_logprobs_travel(stand: StreamStand) -> None:
    turns = (Turn("user", "hi"),)
    (result,) = stand.results(stand.ask(InputItem("1", (turns,), {"logprobs": True, "top_logprobs": 1})))
    assert result.response is not None
    (out,) = result.response.outputs
    assert isinstance(out, Completion)
    assert out.logprobs is not None
    assert (out.logprobs[0].token, out.logprobs[0].top) == (b"Y", ((b"A", -1.0),))


@pytest.mark.parametrize("parameters", [{"temperature": 3}, {"normalize": True}, {"stop": "a"}])
def test_parameters_that_are_not_the_tasks_end_the_job_alone(
    stand: StreamStand, parameters: dict[str, int | str | bool]
) -> None:
    ticket = stand.ask(InputItem("bad", ("a",), dict(parameters)), InputItem("good", ("a",)))
    bad, good = stand.results(ticket)
    assert (bad.status, bad.code) == ("failed", "ENGINE_BAD_PARAMETERS")
    assert texts_of(good) == [answer("a")]


def test_a_job_past_its_deadline_gets_what_there_was(stand: StreamStand) -> None:
    ticket = stand.ask(asking())
    stand.now = ticket.head.not_after - 0.5
    (result,) = stand.results(ticket)
    assert result.response is not None
    (out,) = result.response.outputs
    assert isinstance(out, Completion)
    assert (out.text, out.finish_reason) == ("", "deadline")


# ------------------------------------------------------------------ files of inputs and results


def test_conversations_are_read_from_files_and_results_written_whole(stand: StreamStand) -> None:
    path = stand.folder / "in.jsonl"
    lines = [
        {"id": "chat", "messages": [{"role": "user", "content": "hi"}], "parameters": {"seed": 5}},
        {"id": "told", "text": "a", "parameters": {"max_tokens": 2, "logprobs": True, "top_logprobs": 1}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = read_inputs(path)
    assert items[0].texts == ((Turn("user", "hi"),),)
    chat, told = map(result_line, stand.results(stand.ask(*items)))
    assert json.loads(json.dumps(chat)) == chat
    assert chat["outputs"] == [
        {
            **{"text": answer("hi"), "finish_reason": "stop", "input_tokens": 2, "seed": 5},
            "output_tokens": len(answer("hi").encode()) + 1,
        }
    ]
    (output,) = cast("list[dict[str, Any]]", told["outputs"])
    assert output["logprobs"][0] == {
        **{"token": "Y", "bytes": [89], "logprob": -1.0},
        "top": [{"token": "A", "bytes": [65], "logprob": -1.0}],
    }
    assert cast("dict[str, Any]", told["sampling"])["max_tokens"] == 2


@pytest.mark.parametrize(
    "line",
    [
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a", "name": "b"}]},
        {"messages": [{"role": "user", "content": "a"}], "text": "b"},
        {"messages": [{"role": "user", "content": "\ud800"}]},
    ],
)
def test_conversations_that_are_none_are_refused(tmp_path: Path, line: dict[str, object]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(MalformedError, match="INPUT_BAD_ITEM"):
        read_inputs(path)
