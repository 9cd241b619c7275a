"""Builds sdist and wheel twice, in surroundings that differ where it must not matter; compares bytes."""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from step import NotHeld, Step, run

#: Differences that a build must not show: file modes, clock's zone, order of sets, language, folder.
SURROUNDINGS: Final = (
    {"umask": "022", "TZ": "UTC", "PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"},
    {"umask": "077", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "2", "LC_ALL": "C"},
)


@dataclass(frozen=True)
class Source:
    """A revision of the project, as git holds it.

    :param revision: commit, hexadecimal. :param committed_at: Unix seconds: every build's clock.
    :param dirty: whether the working tree holds changes, which take no part.
    """

    revision: str
    committed_at: int
    dirty: bool


def read_source(root: Path, revision: str = "HEAD") -> Source:
    """Return which revision is to be released.

    :raises NotHeld: git does not know it.
    """
    full = run(["git", "rev-parse", "--verify", f"{revision}^{{commit}}"], cwd=root).strip()
    at = int(run(["git", "show", "--no-patch", "--format=%ct", full], cwd=root))
    return Source(full, at, bool(run(["git", "status", "--porcelain"], cwd=root).strip()))


def unpack(root: Path, source: Source, into: Path) -> Path:
    """Write the revision's files, and no others, into a new folder."""
    into.mkdir(parents=True)
    archive = into.parent / f"{into.name}.tar"
    run(["git", "archive", "--format=tar", f"--output={archive}", source.revision], cwd=root)
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="tar")
    archive.unlink()
    return into


def build(source: Path, out: Path, epoch: int, surroundings: dict[str, str]) -> dict[str, bytes]:
    """Build sdist and wheel, offline, and return them by name.

    :param epoch: SOURCE_DATE_EPOCH, Unix seconds (reproducible-builds.org, "SOURCE_DATE_EPOCH").
    """
    settings = {name: value for name, value in surroundings.items() if name != "umask"}
    environment = {**os.environ, **settings, "SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    # Through a shell for the umask alone, which files and folders are made under.
    run(["sh", "-c", f'umask {surroundings["umask"]}; exec "$@"', "sh", *command], env=environment)
    found = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    kinds = sorted(name.rsplit(".", 1)[-1] for name in found)
    if kinds != ["gz", "whl"]:
        raise NotHeld(f"a build made {sorted(found)} instead of one sdist and one wheel")
    return found


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Return what differs between two builds: artefacts, and members of those that do."""
    found = [f"{name}: made only once" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        if one[name] == other[name]:
            continue
        ours, theirs = members(name, one[name]), members(name, other[name])
        changed = sorted(part for part in ours.keys() | theirs.keys() if ours.get(part) != theirs.get(part))
        found.append(f"{name}: {', '.join(changed[:5]) or 'the same members in another form'}")
    return found


def members(name: str, data: bytes) -> dict[str, str]:
    """Return the members of a wheel or sdist, each with mode, time and SHA-256 as one text."""
    if name.endswith(".whl"):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return {
                one.filename: f"{one.external_attr:o} {one.date_time} {_sha256(archive.read(one))}"
                for one in archive.infolist()
            }
    found = {}
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        for part in tar.getmembers():
            file = tar.extractfile(part) if part.isfile() else None
            found[part.name] = f"{part.mode:o} {part.mtime} {'' if file is None else _sha256(file.read())}"
    return found


def check(root: Path, source: Source, scratch: Path, out: Path) -> tuple[Step, dict[str, bytes]]:
    """Build twice, compare, and put the artefacts into ``out``."""
    builds = []
    for number, surroundings in enumerate(SURROUNDINGS):
        place = scratch / ("a" * (number + 1)) / "source"
        folder = unpack(root, source, place)
        builds.append(build(folder, scratch / f"dist-{number}", source.committed_at, surroundings))
    differing = differences(*builds)
    for name, data in builds[0].items():
        (out / name).write_bytes(data)
    lines = [f"{name}  sha256 {_sha256(data)}  {len(data):,} bytes" for name, data in builds[0].items()]
    if source.dirty:
        lines.append("the working tree has changes; they are not in these artefacts")
    digests = {name: _sha256(content) for name, content in builds[0].items()}
    return Step(
        "two builds, same bytes", not differing, (*lines, *differing), {"artefacts": digests}
    ), builds[0]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
