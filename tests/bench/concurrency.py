"""Callers at once on one micro-batcher: sentences per second and how long each waits."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from ephemeralml.workers.engines import EmbedRequest, MicroBatcher, load_engine

from .runner import files_of
from .workload import TOKENS, model_folder, texts_of

CALLERS: Final = (1, 2, 4, 8)
SECONDS: Final = 0.8
ROUNDS: Final = 4


def turn(batcher: MicroBatcher, callers: int, texts: list[str]) -> tuple[float, float]:
    """Let callers ask one sentence after another for a while; return sentences per second and median ms."""
    times: list[list[float]] = [[] for _ in range(callers)]
    start = threading.Barrier(callers + 1)
    over = threading.Event()

    def call(number: int) -> None:
        request = EmbedRequest((texts[number],))
        start.wait()
        while not over.is_set():
            began = time.perf_counter()
            batcher.run(request)
            times[number].append(time.perf_counter() - began)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(SECONDS)
    over.set()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    every = sorted(seconds for own in times for seconds in own)
    return len(every) / took, every[len(every) // 2] * 1e3


def measure() -> dict[str, Any]:
    """Return sentences per second and median milliseconds by the number of callers, best of the rounds."""
    texts = texts_of(TOKENS, max(CALLERS))
    best: dict[str, tuple[float, float]] = {}
    with MicroBatcher(load_engine("openvino", files_of(model_folder()[0]))) as batcher:
        batcher.run(EmbedRequest(tuple(texts)))
        for _ in range(ROUNDS):
            for callers in CALLERS:
                found = turn(batcher, callers, texts)
                best[str(callers)] = max(best.get(str(callers), (0.0, 0.0)), found)
    return {"callers": best}


def gain(found: dict[str, Any], callers: int) -> float:
    """Return throughput with so many callers beside that with one."""
    return float(found["callers"][str(callers)][0] / found["callers"]["1"][0])


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table."""
    lines = [
        "| callers at once | sentences/s | beside one caller | median wait, ms |",
        "|---:|---:|---:|---:|",
    ]
    for callers in CALLERS:
        rate, wait = found["callers"][str(callers)]
        lines.append(f"| {callers} | {rate:.0f} | {gain(found, callers):.2f} × | {wait:.1f} |")
    return "\n".join(lines)
