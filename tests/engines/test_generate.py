"""The loop that makes an engine of any library, stop texts, and how tokens are drawn."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.wire.errors import EngineError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.job import Completion, Job, Turn
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.workers.engines import EngineSettings, load_any_engine
from ephemeralml.workers.engines.generate import GenerateEngine, GenerateRequest, seeds_of
from ephemeralml.workers.engines.generate_loop import GenerateLoop
from ephemeralml.workers.engines.generate_sampling import Sampler, kept, with_logprobs
from ephemeralml.workers.engines.generate_text import StopTexts
from ephemeralml.workers.runner import EmbedRunner, GenerateRunner, make_runner

from .script_stepper import ScriptStepper, answer

WAIT = 30.0


@pytest.fixture
def stepper() -> ScriptStepper:
    return ScriptStepper()


@pytest.fixture
def engine(stepper: ScriptStepper) -> Iterator[GenerateLoop]:
    with GenerateLoop(stepper) as loop:
        yield loop


def request(prompt: str, **parameters: object) -> GenerateRequest:
    return GenerateRequest(prompt, GenerateParameters(**parameters))  # type: ignore[arg-type]


def run(engine: GenerateEngine, prompt: str, **parameters: object) -> Completion:
    return engine.submit(request(prompt, **parameters)).result(WAIT)


# ------------------------------------------------------------------------------ the loop


def test_a_text_with_its_usage(engine: GenerateLoop) -> None:
    said = answer("hello")
    done = run(engine, "hello")
    assert done == Completion(said, "stop", 5, len(said.encode()) + 1, 0)
    assert isinstance(engine, GenerateEngine)


def test_the_text_comes_in_whole_characters(engine: GenerateLoop) -> None:
    pieces = list(engine.submit(request("x")))
    assert "".join(pieces) == answer("x")
    assert "世" in pieces


def test_max_tokens_and_context_end_a_text(engine: GenerateLoop) -> None:
    assert run(engine, "x", max_tokens=3) == Completion("You", "length", 1, 3, 0)
    with GenerateLoop(ScriptStepper(max_tokens=10)) as small:
        assert run(small, "12345678") == Completion("Yo", "length", 8, 2, 0)
        with pytest.raises(EngineError, match="ENGINE_INPUT_TOO_LONG"):
            small.submit(request("1234567890"))


def test_an_incomplete_character_at_the_end_is_shown_as_such() -> None:
    with GenerateLoop(ScriptStepper(lambda _: "ü")) as loop:
        assert run(loop, "x", max_tokens=1).text == "\N{REPLACEMENT CHARACTER}"


def test_an_empty_prompt_is_refused(engine: GenerateLoop) -> None:
    with pytest.raises(EngineError, match="ENGINE_BAD_INPUT"):
        engine.check(request(""))


def test_stop_texts_end_a_text_and_are_left_out(engine: GenerateLoop) -> None:
    pieces: list[str] = []
    text = engine.submit(request("hello", stop=("said: hello. G", "llo")), pieces.append)
    done = text.result(WAIT)
    assert (done.text, done.finish_reason) == ("You said: he", "stop")
    assert "".join(pieces) == done.text
    assert done.output_tokens == len("You said: hello")


def test_logprobs_are_of_every_token(engine: GenerateLoop) -> None:
    done = run(engine, "x", logprobs=True, top_logprobs=1, max_tokens=200)
    assert done.logprobs is not None
    assert len(done.logprobs) == done.output_tokens
    assert done.logprobs[0].token == b"Y"
    assert done.logprobs[0].top == ((b"A", -1.0),)


def test_requests_join_the_batch_that_runs(stepper: ScriptStepper, engine: GenerateLoop) -> None:
    first = engine.submit(request("a"))
    pieces = iter(first)
    next(pieces)
    others = [engine.submit(request(f"number {n}")) for n in range(20)]
    assert [text.result(WAIT).text for text in others] == [answer(f"number {n}") for n in range(20)]
    assert first.result(WAIT).text == answer("a")
    assert stepper.most > 1
    assert engine.most_running > 1
    assert engine.steps > 0


def test_no_more_run_at_once_than_the_library_takes() -> None:
    stepper = ScriptStepper(max_sequences=3)
    with GenerateLoop(stepper) as engine:
        texts = [engine.submit(request(str(n))) for n in range(10)]
        assert [text.result(WAIT).text for text in texts] == [answer(str(n)) for n in range(10)]
    assert stepper.most <= 3


def test_a_deadline_gives_what_there_is() -> None:
    now = [0.0]
    stepper = ScriptStepper(lambda _: "endless" * 500)
    with GenerateLoop(stepper, monotonic=lambda: now[0]) as engine:
        parameters = GenerateParameters(max_tokens=4000)
        text = engine.submit(GenerateRequest("x", parameters, deadline=5.0))
        assert next(iter(text))
        now[0] = 5.0
        done = text.result(WAIT)
        assert done.finish_reason == "deadline"
        assert 0 < done.output_tokens < 3500
        assert "endless".startswith(done.text[:7])
        late = engine.submit(GenerateRequest("x", parameters, deadline=4.0)).result(WAIT)
        assert (late.text, late.finish_reason, late.output_tokens) == ("", "deadline", 0)
    assert stepper.running == {}


def test_a_deadline_also_ends_what_still_waits() -> None:
    now = [0.0]
    stepper = ScriptStepper(lambda _: "endless" * 500, max_sequences=1)
    with GenerateLoop(stepper, monotonic=lambda: now[0]) as engine:
        long = engine.submit(request("x", max_tokens=4000))
        waiting = engine.submit(GenerateRequest("y", GenerateParameters(), deadline=1.0))
        now[0] = 2.0
        assert waiting.result(WAIT).finish_reason == "deadline"
        long.cancel()


def test_cancelling_ends_one_text_only(stepper: ScriptStepper, engine: GenerateLoop) -> None:
    stepper.hold.clear()
    doomed, other = engine.submit(request("a")), engine.submit(request("b"))
    doomed.cancel()
    stepper.hold.set()
    with pytest.raises(EngineError, match="ENGINE_CANCELLED"):
        doomed.result(WAIT)
    with pytest.raises(EngineError, match="ENGINE_CANCELLED"):
        list(doomed)
    assert other.result(WAIT).text == answer("b")


@pytest.mark.parametrize("failure", [RuntimeError("with a prompt in it"), EngineError("ENGINE_NOT_FINITE")])
def test_a_step_that_fails_ends_what_was_in_it(
    stepper: ScriptStepper, engine: GenerateLoop, failure: Exception
) -> None:
    stepper.fail_step = failure
    code = failure.code if isinstance(failure, EngineError) else "ENGINE_FAILED"
    with pytest.raises(EngineError, match=code) as caught:
        run(engine, "a")
    assert "prompt" not in str(caught.value)
    assert run(engine, "a").text == answer("a")


@pytest.mark.parametrize("failure", [RuntimeError("a prompt"), EngineError("ENGINE_INPUT_TOO_LONG")])
def test_a_text_that_cannot_begin_fails_alone(
    stepper: ScriptStepper, engine: GenerateLoop, failure: Exception
) -> None:
    stepper.fail_add = failure
    code = failure.code if isinstance(failure, EngineError) else "ENGINE_FAILED"
    with pytest.raises(EngineError, match=code):
        run(engine, "a")
    stepper.fail_add = None
    assert run(engine, "a").text == answer("a")


def test_a_sequence_that_the_library_gives_up_fails_alone() -> None:
    with GenerateLoop(ScriptStepper(lambda prompt: "ab~cd" if prompt == "bad" else "good")) as engine:
        bad, good = engine.submit(request("bad")), engine.submit(request("good"))
        with pytest.raises(EngineError, match="ENGINE_FAILED"):
            bad.result(WAIT)
        assert good.result(WAIT).text == "good"


def test_a_taker_that_fails_costs_nobody_the_text(engine: GenerateLoop) -> None:
    def broken(_: str) -> None:
        raise ValueError

    assert engine.submit(request("a"), broken).result(WAIT).text == answer("a")


def test_too_many_and_too_late() -> None:
    stepper = ScriptStepper()
    stepper.hold.clear()
    engine = GenerateLoop(stepper, max_queued=2)
    texts = [engine.submit(request("a")), engine.submit(request("b"))]
    with pytest.raises(EngineError, match="ENGINE_BUSY") as busy:
        engine.submit(request("c"))
    assert busy.value.retriable
    closing = threading.Thread(target=engine.close)
    closing.start()
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            engine.submit(request("c"))
        except EngineError as error:
            if error.code == "ENGINE_CLOSED":
                break
    stepper.hold.set()
    closing.join(WAIT)
    for text in texts:
        with pytest.raises(EngineError, match="ENGINE_CLOSED"):
            text.result(WAIT)
    assert stepper.closed
    engine.close()


def test_closing_waits_for_the_tokenizer() -> None:
    """Some libraries free it with the model; a thread that is in it then would crash the worker."""
    stepper = ScriptStepper()
    engine = GenerateLoop(stepper)
    inside, leave = threading.Event(), threading.Event()
    encode = stepper.reader.encode

    def slow(prompt: str | Sequence[object]) -> list[int]:
        inside.set()
        leave.wait(WAIT)
        assert not stepper.closed
        return encode(prompt)

    stepper.reader.encode = slow  # type: ignore[method-assign]
    refused: list[str] = []

    def ask() -> None:
        try:
            engine.submit(request("a"))
        except EngineError as error:
            refused.append(error.code)

    asking, closing = threading.Thread(target=ask), threading.Thread(target=engine.close)
    asking.start()
    inside.wait(WAIT)
    closing.start()
    stepper.until(lambda: engine._closed)
    leave.set()
    asking.join(WAIT)
    closing.join(WAIT)
    assert (refused, stepper.closed) == (["ENGINE_CLOSED"], True)


def test_results_are_waited_for_no_longer_than_said(stepper: ScriptStepper, engine: GenerateLoop) -> None:
    stepper.hold.clear()
    text = engine.submit(request("a"))
    with pytest.raises(EngineError, match="ENGINE_TIMEOUT"):
        text.result(0.0)
    stepper.hold.set()
    assert text.result(WAIT).text == answer("a")


# ---------------------------------------------------------------------------- stop texts

letters = st.text("abc", max_size=12)


@given(st.lists(letters, max_size=8), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stop_texts_do_not_depend_on_how_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    matcher = StopTexts(stops)
    given = "".join(map(matcher.push, pieces))
    given += "" if matcher.stopped else matcher.flush()
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    assert given == (whole[: min(ends)[1]] if ends else whole)
    assert matcher.stopped == bool(ends)


@given(letters, st.text("abc", min_size=1, max_size=4))
def test_what_was_given_is_never_taken_back(text: str, stop: str) -> None:
    matcher = StopTexts([stop])
    given = "".join(map(matcher.push, text))
    assert stop not in given
    for more in ("a", "b", "c", stop):
        other = StopTexts([stop])
        assert "".join(map(other.push, text + more)).startswith(given)


# ------------------------------------------------------------------------------ sampling

logits = st.lists(st.floats(-20, 20), min_size=2, max_size=50).map(lambda v: np.array(v, dtype=np.float32))


@given(logits, st.integers(0, 60), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_filters_keep_what_their_definitions_say(
    values: np.ndarray[tuple[int], np.dtype[np.float32]], top_k: int, top_p: float, min_p: float
) -> None:
    parameters = GenerateParameters(top_k=top_k, top_p=top_p, min_p=min_p)
    order, probabilities = kept(values.astype(np.float64), parameters)
    assert len(order) >= 1
    assert probabilities.sum() == pytest.approx(1.0)
    assert values[order[0]] == values.max()
    if top_k:
        assert len(order) <= top_k
    assert (probabilities >= min_p * probabilities[0] - 1e-9).all()
    assert list(values[order]) == sorted(values[order], reverse=True)


def test_top_p_keeps_the_smallest_set_that_holds_it() -> None:
    values = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert [len(kept(values, GenerateParameters(top_p=p))[0]) for p in (0.4, 0.5, 0.7, 0.81, 1.0)] == [
        1,
        1,
        2,
        3,
        4,
    ]


def test_draws_follow_the_distribution_and_the_seed() -> None:
    values = np.log(np.array([0.5, 0.3, 0.2]))
    draws = [Sampler(GenerateParameters(), seed, []).draw(values).id for seed in range(600)]
    assert draws[:50] == [Sampler(GenerateParameters(), seed, []).draw(values).id for seed in range(50)]
    shares = Counter(draws)
    for token, share in enumerate((0.5, 0.3, 0.2)):
        assert shares[token] / 600 == pytest.approx(share, abs=0.1)


def test_penalties_count_prompt_and_output() -> None:
    values = np.array([2.0, 1.9, -1.0])
    greedy = GenerateParameters(temperature=0.0)
    assert Sampler(greedy, 0, [0]).draw(values).id == 0
    for penalised in (
        replace(greedy, repetition_penalty=1.2),
        replace(greedy, presence_penalty=0.5),
        replace(greedy, frequency_penalty=0.5),
    ):
        assert Sampler(penalised, 0, [0]).draw(values).id == 1
    sampler = Sampler(GenerateParameters(temperature=0.0, frequency_penalty=1.0), 0, [])
    assert [sampler.draw(values).id for _ in range(4)] == [0, 1, 0, 1]


def test_numbers_that_are_not_finite_are_an_error() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(EngineError, match="ENGINE_NOT_FINITE"):
            Sampler(GenerateParameters(), 0, []).draw(np.array([0.0, bad]))


@given(logits)
def test_logprobs_are_of_the_whole_distribution(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    token = with_logprobs(0, values, GenerateParameters(logprobs=True, top_logprobs=20))
    assert token.logprob is not None
    assert token.logprob <= 0.0
    assert len(token.top) == min(20, len(values))
    if len(values) <= 20:
        assert sum(np.exp(logprob) for _, logprob in token.top) == pytest.approx(1.0)


# ------------------------------------------------------------------------------- runners


def job(*inputs: str | tuple[Turn, ...], not_after: int = 1000, **parameters: object) -> Job:
    key = PrivateKey.from_seed("x25519", bytes(32)).public_key
    return Job("m", "generate", inputs, dict(parameters), bytes(32), bytes(8), key, not_after)  # type: ignore[arg-type]


def test_the_runner_runs_jobs_together_and_one_bad_job_alone(engine: GenerateLoop) -> None:
    runner = GenerateRunner(engine, unix=lambda: 0.0)
    jobs = [
        job("a", "b", seed=2**32 - 1),
        job("poison", "a"),
        job("a", temperature=9),
        job((Turn("user", "c"),)),
    ]
    answers = runner(jobs)
    good = answers[0]
    assert isinstance(good, tuple)
    assert [out.text for out in good if isinstance(out, Completion)] == [answer("a"), answer("b")]
    assert [out.seed for out in good if isinstance(out, Completion)] == [2**32 - 1, 0]
    codes = [item.code for item in answers if isinstance(item, EngineError)]
    assert codes == ["ENGINE_BAD_INPUT", "ENGINE_BAD_PARAMETERS"]
    assert isinstance(answers[3], tuple)
    assert runner.tasks == ("generate",)
    assert runner.engine_info.name == "script"


def test_the_runner_keeps_to_the_jobs_deadline(engine: GenerateLoop) -> None:
    runner = GenerateRunner(engine, unix=lambda: 999.5)
    (done,) = runner([job("a")])
    assert isinstance(done, tuple)
    assert isinstance(done[0], Completion)
    assert done[0].finish_reason == "deadline"


def test_a_text_may_be_the_turn_of_a_user() -> None:
    stepper = ScriptStepper()
    seen: list[object] = []
    encode = stepper.reader.encode

    def seeing(prompt: str | Sequence[object]) -> list[int]:
        seen.append(prompt)
        return encode(prompt)

    stepper.reader.encode = seeing  # type: ignore[method-assign]
    with GenerateLoop(stepper) as engine:
        GenerateRunner(engine, unix=lambda: 0.0)([job("a", chat_template=True), job("b")])
    assert seen == [(Turn("user", "a"),), "b"]


def test_pieces_go_to_the_jobs_own_sink(engine: GenerateLoop) -> None:
    texts: dict[int, str] = {}

    def sink(place: int, piece: str) -> None:
        texts[place] = texts.get(place, "") + piece

    runner = GenerateRunner(engine, unix=lambda: 0.0)
    runner.stream([job("a", "b"), job("c")], [sink, None])
    assert texts == {0: answer("a"), 1: answer("b")}


def test_seeds_follow_from_the_salt_where_none_is_given() -> None:
    parameters = GenerateParameters()
    assert seeds_of(parameters, bytes(32), 2) == seeds_of(parameters, bytes(32), 2)
    assert seeds_of(parameters, bytes(32), 2) != seeds_of(parameters, bytes(31) + b"\1", 2)
    assert seeds_of(GenerateParameters(seed=7), bytes(32), 3) == [7, 8, 9]


def test_each_engine_has_its_runner(engine: GenerateLoop) -> None:
    assert isinstance(make_runner(engine), GenerateRunner)
    embeds = make_runner(load_any_engine("noop", {}, EngineSettings()))
    assert isinstance(embeds, EmbedRunner)
    assert embeds.passes == 0
    embeds.close()
