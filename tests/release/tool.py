"""The release check's modules, which lie outside of the package and import each other by name."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy" / "release"


def load(name: str) -> Any:
    """Return one module of ``deploy/release``."""
    sys.path.insert(0, str(HERE))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(HERE))


step = load("step")
artefacts = load("artefacts")
exceptions = load("exceptions")
locks = load("locks")
licences = load("licences")
vulnerabilities = load("vulnerabilities")
provenance = load("provenance")
NotHeld: type[Exception] = step.NotHeld
installed = load("installed")
