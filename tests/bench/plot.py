"""The picture of a run as SVG: speed beside other libraries, input length, pipelines, callers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, log2
from typing import Any, Final

from .concurrency import CALLERS
from .engines import LENGTHS
from .workload import BATCH, TOKENS

WIDTH: Final = 440
HEIGHT: Final = 250
LEFT: Final = 130
TOP: Final = 40
_COLOURS: Final = {
    "ours": "#0b6e4f",
    "raw openvino": "#73a580",
    "onnxruntime": "#c08a2b",
    "sentence-transformers": "#b5485d",
    "candle": "#5b6ea6",
}
_OTHER: Final = "#7a7a7a"
Bars = Sequence[tuple[str, float]]


def bars(title: str, rows: Bars, form: str) -> str:
    """Return one panel of horizontal bars."""
    most = max(value for _, value in rows)
    room, step = WIDTH - LEFT - 70, (HEIGHT - TOP - 20) / len(rows)
    parts = [_title(title)]
    for index, (name, value) in enumerate(rows):
        y, length = TOP + index * step, room * value / most
        colour = _COLOURS.get(name, _OTHER if "sealed" not in name else _COLOURS["ours"])
        parts.append(_text(LEFT - 6, y + step * 0.55, name, "end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y:.1f}" width="{length:.1f}" height="{step * 0.7:.1f}" fill="{colour}"/>'
        )
        parts.append(_text(LEFT + length + 5, y + step * 0.55, form.format(value), "start"))
    return "\n".join(parts)


def lines(title: str, by_engine: dict[str, list[float]]) -> str:
    """Return one panel of milliseconds over input length, both axes logarithmic."""
    every = [log2(value) for values in by_engine.values() for value in values]
    low, high = min(every), max(every)
    left, right, bottom = 50, WIDTH - 140, HEIGHT - 30
    xs = [left + (right - left) * n / (len(LENGTHS) - 1) for n in range(len(LENGTHS))]
    parts = [_title(title)]
    parts += [_text(x, bottom + 16, str(length), "middle") for x, length in zip(xs, LENGTHS, strict=True)]
    tick = ceil(low)
    while tick <= high:
        y = bottom - (bottom - TOP) * (tick - low) / (high - low)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(left - 6, y + 4, f"{2.0**tick:g}", "end"))
        tick += 1
    for row, (name, values) in enumerate(by_engine.items()):
        colour = _COLOURS.get(name, _OTHER)
        ys = [bottom - (bottom - TOP) * (log2(value) - low) / (high - low) for value in values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 14 + row * 16
        parts.append(f'<rect x="{right + 10}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(right + 25, y, name, "start"))
    return "\n".join(parts)


def panels(parts: dict[str, Any]) -> list[str]:
    """Return the panels that the figures allow."""
    found = []
    if "error" not in parts.get("engines", {"error": ""}):
        seconds = parts["engines"]["seconds"]
        single = [(kind, own["single"] * 1e3) for kind, own in seconds.items()]
        batch = [(kind, BATCH / own["batch"]) for kind, own in seconds.items()]
        limit = ("matrix products' limit", parts["engines"]["limit_per_s"])
        found.append(bars(f"One sentence of {TOKENS} tokens, ms (less is better)", single, "{:.1f}"))
        found.append(bars(f"{BATCH} of them together, sentences/s", [*batch, limit], "{:.0f}"))
        by_engine = {
            kind: [own[f"length {length}"] * 1e3 for length in LENGTHS] for kind, own in seconds.items()
        }
        found.append(lines("Milliseconds for one text of so many tokens", by_engine))
    if "error" not in parts.get("pipeline", {"error": ""}):
        rates = parts["pipeline"].get("apart", parts["pipeline"]["shared"])
        rows = [(name, value) for name, value in rates.items() if not name.endswith(("ms", "MiB"))]
        found.append(bars("Pipelines, texts/s, worker on a core of its own", rows, "{:.0f}"))
    if "error" not in parts.get("concurrency", {"error": ""}):
        callers = parts["concurrency"]["callers"]
        rows = [(f"{number} at once", callers[str(number)][0]) for number in CALLERS]
        found.append(bars("Callers at once on one engine, sentences/s", rows, "{:.0f}"))
    return found


def svg(found: dict[str, Any]) -> str:
    """Return the whole picture, two panels in a row."""
    made = panels(found["parts"])
    rows = (len(made) + 1) // 2
    size = (2 * WIDTH, rows * HEIGHT)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
    head += f'height="{size[1]}" font-family="sans-serif" font-size="11">'
    placed = [
        f'<g transform="translate({index % 2 * WIDTH},{index // 2 * HEIGHT})">\n{panel}\n</g>'
        for index, panel in enumerate(made)
    ]
    background = f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>'
    return "\n".join([head, background, *placed, "</svg>"]) + "\n"


def _title(text: str) -> str:
    return f'<text x="10" y="22" font-size="13" font-weight="bold">{escape(text)}</text>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
