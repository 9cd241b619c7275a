"""What was wanted, what was reached, and what a million texts cost: computed from the figures of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from . import cold_start, concurrency, crypto, engines, pipeline
from .workload import BATCH

#: Dollars per hour of an m6i.large (2 virtual cores, 8 GiB), on demand, us-east-1;
#: aws.amazon.com/ec2/pricing/on-demand.
PRICE: Final = 0.096


def rate(parts: dict[str, Any]) -> float:
    """Return our engine's texts per second in batches."""
    return float(BATCH / parts["engines"]["seconds"]["ours"]["batch"])


def _beside(parts: dict[str, Any], case: str, other: str) -> float:
    found = engines.ratio(parts["engines"]["seconds"], case, "ours", other)
    if found is None:
        raise KeyError(other)
    return found


Row = tuple[str, str, str, Callable[[dict[str, Any]], float], Callable[[float], bool]]

#: What, wanted, how it is written, how it is computed, whether it is reached.
TARGETS: Final[list[Row]] = [
    (
        "crypto per job, ms",
        "≤ 0.1",
        "{:.3f}",
        lambda p: crypto.per_job(p["crypto"]["microseconds"]) / 1e3,
        lambda v: v <= 0.1,
    ),
    (
        "single sentence, × candle's time",
        "≤ 0.25",
        "{:.2f}",
        lambda p: _beside(p, "single", "candle"),
        lambda v: v <= 0.25,
    ),
    (
        "batch, × candle's throughput",
        "≥ 4",
        "{:.2f}",
        lambda p: 1 / _beside(p, "batch", "candle"),
        lambda v: v >= 4,
    ),
    (
        "least cosine with sentence-transformers",
        "≥ 0.9998",
        "{:.6f}",
        lambda p: float(p["engines"]["cosine"]["ours"]["least"]),
        lambda v: v >= 0.9998,
    ),
    (
        "batch, share of the matrix-product limit",
        "≥ 85 %",
        "{:.1%}",
        lambda p: rate(p) / p["engines"]["limit_per_s"],
        lambda v: v >= 0.85,
    ),
    (
        "batch, share of the raw library",
        "≥ 97 %",
        "{:.1%}",
        lambda p: 1 / _beside(p, "batch", "raw openvino"),
        lambda v: v >= 0.97,
    ),
    (
        "sealed pipeline, drained, share of the raw engine, worker apart",
        "≥ 97 %",
        "{:.1%}",
        lambda p: pipeline.share(p["pipeline"], "apart", "sealed, drain", "raw engine"),
        lambda v: v >= 0.97,
    ),
    (
        "the same, all sharing the cores",
        "≥ 97 %",
        "{:.1%}",
        lambda p: pipeline.share(p["pipeline"], "shared", "sealed, drain", "raw engine"),
        lambda v: v >= 0.97,
    ),
    (
        "four callers beside one",
        "≥ 1.5 ×",
        "{:.2f} ×",
        lambda p: concurrency.gain(p["concurrency"], 4),
        lambda v: v >= 1.5,
    ),
    (
        "cold start to open gate, s",
        "≤ 1.5",
        "{:.2f}",
        lambda p: cold_start.gate_open(p["cold_start"]),
        lambda v: v <= 1.5,
    ),
]


def judged(parts: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return what, wanted, reached, and ``met`` or ``missed`` or ``not measured``, for every target."""
    rows = []
    for what, wanted, form, compute, reached in TARGETS:
        try:
            value = compute(parts)
        except (KeyError, ZeroDivisionError):
            rows.append((what, wanted, "", "not measured"))
        else:
            rows.append((what, wanted, form.format(value), "met" if reached(value) else "missed"))
    return rows


def costs(parts: dict[str, Any], price: float) -> list[tuple[str, float, float]]:
    """Return by way of running: texts per second, and dollars per million texts at a price per hour."""
    ways: dict[str, Callable[[], float]] = {
        "our engine, batches": lambda: rate(parts),
        "sealed pipeline, worker's cores shared with nobody": lambda: parts["pipeline"]["apart"][
            "sealed, drain"
        ],
        "sealed pipeline, client and Redis on the same cores": lambda: parts["pipeline"]["shared"][
            "sealed, whole"
        ],
        "sentence-transformers": lambda: (
            BATCH / parts["engines"]["seconds"]["sentence-transformers"]["batch"]
        ),
        "candle": lambda: BATCH / parts["engines"]["seconds"]["candle"]["batch"],
    }
    found = []
    for name, way in ways.items():
        try:
            speed = way()
        except KeyError:
            continue
        found.append((name, speed, 1e6 / speed / 3600 * price))
    return found


def summary(found: dict[str, Any]) -> str:
    """Return the one table: targets, then cost."""
    lines = ["| | wanted | reached | |", "|---|---:|---:|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in judged(found["parts"])]
    lines += [
        "",
        f"| at ${found['price_per_hour']} per hour | texts/s | $ per million texts |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {speed:.0f} | {dollars:.3f} |"
        for name, speed, dollars in costs(found["parts"], found["price_per_hour"])
    ]
    about = found["machine"]
    units = ", ".join(about["units"]) or "none of the listed"
    lines += [
        "",
        f"{about['date']}: {about['processor']} (family and model {about['family and model']}; {units}), ",
    ]
    lines[-1] += f"{about['cores']} cores, Python {about['python']}; "
    lines[-1] += f"load average at the start {about['load at start']}."
    return "\n".join(lines)
