"""Two builds of one revision are the same bytes; one that is not is told apart to the member."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from .tool import ROOT, NotHeld, artefacts


def wheel(*members: tuple[str, bytes, tuple[int, int, int, int, int, int]]) -> bytes:
    """Return a zip of members with their times."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data, when in members:
            archive.writestr(zipfile.ZipInfo(name, when), data)
    return file.getvalue()


def sdist(mode: int, when: int) -> bytes:
    """Return a tar of one member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("a/setup")
        info.size, info.mode, info.mtime = 4, mode, when
        tar.addfile(info, io.BytesIO(b"data"))
    return file.getvalue()


EARLY, LATE = (2026, 1, 1, 0, 0, 0), (2026, 1, 1, 0, 0, 2)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({}, {}, []),
        ({"a.whl": wheel(("m", b"1", EARLY))}, {"a.whl": wheel(("m", b"1", EARLY))}, []),
        ({"a.whl": wheel(("m", b"1", EARLY))}, {"a.whl": wheel(("m", b"2", EARLY))}, ["a.whl: m"]),
        ({"a.whl": wheel(("m", b"1", EARLY))}, {"a.whl": wheel(("m", b"1", LATE))}, ["a.whl: m"]),
        ({"a.tar.gz": sdist(0o644, 1)}, {"a.tar.gz": sdist(0o600, 1)}, ["a.tar.gz: a/setup"]),
        ({"a.tar.gz": sdist(0o644, 1)}, {"a.tar.gz": sdist(0o644, 2)}, ["a.tar.gz: a/setup"]),
        ({"a.whl": wheel()}, {}, ["a.whl: made only once"]),
        (
            {"a.whl": wheel(("m", b"1", EARLY), ("n", b"", EARLY))},
            {"a.whl": wheel(("n", b"", EARLY), ("m", b"1", EARLY))},
            ["a.whl: the same members in another form"],
        ),
    ],
)
def test_differences_are_named(one: dict[str, bytes], other: dict[str, bytes], said: list[str]) -> None:
    assert artefacts.differences(one, other) == said


def test_this_revision_builds_twice_to_the_same_bytes(tmp_path: Path) -> None:
    asked = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, check=False
    )
    if asked.returncode:
        pytest.skip("a release is made from a checkout")
    out = tmp_path / "out"
    out.mkdir()
    source = artefacts.read_source(ROOT)
    step, built = artefacts.check(ROOT, source, tmp_path / "scratch", out)
    assert step.held, step.lines
    assert sorted(name.rsplit(".", 1)[-1] for name in built) == ["gz", "whl"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == built
    (made,) = (data for name, data in built.items() if name.endswith(".whl"))
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert len({one.date_time for one in archive.infolist()}) == 1


def test_a_revision_that_git_does_not_know_is_refused(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(NotHeld, match="git ended with 128"):
        artefacts.read_source(tmp_path)
