"""What every engine must do, as a suite that its author runs: built-in engines pass it, plug-ins should.

::

    python -m ephemeralml.workers.engines.conformance BACKEND FOLDER [--plugin NAME] [--near]

``FOLDER`` holds the model's files. Exit status 0: it conforms; 2: it does not; 1: it could not be
loaded. From a test::

    findings = check_engine(engine)
    assert not [finding for finding in findings if not finding.passed]

The engine is closed at the end.
"""

from __future__ import annotations

import math
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ...wire.errors import EngineError, Error
from ...wire.generation import FINISH_REASONS, GenerateParameters
from ...wire.job import Completion, EngineInfo, Input, Turn
from .base import EmbedRequest, Engine
from .generate import GenerateEngine, GenerateRequest

PROMPT: Final = "Once upon a time"
TOKENS: Final = 24
WAIT_SECONDS: Final = 600.0
#: Checks of parameters that an engine may refuse, as long as it ignores none.
MAY_REFUSE: Final = frozenset({"seeds_repeat", "seeds_differ", "narrow_filters_are_greedy", "tells_logprobs"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and how it went."""

    check: str
    passed: bool
    detail: str = ""


def check_engine(engine: Engine | GenerateEngine, *, exact: bool = True) -> list[Finding]:
    """Run every check that fits the engine, then close it where it can be closed.

    :param exact: the same request must give the same text whatever runs beside it. Arithmetic on GPUs may
        depend on the batch; False leaves these comparisons out.
    """
    suite: _Generates | _Embeds = (
        _Generates(engine, exact) if isinstance(engine, GenerateEngine) else _Embeds(engine)
    )
    findings = []
    with _watched() as spoken:
        for check in suite.checks():
            findings.append(_run(check))
    findings.append(Finding("asks nobody", not spoken, ", ".join(sorted(set(spoken)))))
    return findings


def _run(check: Callable[[], None]) -> Finding:
    name = check.__name__.lstrip("_").replace("_", " ")
    try:
        check()
    except _BrokenError as broken:
        return Finding(name, False, str(broken))
    except EngineError as error:
        refused = error.code == "ENGINE_BAD_PARAMETERS" and check.__name__ in MAY_REFUSE
        return Finding(name, refused, f"refused with {error.code}")
    except Exception as error:
        return Finding(name, False, f"an unexpected {type(error).__name__}")
    return Finding(name, True)


class _BrokenError(Exception):
    """A check that does not hold."""


def _hold(condition: object, detail: str) -> None:
    if not condition:
        raise _BrokenError(detail)


def _refuses(act: Callable[[], object], *codes: str) -> None:
    try:
        act()
    except EngineError as error:
        _hold(error.code in codes, f"{error.code} instead of {' or '.join(codes)}")
        return
    raise _BrokenError(f"not refused with {' or '.join(codes)}")


class _Generates:
    def __init__(self, engine: GenerateEngine, exact: bool) -> None:
        self.engine, self.exact = engine, exact

    def checks(self) -> list[Callable[[], None]]:
        common = [self.names_itself, self.keeps_to_max_tokens, self.pieces_are_the_text, self.greedy_repeats]
        sampling = [self.seeds_repeat, self.seeds_differ, self.narrow_filters_are_greedy, self.stop_texts_end]
        rest = [self.tells_logprobs, self.runs_together, self.obeys_deadlines, self.obeys_cancellation]
        refusals = [self.refuses_bad_prompts, self.takes_conversations, self.ends_with_the_context]
        return [*common, *sampling, *rest, *refusals, self.closes]

    def run(self, prompt: Input = PROMPT, seed: int = 1, **parameters: Any) -> Completion:
        values = {"max_tokens": TOKENS, "temperature": 0.0, **parameters}
        request = GenerateRequest(prompt, GenerateParameters(**values), seed)
        done = self.engine.submit(request).result(WAIT_SECONDS)
        _hold(done.finish_reason in FINISH_REASONS, "an unknown finish reason")
        _hold(done.seed == seed, "the seed is not recorded")
        return done

    def same(self, one: Completion, other: Completion, detail: str) -> None:
        _hold(not self.exact or one == other, detail)

    def names_itself(self) -> None:
        _named(self.engine)
        _hold(self.engine.tasks == {"generate"}, "its task is not generate")
        _hold(self.engine.max_tokens >= 2, "no context")

    def keeps_to_max_tokens(self) -> None:
        for count in (1, 5, TOKENS):
            done = self.run(max_tokens=count)
            _hold(1 <= done.output_tokens <= count, "more tokens than asked for, or none")
            _hold(done.finish_reason == "stop" or done.output_tokens == count, "ended early and says length")
            _hold(done.input_tokens >= 1, "no input tokens counted")

    def pieces_are_the_text(self) -> None:
        parameters = GenerateParameters(max_tokens=TOKENS, temperature=0.0)
        text = self.engine.submit(GenerateRequest(PROMPT, parameters))
        _hold("".join(text) == text.result(WAIT_SECONDS).text, "the pieces are not the text")

    def greedy_repeats(self) -> None:
        _hold(self.run(seed=1).text == self.run(seed=2).text, "two greedy texts differ")

    def seeds_repeat(self) -> None:
        _hold(self.run(temperature=1.0) == self.run(temperature=1.0), "a seed does not repeat its text")

    def seeds_differ(self) -> None:
        texts = {self.run(seed=seed, temperature=2.0).text for seed in range(4)}
        _hold(len(texts) > 1, "seeds make no difference at temperature 2")

    def narrow_filters_are_greedy(self) -> None:
        greedy = self.run().text
        for narrow in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}):
            _hold(self.run(temperature=1.0, **narrow).text == greedy, f"{next(iter(narrow))} does not hold")

    def stop_texts_end(self) -> None:
        text = self.run().text
        _hold(len(text) >= 4, "the model says too little for this check")
        stop = text[len(text) // 2 : len(text) // 2 + 2]
        done = self.run(stop=(stop,))
        _hold(done.text == text[: text.index(stop)], "the text does not end before the stop text")
        _hold(done.finish_reason == "stop", "a stop text is not called stop")
        _hold(self.run(stop=("\0never said\0",)).text == text, "what was held back is lost")

    def tells_logprobs(self) -> None:
        done = self.run(max_tokens=6, logprobs=True, top_logprobs=3)
        told = done.logprobs or ()
        _hold(len(told) == done.output_tokens, "not one log-probability per token")
        for token in told:
            _hold(math.isfinite(token.logprob) and token.logprob <= 0, "a log-probability above 0")
            _hold(len(token.top) == 3, "not as many alternatives as asked for")
            values = [logprob for _, logprob in token.top]
            _hold(values == sorted(values, reverse=True), "alternatives are not in order")
            _hold(sum(map(math.exp, values)) <= 1.0 + 1e-3, "alternatives of more than probability 1")
            _hold(abs(values[0] - token.logprob) < 1e-3, "a greedy token is not the likeliest")
        _hold(self.run().logprobs is None, "log-probabilities that nobody asked for")

    def runs_together(self) -> None:
        prompts = [
            f"{PROMPT} {word}" for word in ("there", "was", "a", "small", "model", "and", "it", "knew")
        ]
        alone = [self.run(prompt) for prompt in prompts]
        parameters = GenerateParameters(max_tokens=TOKENS, temperature=0.0)
        begun = [self.engine.submit(GenerateRequest(prompt, parameters, 1)) for prompt in prompts]
        for one, text in zip(alone, begun, strict=True):
            self.same(one, text.result(WAIT_SECONDS), "a text depends on what runs beside it")

    def obeys_deadlines(self) -> None:
        parameters = GenerateParameters(max_tokens=min(4096, self.engine.max_tokens), temperature=0.0)
        done = self.engine.submit(GenerateRequest(PROMPT, parameters, 1, time.monotonic())).result(
            WAIT_SECONDS
        )
        _hold(done.finish_reason == "deadline", "a deadline that has passed is not obeyed")

    def obeys_cancellation(self) -> None:
        parameters = GenerateParameters(max_tokens=1, temperature=0.0)
        text = self.engine.submit(GenerateRequest(PROMPT, parameters))
        text.cancel()
        try:  # it may have been done before
            text.result(WAIT_SECONDS)
        except EngineError as error:
            _hold(error.code == "ENGINE_CANCELLED", "a cancelled text fails for another reason")
        self.run()

    def refuses_bad_prompts(self) -> None:
        engine = self.engine
        greedy = GenerateParameters(temperature=0.0)
        long = GenerateRequest("word " * (engine.max_tokens + 8), greedy)
        broken = GenerateRequest("\ud800", greedy)
        for act in (engine.check, engine.submit):
            _refuses(lambda act=act: act(long), "ENGINE_INPUT_TOO_LONG")  # type: ignore[misc]
            _refuses(lambda act=act: act(broken), "ENGINE_BAD_INPUT")  # type: ignore[misc]
        self.run()

    def takes_conversations(self) -> None:
        try:
            self.engine.check(GenerateRequest((Turn("user", "Hello"),)))
        except EngineError as error:
            _hold(error.code == "ENGINE_NO_CHAT_TEMPLATE", "a plain conversation is refused")
            return
        one = self.run((Turn("user", "Hello"),))
        other = self.run((Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "More")))
        _hold(one.input_tokens < other.input_tokens, "turns make no difference")

    def ends_with_the_context(self) -> None:
        if self.engine.max_tokens > 2048:
            return  # too slow for a check
        done = self.run(max_tokens=4096)
        _hold(done.input_tokens + done.output_tokens <= self.engine.max_tokens, "beyond its context")

    def closes(self) -> None:
        self.engine.close()
        self.engine.close()
        greedy = GenerateParameters(temperature=0.0)
        _refuses(lambda: self.engine.submit(GenerateRequest(PROMPT, greedy)), "ENGINE_CLOSED")


class _Embeds:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def checks(self) -> list[Callable[[], None]]:
        first = [self.names_itself, self.keeps_order, self.repeats, self.normalizes, self.cuts_dimensions]
        return [*first, self.tells_truncation, self.refuses_bad_requests]

    def run(self, *texts: str, **parameters: Any) -> list[tuple[float, ...]]:
        (result,) = self.engine.run([EmbedRequest(texts, **parameters)])
        _hold(len(result.vectors) == len(texts) == len(result.tokens), "not one vector per text")
        vectors = [struct.unpack(f"<{len(v) // 4}f", v) for v in result.vectors]
        _hold(all(math.isfinite(number) for vector in vectors for number in vector), "not finite")
        return vectors

    def names_itself(self) -> None:
        _named(self.engine)
        _hold("embed" in self.engine.tasks, "its task is not embed")
        _hold(self.engine.model_dimensions >= 1, "no dimensions")

    def keeps_order(self) -> None:
        texts = ("one", "", "a much longer text than the others " * 4, "two")
        together = self.run(*texts)
        for text, vector in zip(texts, together, strict=True):
            _hold(_cosine(self.run(text)[0], vector) > 0.999, "a vector depends on its neighbours")

    def repeats(self) -> None:
        _hold(self.run("the same text") == self.run("the same text"), "two vectors of one text differ")

    def normalizes(self) -> None:
        (vector,) = self.run("a text", normalize=True)
        _hold(abs(sum(x * x for x in vector) - 1.0) < 1e-3, "not of length 1")

    def cuts_dimensions(self) -> None:
        whole, cut = (
            self.run("a text", normalize=False)[0],
            self.run("a text", normalize=False, dimensions=1)[0],
        )
        _hold(len(whole) == self.engine.model_dimensions, "not as many dimensions as stated")
        _hold(len(cut) == 1, "dimensions are not cut")

    def tells_truncation(self) -> None:
        words = "word " * (self.engine.max_tokens + 8)
        (result,) = self.engine.run([EmbedRequest((words, "word"))])
        _hold(result.truncated == [True, False], "truncation is not told")
        _hold(result.tokens[0] <= self.engine.max_tokens, "more tokens than it reads")

    def refuses_bad_requests(self) -> None:
        good = EmbedRequest(("a text",))
        bad: Sequence[tuple[EmbedRequest, str]] = (
            (replace(good, texts=()), "ENGINE_BAD_PARAMETERS"),
            (replace(good, dimensions=0), "ENGINE_BAD_PARAMETERS"),
            (replace(good, dimensions=self.engine.model_dimensions + 1), "ENGINE_BAD_PARAMETERS"),
            (replace(good, texts=("\ud800",)), "ENGINE_BAD_INPUT"),
        )
        for request, code in bad:
            _refuses(lambda request=request: self.engine.check(request), code)  # type: ignore[misc]
            _refuses(lambda request=request: self.engine.run([request]), code)  # type: ignore[misc]


def _named(engine: Engine | GenerateEngine) -> None:
    info = EngineInfo(engine.name, engine.backend, engine.precision, engine.version)
    _hold(EngineInfo.from_map(info.to_map()) == info, "its names do not fit into a response")


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)


_spoken: list[str] | None = None
_hooked = False


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Note each attempt to reach another machine; an audit hook stays for the life of the process."""
    global _spoken, _hooked  # noqa: PLW0603
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    found: list[str] = []
    _spoken = found
    try:
        yield found
    finally:
        _spoken = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _spoken is not None and event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        _spoken.append(f"{event} in thread {threading.current_thread().name}")


def main(arguments: Sequence[str]) -> int:
    """Run the suite from the command line."""
    from .generate_backends import EngineSettings, load_any_engine

    given = list(arguments)
    near = "--near" in given
    given = [argument for argument in given if argument != "--near"]
    plugins: tuple[str, ...] = ()
    if "--plugin" in given:
        place = given.index("--plugin")
        plugins = tuple(given[place + 1 : place + 2])
        del given[place : place + 2]
    if len(given) != 2:
        print((__doc__ or "").partition("::")[2].partition("``FOLDER``")[0].strip(), file=sys.stderr)
        return 1
    folder = Path(given[1])
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    try:
        engine = load_any_engine(given[0], files, EngineSettings(require_cc=False, plugins=plugins))
    except Error as error:
        print(f"error {error}", file=sys.stderr)
        return 1
    findings = check_engine(engine, exact=not near)
    for finding in findings:
        print(f"{'ok    ' if finding.passed else 'BROKEN'} {finding.check}  {finding.detail}".rstrip())
    return 0 if all(finding.passed for finding in findings) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
