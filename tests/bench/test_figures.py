"""The arithmetic and pages of the bench: exact texts, targets judged, gaps said, figures put in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ephemeralml.workers.engines import EmbedRequest, load_engine

from . import run
from .concurrency import CALLERS
from .engines import LENGTHS
from .page import replaced
from .plot import svg
from .runner import files_of
from .targets import costs, judged, summary
from .workload import BATCH, TOKENS, flops, texts_of, write_random_model

KINDS = {"ours": 1.0, "raw openvino": 0.99, "onnxruntime": 2.0, "sentence-transformers": 3.0, "candle": 5.0}
ABOUT: dict[str, Any] = {
    "processor": "A",
    "family and model": "1, 2",
    "cores": 2,
    "units": ["avx2"],
    "python": "3",
    "load at start": 0.1,
    "date": "2026-11-23",
}


def figures(slower: float = 1.0) -> dict[str, Any]:
    """Return a run's figures; ``slower`` applies to our engine alone."""
    cases = ["single", "batch", "examples", *(f"length {length}" for length in LENGTHS)]
    seconds = {kind: dict.fromkeys(cases, 0.01 * factor) for kind, factor in KINDS.items()}
    seconds["ours"] = dict.fromkeys(cases, 0.01 * slower)
    engines = {
        "threads": 2,
        "gflops": 200.0,
        "limit_per_s": 3500.0,
        "seconds": seconds,
        "cosine": {kind: {"least": 0.9999, "mean": 1.0} for kind in KINDS},
        "about": KINDS,
        "missing": {},
        "load_s": KINDS,
        "memory_loaded": KINDS,
        "memory_most": KINDS,
    }
    rates = dict.fromkeys(
        ("raw engine", "plain, drain", "sealed, drain", "plain, whole", "sealed, whole"), 90.0
    )
    rates |= {"sealed, one job alone, ms": 9.0, "worker, MiB": 300.0}
    steps = ("seal job", "open job", "issue receipt", "seal result", "open result", "verify receipt")
    crypto = dict.fromkeys((*steps, "raw: Ed25519 sign", "raw: Ed25519 verify"), 10.0)
    return {
        "machine": ABOUT,
        "price_per_hour": 0.1,
        "parts": {
            "crypto": {"microseconds": crypto, "took_s": 1.0, "load": 0.5},
            "engines": engines | {"took_s": 1.0, "load": 0.5},
            "concurrency": {"callers": {str(callers): (100.0 * callers, 5.0) for callers in CALLERS}},
            "pipeline": {"shared": rates, "apart": rates, "took_s": 1.0, "load": 0.5},
            "cold_start": {"runs": [{"gate open": 1.0}], "bare": [0.2], "imports": [(9.0, "x")], "load": 1.0},
        },
    }


def test_every_target_is_met_or_missed_by_the_figures() -> None:
    assert {verdict for *_, verdict in judged(figures()["parts"])} == {"met"}
    missed = {what for what, _, _, verdict in judged(figures(slower=2.0)["parts"]) if verdict == "missed"}
    assert missed == {
        "single sentence, × candle's time",
        "batch, × candle's throughput",
        "batch, share of the matrix-product limit",
        "batch, share of the raw library",
    }


@pytest.mark.parametrize("part", ["crypto", "engines", "concurrency", "pipeline", "cold_start"])
def test_a_part_that_failed_is_said_and_harms_no_other(part: str) -> None:
    found = figures()
    found["parts"][part] = {"error": "no such thing"}
    verdicts = [verdict for *_, verdict in judged(found["parts"])]
    assert set(verdicts) == {"met", "not measured"}
    assert "no such thing" in run.part_table(part, found["parts"][part])
    assert "not measured" in summary(found)
    ElementTree.fromstring(svg(found))  # noqa: S314 - our own picture


def test_without_candle_the_rest_is_judged() -> None:
    parts = figures()["parts"]
    for name in ("seconds", "cosine", "about", "load_s", "memory_loaded", "memory_most"):
        parts["engines"][name] = {k: v for k, v in parts["engines"][name].items() if k != "candle"}
    parts["engines"]["missing"] = {"candle": "candle: cannot be installed"}
    assert [verdict for *_, verdict in judged(parts)].count("not measured") == 2
    assert "left out: candle: cannot be installed" in run.part_table("engines", parts["engines"])


def test_cost_follows_from_speed_and_price() -> None:
    ((_, speed, dollars), *_) = costs(figures()["parts"], 0.36)
    assert speed == BATCH / 0.01
    assert dollars == pytest.approx(1e6 / speed / 3600 * 0.36)


def test_every_table_has_as_many_cells_in_every_row() -> None:
    found = figures()
    for name, part in found["parts"].items():
        widths: list[set[int]] = [set()]
        for line in run.part_table(name, part).splitlines():
            widths[-1].add(line.count("|")) if line.startswith("|") else widths.append(set())
        assert all(len(width) <= 1 for width in widths), name


def test_what_has_figures_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bench.json"
    parts = figures()["parts"]
    out.write_text(json.dumps({"parts": {**parts, "crypto": {"error": "it failed"}}}))
    ran: list[str] = []

    def once(name: str) -> dict[str, Any]:
        ran.append(name)
        return dict(parts[name])

    monkeypatch.setattr(run, "run_part", once)
    assert run.run(["crypto", "engines"], out, resume=True, price=0.1) == 0
    assert ran == ["crypto"]
    assert run.run(["engines"], out, resume=False, price=0.1) == 0
    assert ran == ["crypto", "engines"]
    assert "error" not in json.loads(out.read_text())["parts"]["crypto"]


def test_only_what_stands_between_the_markers_changes() -> None:
    page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb"
    assert replaced(page, "x", r"new \1") == "a\n<!-- x:begin -->\n\nnew \\1\n\n<!-- x:end -->\nb"
    for wrong in ("none", page + page):
        with pytest.raises(SystemExit):
            replaced(wrong, "x", "new")


def test_texts_have_exactly_so_many_tokens_and_random_weights_run(tmp_path: Path) -> None:
    write_random_model(tmp_path)
    engine = load_engine("openvino", files_of(tmp_path))
    texts = texts_of(TOKENS, BATCH)
    assert len(set(texts)) == BATCH
    (result,) = engine.run([EmbedRequest((*texts, *texts_of(256, 1), *texts_of(8, 1)))])
    assert result.tokens == [TOKENS] * BATCH + [256, 8]
    assert engine.model_dimensions == 384


def test_operations_are_those_of_the_dense_layers_and_attention() -> None:
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert flops(1) == pytest.approx(2 * weights + 2 * 6 * 2 * 384)
    assert flops(24) / 24 == pytest.approx(flops(1), rel=0.01)


def test_one_core_has_one_placement_only() -> None:
    part = figures()["parts"]["pipeline"]
    assert "own" in run.part_table("pipeline", part)
    assert "own" not in run.part_table("pipeline", {k: v for k, v in part.items() if k != "apart"})
