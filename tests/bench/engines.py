"""MiniLM by five engines in turn: single sentence, batch, input length, memory; and the machine's own limit.

Every engine runs in a process of its own with as many threads; while one computes the others are stopped
(SIGSTOP), so that no idle thread of theirs takes part. They take turns, and the best of the turns counts:
a disturbance of the machine falls on all alike, and the best turn is the one it disturbed least.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from . import rivals
from .limit import gflops
from .workload import BATCH, ROOT, TOKENS, flops, model_folder, sentences, texts_of

KINDS: Final = ("ours", "raw openvino", "onnxruntime", "sentence-transformers", "candle")
LENGTHS: Final = (8, 16, 32, 64, 128, 256)
ROUNDS: Final = 6
#: A turn of a case lasts about so long, whatever the engine.
TURN_S: Final = 0.25
PATIENCE_S: Final = 120


class Runner:
    """One engine's process, stopped unless it is asked something."""

    def __init__(self, kind: str, threads: int, **more: str) -> None:
        folder = model_folder()[0]
        command = [rivals.python_of(kind), str(Path(__file__).with_name("runner.py")), kind]
        self.process = subprocess.Popen(
            [*command, str(folder), str(threads)],
            env={**rivals.environment_of(kind, folder), **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        try:
            ready = self._line()
        except rivals.Unavailable:
            raise rivals.Unavailable(f"{kind}: its process ended while it loaded the model") from None
        self.load_s, self.about = float(ready["load"]), str(ready["about"])
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, **asked: Any) -> Any:
        """Return the answer to one line."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        try:
            return self._line()
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def best(self, batches: list[list[str]], turns: int) -> float:
        """Return the shortest of some turns, in seconds."""
        return float(min(self.ask(texts=batches, turns=turns)))

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise rivals.Unavailable("an engine's process ended")
        return json.loads(line)


@contextmanager
def runners(threads: int) -> Iterator[tuple[dict[str, Runner], dict[str, str]]]:
    """Yield the engines that run here, and for the others why not."""
    running: dict[str, Runner] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for kind in KINDS:
            try:
                running[kind] = Runner(kind, threads)
            except rivals.Unavailable as reason:
                missing[kind] = str(reason)
                print(f"left out: {reason}", flush=True)
            else:
                stack.callback(running[kind].end)
        yield running, missing


def cases() -> dict[str, list[list[str]]]:
    """Return what is timed, by name: each a list of batches."""
    batch = texts_of(TOKENS, BATCH)
    found = {"single": [[batch[0]]], "batch": [batch], "examples": [sentences()]}
    return found | {f"length {tokens}": [texts_of(tokens, 1)] for tokens in LENGTHS}


def timed(running: dict[str, Runner], threads: int) -> tuple[dict[str, dict[str, float]], float]:
    """Return the best seconds by engine and case, and the machine's limit in GFLOP/s."""
    wanted = cases()
    turns: dict[tuple[str, str], int] = {}
    best = {kind: dict.fromkeys(wanted, float("inf")) for kind in running}
    limit = 0.0
    for number in range(ROUNDS):
        limit = max(limit, gflops(threads))
        for name, batches in wanted.items():
            for kind, runner in running.items():
                # In the first round one turn tells how many fill the time of the others.
                count = turns.get((kind, name), 1)
                seconds = runner.best(batches, count)
                best[kind][name] = min(best[kind][name], seconds)
                turns[kind, name] = max(1, min(100, round(TURN_S / seconds)))
        print(f"engines: round {number + 1} of {ROUNDS}", flush=True)
    return best, limit


def cosines(running: dict[str, Runner]) -> dict[str, dict[str, float]]:
    """Return least and mean cosine of every engine's vectors with sentence-transformers' own."""
    if "sentence-transformers" not in running:
        return {}
    texts = [*sentences(), *texts_of(128, 4), *texts_of(256, 2)]
    vectors = {kind: np.array(runner.ask(vectors=texts)) for kind, runner in running.items()}
    wanted = vectors["sentence-transformers"]
    found = {}
    for kind, rows in vectors.items():
        each = (rows * wanted).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(wanted, axis=1)
        found[kind] = {"least": float(each.min()), "mean": float(each.mean())}
    return found


def measure(threads: int | None = None) -> dict[str, Any]:
    """Return all figures of this part."""
    threads = threads or os.cpu_count() or 1
    with runners(threads) as (running, missing):
        memory_loaded = {kind: runner.ask(memory=True)["now"] for kind, runner in running.items()}
        best, limit = timed(running, threads)
        return {
            "threads": threads,
            "weights": model_folder()[1],
            "gflops": limit,
            "limit_per_s": limit * 1e9 / flops(TOKENS),
            "about": {kind: runner.about for kind, runner in running.items()},
            "missing": missing,
            "load_s": {kind: runner.load_s for kind, runner in running.items()},
            "memory_loaded": memory_loaded,
            "memory_most": {kind: runner.ask(memory=True)["most"] for kind, runner in running.items()},
            "cosine": cosines(running),
            "seconds": best,
        }


def ratio(seconds: dict[str, dict[str, float]], case: str, of: str, to: str) -> float | None:
    """Return how many times as long engine ``of`` takes for a case as engine ``to``."""
    if of not in seconds or to not in seconds:
        return None
    return seconds[of][case] / seconds[to][case]


def table(found: dict[str, Any]) -> str:
    """Return the three tables: speed beside the others, input length, memory."""
    seconds = found["seconds"]
    lines = [
        "| engine | single, ms | batch, texts/s | examples, texts/s | single, ours is | batch, ours is "
        "| least cosine |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, own in seconds.items():
        cosine = found["cosine"].get(kind, {}).get("least")
        beside = [ratio(seconds, case, kind, "ours") for case in ("single", "batch")]
        cells = [
            kind,
            f"{own['single'] * 1e3:.2f}",
            f"{BATCH / own['batch']:.0f}",
            f"{len(sentences()) / own['examples']:.0f}",
            *("" if value is None or kind == "ours" else f"{value:.2f} × as fast" for value in beside),
            "" if cosine is None else f"{cosine:.6f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Single: one sentence of {TOKENS} tokens; batch: {BATCH} of them; examples: the 200 sentences of "
        f"`examples/`, of different lengths. {found['threads']} threads each. Matrix products alone reach "
        f"{found['gflops']:.0f} GFLOP/s here, which is {found['limit_per_s']:.0f} texts/s.",
        "",
        "| milliseconds for one text of | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |",
        "|---|" + "---:|" * len(LENGTHS),
    ]
    for kind, own in seconds.items():
        cells = [f"{own[f'length {length}'] * 1e3:.2f}" for length in LENGTHS]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "| engine | MiB once loaded | at most | seconds to load |", "|---|---:|---:|---:|"]
    for kind in seconds:
        memory = [found[f"memory_{when}"][kind] for when in ("loaded", "most")]
        lines.append(f"| {kind} | {memory[0]:.0f} | {memory[1]:.0f} | {found['load_s'][kind]:.2f} |")
    lines += ["", *(f"- {kind} = {about}" for kind, about in found["about"].items())]
    lines += [f"- left out: {reason}" for reason in found["missing"].values()]
    return "\n".join(lines)
