"""All of ``make bench``: every part in a process of its own, one JSON file, one table at the end.

``python -m tests.bench.run [PART …] [--resume] [--price DOLLARS] [--out FILE]``. A part that fails says so in
its own place and harms no other. Figures of parts that are not run again stay in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .targets import PRICE, summary
from .workload import RESULTS, ROOT

#: Part: what it answers. Each is a module here with ``measure() -> dict`` and ``table(dict) -> str``.
PARTS: Final = {
    "crypto": "sealing, receipts and opening, per job",
    "engines": "MiniLM beside other libraries: single, batch, input length, memory",
    "concurrency": "callers at once on one engine",
    "pipeline": "sealed jobs beside plain Celery and the raw engine",
    "attestation": "verifying evidence, beside its raw signature checks",
    "models": "opening a model package, beside its ciphers",
    "cold_start": "from process start to open gate, by stages",
}
#: Longest time of one part, in seconds; the first run installs what is measured beside ours.
PART_S: Final = 900


def machine() -> dict[str, Any]:
    """Return what figures depend on."""
    text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split("\t: ", 1) for line in text.splitlines() if "\t: " in line)
    fields = {name.strip(): value for name, value in fields.items()}
    wanted = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    return {
        "processor": fields.get("model name", "unknown"),
        "family and model": f"{fields.get('cpu family', '?')}, {fields.get('model', '?')}",
        "cores": os.cpu_count(),
        "units": sorted(wanted & set(fields.get("flags", "").split())),
        "python": sys.version.split()[0],
        "load at start": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).date().isoformat(),
    }


def run_part(name: str) -> dict[str, Any]:
    """Run a part in a process of its own; return its figures, or ``{"error": one line}``."""
    target = RESULTS / f"{name}.part"
    command = [sys.executable, "-m", "tests.bench.run", "--part", name, "--into", str(target)]
    began = time.perf_counter()
    log = RESULTS / f"{name}.log"
    try:
        with log.open("wb") as errors:
            done = subprocess.run(command, cwd=ROOT, check=False, timeout=PART_S, stderr=errors)
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {PART_S} s"}
    if done.returncode or not target.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return {"error": f"{(lines or ['it ended without a word'])[-1][:200]} (more in {log.name})"}
    figures: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    target.unlink()
    about = {"took_s": round(time.perf_counter() - began, 1), "load": round(os.getloadavg()[0], 2)}
    return {**figures, **about, "measured": datetime.now(UTC).isoformat(timespec="seconds")}


def part_table(name: str, figures: dict[str, Any]) -> str:
    """Return a part's Markdown, or why there is none."""
    if "error" in figures:
        return f"not measured: {figures['error']}"
    make: Callable[[dict[str, Any]], str] = import_module(f".{name}", __package__).table
    return make(figures)


def read(path: Path) -> dict[str, Any]:
    """Return what the file holds; empty where there is none."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Replace the file in one step."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def run(wanted: list[str], out: Path, resume: bool, price: float) -> int:
    """Run the wanted parts; return how many failed."""
    for folder in (RESULTS, out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    found = {"parts": {}, **read(out), "machine": machine(), "price_per_hour": price}
    for name in wanted:
        if resume and "error" not in found["parts"].get(name, {"error": ""}):
            continue
        print(f"{name}: {PARTS[name]}", flush=True)
        found["parts"][name] = run_part(name)
        write(out, found)
    for name in wanted:
        print(f"\n## {name}: {PARTS[name]}\n\n{part_table(name, found['parts'][name])}")
    print(f"\n## All in one\n\n{summary(found)}\n\nkept in {os.path.relpath(out)}")
    return sum("error" in found["parts"][name] for name in wanted)


def main() -> int:
    """Run from the command line; 1 where a part failed."""
    parts = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    parser = argparse.ArgumentParser(description=f"Measure. Parts: {parts}.")
    parser.add_argument("wanted", nargs="*", metavar="PART", help="all when none is named")
    parser.add_argument("--resume", action="store_true", help="leave out parts that the file has figures of")
    parser.add_argument("--price", type=float, default=PRICE, help="dollars per hour of this machine")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench.json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        options.into.write_text(json.dumps(import_module(f".{options.part}", __package__).measure()))
        return 0
    if unknown := set(options.wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return int(run(options.wanted or list(PARTS), options.out, options.resume, options.price) > 0)


if __name__ == "__main__":
    sys.exit(main())
