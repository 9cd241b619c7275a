"""Feeds a target and keeps count: what it accepts, with which codes it refuses, what it costs."""

from __future__ import annotations

import re
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from ephemeralml.wire.errors import Error

from .mutate import mutate
from .target import Target

MAX_INPUT_S: Final = 2.0
"""CPU time that one input may cost; recorded evidence takes milliseconds."""
MAX_PEAK_BYTES: Final = 64 << 20
"""Memory that one input may cost; the largest inputs have 128 KiB."""
MEASURE_MEMORY_EVERY: Final = 20
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_MAX_MESSAGE: Final = 1000


@dataclass
class Tally:
    """What came of the inputs.

    :param slowest_s: seconds of the most expensive input, the best of nine turns, so that a disturbance
        of the machine does not count. :param peak_bytes: of the sampled inputs. :param total_s: CPU seconds.
    :param finding: what went wrong, and with which input; None where nothing did.
    """

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    total_s: float = 0.0
    finding: tuple[str, bytes] | None = None


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Yield the seeds, then changed ones without end; the same for the same seeds and number."""
    seeds = list(target.seeds())
    yield from seeds
    number = 0
    while True:
        random = Random(f"{target.name}:{seed}:{number}")  # noqa: S311 - reproducible, not secret
        yield mutate(seeds, random, target.dictionary)
        number += 1


def run(
    target: Target,
    *,
    count: int,
    seed: int = 0,
    seconds: float | None = None,
    before: Callable[[bytes], None] = lambda _: None,
) -> Tally:
    """Feed a target until the count or the time is reached or something is found.

    :param seconds: wall-clock limit. :param before: sees every input before the target does.
    """
    tally, warm = Tally(), len(list(target.seeds()))
    until = None if seconds is None else time.monotonic() + seconds
    for data in inputs(target, seed):
        if tally.inputs >= count or (until is not None and time.monotonic() > until):
            break
        before(data)
        sampled = tally.inputs % MEASURE_MEMORY_EVERY == 0
        started = time.perf_counter()
        problem, cost, peak = _feed(target, data, tally, sampled=sampled)
        elapsed = time.perf_counter() - started
        tally.inputs += 1
        tally.total_s += cost
        tally.peak_bytes = max(tally.peak_bytes, peak)
        if tally.inputs > warm and not sampled and elapsed > tally.slowest_s:  # the first pay for imports
            again = (_elapsed(target, data) for _ in range(8))
            tally.slowest_s = max(tally.slowest_s, min(elapsed, *again))
        if cost > MAX_INPUT_S:
            problem = problem or f"took {cost:.1f} s of CPU"
        if peak > MAX_PEAK_BYTES:
            problem = problem or f"took {peak >> 20} MiB"
        if problem is not None:
            tally.finding = (problem, data)
            break
    return tally


def _elapsed(target: Target, data: bytes) -> float:
    started = time.perf_counter()
    _outcome(target, data, Tally())
    return time.perf_counter() - started


def _feed(target: Target, data: bytes, tally: Tally, *, sampled: bool) -> tuple[str | None, float, int]:
    if sampled:
        tracemalloc.start()
    started = time.process_time()
    problem = _outcome(target, data, tally)
    cost = time.process_time() - started
    peak = 0
    if sampled:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return problem, cost, peak


def _outcome(target: Target, data: bytes, tally: Tally) -> str | None:
    try:
        target.act(data)
    except Error as error:
        tally.refused[error.code] += 1
        if not _CODE.fullmatch(error.code) or "\n" in str(error) or len(str(error)) > _MAX_MESSAGE:
            return f"an error without a stable code, or of more than one line: {error!r}"
        return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # libraries in Rust panic past Exception
        return traceback.format_exc(limit=-6)
    tally.accepted += 1
    return None
