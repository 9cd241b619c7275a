"""Asks for known vulnerabilities of all locked packages, by a database that must prove that it answers.

Two ways: an OSV dump on this machine (offline), or pip-audit (online). A database that is empty,
unreachable or of something else finds nothing either: so each is first asked for one release that is known
to be vulnerable, and it is not believed when it knows nothing of that. Source of the evaluation: OSV
schema 1.7, "Evaluation" (https://ossf.github.io/osv-schema/#evaluation).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from exceptions import Exceptions
from locks import Pin
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from step import NotHeld, Step

#: jinja2 2.10 has CVE-2019-10906, fixed in 2.10.1.
CONTROL: Final = Pin("jinja2", "2.10", ("control",))
CONTROL_ID: Final = "CVE-2019-10906"
#: A dump whose newest record is older knows nothing of what was found since. Records change every day.
MAX_DUMP_DAYS: Final = 14


@dataclass(frozen=True)
class Advisory:
    """A known vulnerability of one locked package."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Its id and aliases."""
        return {self.id, *self.aliases}


class Unjudged(Exception):
    """No database could be asked, or it did not prove that it answers."""


def from_dump(dump: Path, pins: Iterable[Pin], today: date) -> list[Advisory]:
    """Match pins against an OSV dump: a folder of JSON files, or the ``all.zip`` of an ecosystem.

    :raises Unjudged: there is no dump, it is too old, or it does not know the control.
    """
    wanted: dict[str, list[Pin]] = {}
    for pin in (*pins, CONTROL):
        wanted.setdefault(pin.name, []).append(pin)
    found: list[Advisory] = []
    newest = ""
    try:
        for record in _records(dump):
            newest = max(newest, str(record.get("modified", "")))
            found += _matches(record, wanted)
        age = today - date.fromisoformat(newest[:10]) if newest else timedelta.max
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise Unjudged(f"the OSV dump cannot be read: {type(error).__name__}") from None
    if age > timedelta(days=MAX_DUMP_DAYS):
        raise Unjudged(f"the OSV dump holds no record of the last {MAX_DUMP_DAYS} days")
    return _without_control(found)


def _records(dump: Path) -> Iterator[dict[str, Any]]:
    if dump.is_dir():
        for path in sorted(dump.rglob("*.json")):
            yield json.loads(path.read_bytes())
        return
    with zipfile.ZipFile(dump) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def _matches(record: dict[str, Any], wanted: dict[str, list[Pin]]) -> Iterator[Advisory]:
    if record.get("withdrawn"):
        return
    aliases = tuple(record.get("aliases", ()))
    for affected in record.get("affected", ()):
        package = affected.get("package", {})
        if package.get("ecosystem") != "PyPI":
            continue
        for pin in wanted.get(canonicalize_name(package.get("name", "")), ()):
            if is_affected(pin.version, affected):
                yield Advisory(pin.name, pin.version, record["id"], aliases)


def is_affected(version: str, affected: dict[str, Any]) -> bool:
    """Return whether OSV's ``affected`` entry is about a version: listed, or within a range."""
    try:
        ours = Version(version.split("+", maxsplit=1)[0])
        if any(_version(one) == ours for one in affected.get("versions", ())):
            return True
        ranges = [one for one in affected.get("ranges", ()) if one.get("type") == "ECOSYSTEM"]
        return any(_in_range(ours, one.get("events", ())) for one in ranges)
    except InvalidVersion:
        return True  # not to be told apart: somebody must look


def _in_range(ours: Version, events: Iterable[dict[str, str]]) -> bool:
    inside = False
    for event in sorted(events, key=_place):
        ((kind, text),) = event.items()
        at = _version(text)
        if kind == "introduced" and ours >= at:
            inside = True
        elif (kind == "fixed" and ours >= at) or (kind == "last_affected" and ours > at):
            inside = False
    return inside


def _place(event: dict[str, str]) -> tuple[Version, int]:
    ((kind, text),) = event.items()
    return _version(text), 0 if kind == "introduced" else 1


def _version(text: str) -> Version:
    return Version("0.dev0") if text == "0" else Version(text)


def from_pip_audit(pins: Iterable[Pin], service: str = "osv") -> list[Advisory]:
    """Ask pip-audit's online service about pins.

    :raises Unjudged: it cannot be reached, left out a package, or does not know the control.
    """
    wanted = [*pins, CONTROL]
    found: list[Advisory] = []
    for lock in _one_version_each(wanted):
        found += _audited(lock, service)
    return _without_control(found)


def _one_version_each(pins: list[Pin]) -> Iterator[list[Pin]]:
    """Yield lists without two versions of one package: a requirements file names each once."""
    left = list({(pin.name, pin.version): pin for pin in pins}.values())
    while left:
        chosen = {pin.name: pin for pin in reversed(left)}
        left = [pin for pin in left if chosen[pin.name] is not pin]
        yield list(chosen.values())


def _audited(pins: list[Pin], service: str) -> list[Advisory]:
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{pin.name}=={pin.version}\n" for pin in pins)
        file.flush()
        command += ["--format=json", f"--vulnerability-service={service}", "--requirement", file.name]
        done = subprocess.run(  # noqa: S603 - our own command, arguments as a list
            command, capture_output=True, text=True, check=False
        )
    try:
        rows = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unjudged(f"pip-audit reached no database: {said[-160:]}") from None
    skipped = sorted(row["name"] for row in rows if "skip_reason" in row)
    if skipped:
        raise Unjudged(f"pip-audit left out {len(skipped)} packages, e.g. {skipped[0]}")
    return [
        Advisory(canonicalize_name(row["name"]), row["version"], one["id"], tuple(one["aliases"]))
        for row in rows
        for one in row["vulns"]
    ]


def _without_control(found: list[Advisory]) -> list[Advisory]:
    control = [one for one in found if (one.package, one.version) == (CONTROL.name, CONTROL.version)]
    if not any(CONTROL_ID in one.names for one in control):
        raise Unjudged(f"the database does not know {CONTROL_ID} of {CONTROL.name} {CONTROL.version}")
    return [one for one in found if one not in control]


def check(found: list[Advisory], asked: str, exceptions: Exceptions) -> Step:
    """Judge what was found."""
    faults, excused = [], []
    for one in sorted(set(found), key=lambda one: (one.package, one.id)):
        excuse = exceptions.excuse("vulnerability", one.package, one.names)
        text = f"{one.package} {one.version}: {one.id}"
        if excuse is None:
            faults.append(text)
        else:
            excused.append(f"{text}, excused until {excuse.until}: {excuse.reason}")
    lines = (f"asked {asked}; {len(faults)} found, {len(excused)} by exception", *faults, *excused)
    data = {"asked": asked, "judged": True, "faults": faults, "excused": excused}
    return Step("vulnerabilities of locked dependencies", not faults, lines, data)


def unjudged(reasons: list[str], offline_ok: bool) -> Step:
    """Return the step where no database could be asked: it does not hold, unless that was agreed to."""
    agreed = "agreed to by --offline-ok" if offline_ok else "give --osv DUMP, or agree to it: --offline-ok"
    lines = ("NOT JUDGED: no database could be asked", *reasons, agreed)
    return Step(
        "vulnerabilities of locked dependencies", offline_ok, lines, {"judged": False, "reasons": reasons}
    )


def judge(pins: tuple[Pin, ...], dump: Path | None, offline_ok: bool, exceptions: Exceptions) -> Step:
    """Ask the dump where there is one, else pip-audit."""
    reasons = []
    ways = (
        (("osv", "pip-audit with OSV"), ("pypi", "pip-audit with the package index")) if dump is None else ()
    )
    if dump is not None:
        try:
            return check(from_dump(dump, pins, exceptions.today), f"the OSV dump {dump.name}", exceptions)
        except Unjudged as error:
            reasons.append(str(error))
    for service, name in ways:
        try:
            return check(from_pip_audit(pins, service), name, exceptions)
        except Unjudged as error:
            reasons.append(f"{name}: {error}")
    return unjudged(reasons, offline_ok)


__all__ = ["Advisory", "NotHeld", "Unjudged", "check", "from_dump", "from_pip_audit", "is_affected", "judge"]
