"""The suite itself: what conforms passes, and each fault is found by the check that is there for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ephemeralml.wire.errors import ConfigurationError, EngineError, ModelError
from ephemeralml.wire.job import Completion
from ephemeralml.workers.engines import EngineSettings, load_any_engine, load_generate_engine
from ephemeralml.workers.engines.base import EmbedRequest, EmbedResult
from ephemeralml.workers.engines.conformance import check_engine
from ephemeralml.workers.engines.generate import GenerateRequest, OnText, Step, Token
from ephemeralml.workers.engines.generate_loop import GenerateLoop
from ephemeralml.workers.engines.generate_sampling import Sampler
from ephemeralml.workers.engines.noop_engine import NoopEngine

from .script_stepper import END, ScriptStepper


class DrawStepper(ScriptStepper):
    """Draws each byte from numbers that follow from the text so far: a model of no parameters."""

    def __init__(self) -> None:
        super().__init__(max_tokens=300)
        self.samplers: dict[int, tuple[Sampler, list[int]]] = {}

    def add(self, key: int, prompt: Sequence[int], request: GenerateRequest, max_new: int) -> None:
        self.samplers[key] = Sampler(request.parameters, request.seed, list(prompt)), list(prompt)

    def step(self) -> list[Step]:
        steps = []
        for key, (sampler, tokens) in self.samplers.items():
            drawn = sampler.draw(self.logits(tokens))
            tokens.append(drawn.id)
            steps.append(Step(key, (drawn,)))
        return steps

    def logits(self, tokens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        numbers = np.random.default_rng(sum(tokens[-3:])).normal(0, 2, END + 1)
        numbers[:32] = numbers[127:] = -9.0  # printable signs
        return numbers

    def drop(self, key: int) -> None:
        self.samplers.pop(key, None)


class Drawing(GenerateLoop):
    def __init__(self) -> None:
        super().__init__(DrawStepper())


def broken(findings: Sequence[Any]) -> set[str]:
    return {finding.check for finding in findings if not finding.passed}


def test_what_conforms_passes() -> None:
    assert broken(check_engine(Drawing())) == set()
    assert broken(check_engine(NoopEngine())) == set()


class Longer(Drawing):
    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> Any:
        parameters = replace(request.parameters, max_tokens=request.parameters.max_tokens + 1)
        return super().submit(replace(request, parameters=parameters), on_text)


class SeedIgnored(Drawing):
    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> Any:
        return Renamed(super().submit(replace(request, seed=5), on_text), request.seed)


class Renamed:
    def __init__(self, text: Any, seed: int) -> None:
        self._text, self._seed = text, seed

    def result(self, timeout_s: float | None = None) -> Completion:
        done: Completion = self._text.result(timeout_s)
        return replace(done, seed=self._seed)

    def __iter__(self) -> Any:
        return iter(self._text)

    def cancel(self) -> None:
        self._text.cancel()


class FiltersIgnored(Drawing):
    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> Any:
        parameters = replace(request.parameters, top_k=0, top_p=1.0, min_p=0.0)
        return super().submit(replace(request, parameters=parameters), on_text)


class StopsIgnored(Drawing):
    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> Any:
        return super().submit(replace(request, parameters=replace(request.parameters, stop=())), on_text)


class DeadlineIgnored(Drawing):
    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> Any:
        return super().submit(replace(request, deadline=1e18), on_text)


class Talkative(Drawing):
    def check(self, request: GenerateRequest) -> None:
        with socket.socket() as telling:
            telling.connect_ex(("127.0.0.1", 9))
        super().check(request)


class Unclosable(Drawing):
    def close(self) -> None:
        return None


class Unrefusing(Drawing):
    def check(self, request: GenerateRequest) -> None:
        return None


class Nameless(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.name = ""


class Unlikely(Drawing):
    """Reports another token's log-probability."""

    def __init__(self) -> None:
        super().__init__()
        draw = self._stepper.step

        def step() -> Sequence[Step]:
            return [
                replace(s, tokens=tuple(Token(t.id, -50.0 if t.logprob else None, t.top) for t in s.tokens))
                for s in draw()
            ]

        self._stepper.step = step  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("engine", "found"),
    [
        (Longer, {"keeps to max tokens"}),
        (SeedIgnored, {"seeds differ"}),
        (FiltersIgnored, {"narrow filters are greedy"}),
        (StopsIgnored, {"stop texts end"}),
        (DeadlineIgnored, {"obeys deadlines"}),
        (Talkative, {"asks nobody"}),
        (Unclosable, {"closes"}),
        (Unrefusing, {"refuses bad prompts"}),
        (Nameless, {"names itself"}),
        (Unlikely, {"tells logprobs"}),
    ],
)
def test_a_fault_is_found(engine: Callable[[], Drawing], found: set[str]) -> None:
    made = engine()
    assert found <= broken(check_engine(made))
    GenerateLoop.close(made)


class Shuffled(NoopEngine):
    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        return [replace(r, vectors=r.vectors[::-1]) for r in super().run(requests)]


class Untruncated(NoopEngine):
    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        return [replace(r, truncated=[False] * len(r.tokens)) for r in super().run(requests)]


class Accepting(NoopEngine):
    def check(self, request: EmbedRequest) -> None:
        return None


@pytest.mark.parametrize(
    ("engine", "found"),
    [(Shuffled, "keeps order"), (Untruncated, "tells truncation"), (Accepting, "refuses bad requests")],
)
def test_a_fault_of_an_embedding_engine_is_found(engine: Callable[[], NoopEngine], found: str) -> None:
    assert found in broken(check_engine(engine()))


# ----------------------------------------------------------- the reference for text, for real


def test_the_reference_engine_conforms_matches_its_library_and_tells_nobody(tmp_path: Path) -> None:
    """In a process that the kernel kills when it connects or sends, whatever code in it does so."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.sealed_texts"],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"findings": [], "like the library": True}
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_loaded_says_so() -> None:
    with pytest.raises(ModelError, match="MODEL_FILE_MISSING"):
        load_generate_engine("transformers", {}, EngineSettings())
    with pytest.raises(ModelError, match="MODEL_FILE_MISSING"):
        load_any_engine("transformers", {"config.json": b"{}"}, EngineSettings())
    with pytest.raises(ConfigurationError, match="ENGINE_UNKNOWN"):
        load_generate_engine("gpt", {}, EngineSettings())
    assert EngineError("ENGINE_FAILED").code == "ENGINE_FAILED"
