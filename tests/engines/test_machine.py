"""Cores and batches follow from the machine: affinity, a quota, and nothing that a file says wrongly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.workers.engines import ModelFiles
from ephemeralml.workers.engines.machine import LEAST_BUDGET, MOST_BUDGET, token_budget, usable_cores
from ephemeralml.workers.engines.openvino_engine import OpenVinoEngine


def groups(folder: Path, own: str, **quotas: str) -> tuple[Path, Path]:
    """Write control groups; a group's name has ``_`` for ``/``."""
    (folder / "own").write_text(own)
    for name, quota in quotas.items():
        group = folder / "groups" / name.replace("_", "/").lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.max").write_text(quota)
    return folder / "own", folder / "groups"


@pytest.mark.parametrize(
    ("own", "quotas", "cores"),
    [
        ("0::/pod/box\n", {"pod_box": "200000 100000\n"}, 2),
        ("0::/pod/box\n", {"pod_box": "max 100000\n", "pod": "300000 100000\n"}, 3),
        ("0::/pod/box\n", {"pod_box": "400000 100000\n", "pod": "150000 100000\n"}, 1),
        ("0::/pod\n", {"pod": "5000 100000\n"}, 1),
        ("12:cpu:/old\n0::/pod\n", {"pod": "250000 100000\n"}, 2),
        ("0::/\n", {"_": "100000 100000\n"}, 1),
        ("0::/pod\n", {"pod": "max 100000\n"}, 8),
        ("0::/pod\n", {"pod": "many\n"}, 8),
        ("0::/pod\n", {"pod": "100000 0\n"}, 8),
        ("0::/../pod\n", {"pod": "100000 100000\n"}, 8),
        ("0::/elsewhere\n", {}, 8),
        ("", {}, 8),
    ],
)
def test_a_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, quotas: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores(*groups(tmp_path, own, **quotas)) == cores


def test_affinity_bounds_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores(tmp_path / "none", tmp_path) == 1


@given(st.integers(1, 1024))
def test_batches_grow_with_threads_within_bounds(threads: int) -> None:
    assert LEAST_BUDGET <= token_budget(threads) <= token_budget(threads + 1) <= MOST_BUDGET


def test_an_engine_takes_what_the_machine_gives(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ephemeralml.workers.engines.openvino_engine.usable_cores", lambda: 1)
    engine = OpenVinoEngine(files, precision="f32")
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert engine.token_budget == token_budget(1)
