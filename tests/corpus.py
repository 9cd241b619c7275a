"""Finds the recorded evidence beside the project; CI must have it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def corpus(relative: str = "") -> Path:
    """Return a file or folder of the corpus; skip where there is none, fail under ``CI=true``."""
    base = os.environ.get("EPHEMERALML_CORPUS")
    root = Path(base) if base else Path(__file__).resolve().parents[2] / "shared" / "corpus"
    path = root / relative
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the corpus lacks {relative or 'everything'}; set EPHEMERALML_CORPUS")
        pytest.skip("the corpus is not here; set EPHEMERALML_CORPUS to its folder")
    return path
