"""Environments of their own for the libraries that are measured beside ours, and the file that one needs.

They lie in ``bench-results/rivals`` and are made once. What cannot be installed is left out with a line that
says so: nothing else of the bench needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from .workload import RESULTS, ROOT

RIVALS: Final = RESULTS / "rivals"
#: By kind of runner: what is installed, in the versions that docs/bench.md has figures of.
NEEDS: Final = {
    "onnxruntime": ["onnxruntime==1.32.0", "onnx==1.23.2", "tokenizers==0.23.3"],
    "candle": ["embed_anything==0.7.1"],
}
INSTALL_S: Final = 240
EXPORT_S: Final = 120


class Unavailable(Exception):
    """A rival cannot be measured here; the text says why in one line."""


def python_of(kind: str) -> str:
    """Return the interpreter that runs a kind, made ready first.

    :raises Unavailable: its environment cannot be made.
    """
    if kind not in NEEDS:
        return sys.executable
    folder = RIVALS / kind
    python, whole = folder / "bin" / "python", folder / "whole"
    if not whole.exists() or whole.read_text() != "\n".join(NEEDS[kind]):
        _call([sys.executable, "-m", "venv", "--clear", str(folder)], INSTALL_S, f"{kind}: no environment")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*install, *NEEDS[kind]], INSTALL_S, f"{kind}: {', '.join(NEEDS[kind])} cannot be installed")
        whole.write_text("\n".join(NEEDS[kind]))
    return str(python)


def environment_of(kind: str, model: Path) -> dict[str, str]:
    """Return the environment variables of a kind's runner.

    :raises Unavailable: the model cannot be exported for it.
    """
    more = {"HF_HOME": str(RIVALS / "hub" / model.parent.name), "TOKENIZERS_PARALLELISM": "true"}
    more["HF_HUB_CACHE"] = str(Path(more["HF_HOME"]) / "hub")
    if kind == "onnxruntime":
        more["ONNX_MODEL"] = str(_exported(model))
    return {**os.environ, **more}


def _exported(model: Path) -> Path:
    """Return the model as torch's own exporter writes it, pooling and scaling included."""
    target = RIVALS / f"{model.parent.name}.onnx"
    if not target.exists():
        (site,) = (RIVALS / "onnxruntime").glob("lib/python*/site-packages")
        part = target.with_suffix(".part")
        script = str(Path(__file__).with_name("export_onnx.py"))
        command = [sys.executable, script, str(model), str(part), str(site)]
        _call(command, EXPORT_S, "onnxruntime: torch cannot export the model")
        part.replace(target)
    return target


def _call(command: list[str], seconds: int, refusal: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        raise Unavailable(refusal) from None
    if done.returncode:
        raise Unavailable(refusal)
