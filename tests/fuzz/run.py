"""Fuzzes every parser and verifier: ``python -m tests.fuzz.run --target NAME --count N --seed S``.

Each target runs in a process of its own, with bounds on memory and on the CPU time of one input that
the kernel enforces, so that a crash or a hang inside a library is found as well. Exit 0: nothing found;
2: something was, and the input lies in ``fuzz-findings/``; 1: misuse.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .measure import MAX_INPUT_S, Tally, run
from .mutate import MAX_BYTES
from .target import Target
from .targets import targets

EXTRA_MEMORY: Final = 1 << 30
FINDINGS: Final = Path("fuzz-findings")
_SIZE: Final = struct.Struct("=I")
_ROW: Final = "{:<24}{:>9}{:>10}{:>10}{:>13}{:>12}{:>9}"


class Mailbox:
    """Holds the current input where the parent finds it when the child has died of it."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _SIZE.size + MAX_BYTES * 8)

    def put(self, data: bytes) -> None:
        """Keep an input."""
        kept = data[: MAX_BYTES * 8]
        self._shared[: _SIZE.size + len(kept)] = _SIZE.pack(len(kept)) + kept

    def get(self) -> bytes:
        """Return the input that was kept last."""
        size = _SIZE.unpack(self._shared[: _SIZE.size])[0]
        return self._shared[_SIZE.size : _SIZE.size + size]


def in_a_child(target: Target, count: int, seed: int, seconds: float | None) -> Tally:
    """Run a target in a process that the kernel bounds, and return its tally."""
    mailbox = Mailbox()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            _bound()
            tally = run(target, count=count, seed=seed, seconds=seconds, before=_watched(mailbox))
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            with os.fdopen(writer, "wb") as out:
                out.write(pickle.dumps(tally))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        sent = answer.read()
    _, state = os.waitpid(child, 0)
    if os.WIFSIGNALED(state):
        cause = signal.Signals(os.WTERMSIG(state))
        words = f"over {MAX_INPUT_S} s of CPU" if cause == signal.SIGVTALRM else f"died of {cause.name}"
        return Tally(finding=(words, mailbox.get()))
    if not sent:
        return Tally(finding=("the child ended early", mailbox.get()))
    tally = pickle.loads(sent)  # noqa: S301 - our own child's
    assert isinstance(tally, Tally)
    return tally


def _bound() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * mmap.PAGESIZE + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


def _watched(mailbox: Mailbox) -> Callable[[bytes], None]:
    def before(data: bytes) -> None:
        mailbox.put(data)
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_INPUT_S)

    return before


def report(name: str, tally: Tally) -> None:
    """Print a target's row, and its codes below."""
    refused = tally.refused.total()
    speed = f"{tally.inputs / tally.total_s:.0f}" if tally.total_s else "-"
    print(
        _ROW.format(
            name, tally.inputs, tally.accepted, refused, f"{tally.slowest_s * 1e6:.0f}",
            f"{tally.peak_bytes >> 10}", speed,
        )
    )  # fmt: skip
    if tally.refused:
        print("    " + "  ".join(f"{code} {number}" for code, number in tally.refused.most_common()))
    sys.stdout.flush()


def keep(name: str, finding: tuple[str, bytes]) -> Path:
    """Write the input that something was found with."""
    FINDINGS.mkdir(exist_ok=True)
    path = FINDINGS / f"{name}-{hashlib.sha256(finding[1]).hexdigest()[:12]}.bin"
    path.write_bytes(finding[1])
    return path


def replay(target: Target, path: Path) -> int:
    """Feed one kept input."""
    one = Target(target.name, lambda: [path.read_bytes()], target.act)
    tally = run(one, count=1)
    report(target.name, tally)
    if tally.finding is not None:
        print(tally.finding[0])
    return 2 if tally.finding else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--target", action="append", help="only this one; may be given again")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="stop each target after this wall-clock time")
    parser.add_argument("--replay", type=Path, help="feed one kept input to --target")
    parser.add_argument("--list", action="store_true", help="name the targets")
    chosen = parser.parse_args(arguments)
    known = targets()
    names = chosen.target or list(known)
    if chosen.list or not set(names) <= known.keys() or (chosen.replay and len(names) != 1):
        print("\n".join(known))
        return 0 if chosen.list else 1
    if chosen.replay:
        return replay(known[names[0]], chosen.replay)
    print(_ROW.format("target", "inputs", "accepted", "refused", "slowest, µs", "peak, KiB", "per s"))
    found = 0
    for name in names:
        tally = in_a_child(known[name], chosen.count, chosen.seed, chosen.seconds)
        report(name, tally)
        if tally.finding is not None:
            found = 2
            print(f"FOUND in {name}, input kept as {keep(name, tally.finding)}:\n{tally.finding[0]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
