"""The import contracts hold, and they bite: a module that breaks one is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .test_packaging import FOLDERS, ROOT

BREACHES = {
    "wire/breach.py": ("from ..receipts import verify", "Imports go only downward"),
    "workers/breach.py": ("from ..producer import client", "Imports go only downward"),
    "newfloor/__init__.py": ("", "Imports go only downward"),
    "broker_config/breach.py": ("from ..wire import job", "knows errors and encoding only"),
    "producer/gateway/opens.py": ("from ...wire.opening import Opener", "Gateway code cannot open a job"),
    "producer/gateway/through.py": ("from ..client import Client", "Gateway code cannot open a job"),
    "wire/clock.py": ("import time", "Formats do no I/O"),
    "attestation/nitro/reaches.py": ("import urllib.request", "Verifiers reach no network"),
    "attestation/nitro/asks.py": ("from ..key_release import protocol", "never leads to asking for keys"),
    "receipts/breach.py": ("from pycose.messages import Sign1Message", "pycose has one door"),
    "producer/breach.py": ("import torch", "need no engine"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the package that lies in ``folder``."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from importlinter.cli import lint_imports_command as check; check()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(folder),
        "--no-cache",
        "--no-logo",
        "--config",
        "pyproject.toml",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, laid out as it is imported."""
    base = tmp_path_factory.mktemp("floors")
    package = base / "ephemeralml"
    package.mkdir()
    for name in (*FOLDERS, *(path.name for path in ROOT.glob("*.py"))):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, package / name)
    shutil.copy(ROOT / "pyproject.toml", base)
    return base


def test_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", BREACHES)
def test_breach_is_found(copy: Path, path: str) -> None:
    line, contract = BREACHES[path]
    module = copy / "ephemeralml" / path
    fresh = not module.parent.exists()
    module.parent.mkdir(exist_ok=True)
    module.write_text(f"{line}\n", encoding="utf-8")
    try:
        done = lint(copy)
    finally:
        shutil.rmtree(module.parent) if fresh else module.unlink()
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert any(contract in line for line in broken), done.stdout
