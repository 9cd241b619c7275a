"""Cold start of a real worker by stages: process start to gate open, MiniLM, openvino, local profile.

Run by ``python -m tests.bench.cold_start [STARTS]``. The first start warms the disk cache and is left out. A
bare ``import openvino`` stands beside it, and the imports that cost most (``-X importtime``).
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer.lab import Lab, minilm_folder

TARGET_S: Final = 1.5
_STAGE: Final = re.compile(r"(\w+) ([\d.]+)s")
_GATE: Final = re.compile(r"gate open ([\d.]+)s after process start")
_IMPORT: Final = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|( *)(\S+)")
COMMAND: Final = ["-m", "ephemeralml", "worker"]


@contextmanager
def site() -> Iterator[dict[str, str]]:
    """Yield a worker's environment in a laboratory whose KMS and broker run."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab.create(Path(folder) / "lab")
        with lab.kms(), broker_running(broker_settings(state_dir=lab.state)):
            lab.package(minilm_folder())
            yield {**os.environ, **lab.worker_environment, "EPHEMERALML_STATE_DIR": str(lab.state)}


def start(environment: dict[str, str], *options: str) -> tuple[dict[str, float], str]:
    """Start a worker, wait for its gate, stop it; return the stages' times and its standard error."""
    with tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, *options, *COMMAND]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as worker:
            assert worker.stdout is not None
            line = next((line for line in worker.stdout if line.startswith("ready:")), "")
            worker.send_signal(signal.SIGTERM)
            worker.communicate()
        errors.seek(0)
        text = errors.read()
    gate = _GATE.search(line)
    if gate is None:
        raise SystemExit(f"the worker did not start: {text[-500:]}")
    stages = {name: float(value) for name, value in _STAGE.findall(line.rsplit("|", 1)[-1]) if name != "open"}
    return {**stages, "gate open": float(gate[1])}, text


def bare_import(module: str) -> float:
    """Return how long a fresh interpreter takes to import one module and end, in seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - began


def dearest_imports(text: str, count: int = 10) -> list[tuple[float, str]]:
    """Return the packages that cost most by themselves, in milliseconds, from ``-X importtime``."""
    costs: dict[str, float] = {}
    for own, _, _, module in _IMPORT.findall(text):
        parts = module.split(".")
        name = ".".join(parts[: 2 if parts[0] == "ephemeralml" else 1])
        costs[name] = costs.get(name, 0.0) + int(own) / 1000
    return sorted(((cost, name) for name, cost in costs.items()), reverse=True)[:count]


def measure(starts: int = 5) -> dict[str, Any]:
    """Return the stages of some starts in seconds, and the dearest imports in milliseconds."""
    with site() as environment:
        start(environment)
        runs = [start(environment)[0] for _ in range(starts)]
        _, imports = start(environment, "-X", "importtime")
    bare = [bare_import("openvino") for _ in range(starts)]
    return {"runs": runs, "bare": bare, "imports": dearest_imports(imports), "load": os.getloadavg()[0]}


def table(found: dict[str, Any]) -> str:
    """Return the Markdown tables."""
    runs = found["runs"]
    lines = [f"| stage | median of {len(runs)}, s | best, s |", "|---|---:|---:|"]
    for name in runs[0]:
        values = [run[name] for run in runs]
        lines.append(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} |")
    bare = found["bare"]
    lines.append(f"| bare `import openvino` | {statistics.median(bare):.2f} | {min(bare):.2f} |")
    lines += ["", "| dearest imports, by themselves | ms |", "|---|---:|"]
    lines += [f"| {name} | {cost:.0f} |" for cost, name in found["imports"]]
    return "\n".join(lines)


def gate_open(found: dict[str, Any]) -> float:
    """Return the median time from process start to gate open, in seconds."""
    return float(statistics.median(run["gate open"] for run in found["runs"]))


def main() -> None:
    """Measure and print the tables."""
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(table(found))
    gate = gate_open(found)
    print(f"\nfrom process start to gate open: {gate:.2f} s (wanted on a quiet machine: {TARGET_S} s)")
    print(f"load average: {found['load']:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
