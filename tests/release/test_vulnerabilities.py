"""A database is believed only when it knows the control; ranges are read as the OSV schema says."""

from __future__ import annotations

import json
import subprocess
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from .tool import exceptions, locks, vulnerabilities

PINS = (locks.Pin("celery", "5.7.0", ("x",)), locks.Pin("redis", "8.0.0", ("x",)))
TODAY = date(2026, 11, 23)
NONE = exceptions.Exceptions([], TODAY)
CONTROL = {
    "id": "GHSA-control",
    "modified": "2026-11-20T01:02:03Z",
    "aliases": ["CVE-2019-10906"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "Jinja2"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.10.1"}]}],
        }
    ],
}


def record(name: str, *, ecosystem: str = "PyPI", **affected: Any) -> dict[str, Any]:
    """Return an OSV record about one package."""
    package = {"ecosystem": ecosystem, "name": name}
    return {
        "id": f"GHSA-{name}",
        "modified": "2026-11-20T00:00:00Z",
        "affected": [{"package": package, **affected}],
    }


def dump(folder: Path, *records: dict[str, Any]) -> Path:
    """Write an OSV dump as the public one is: a zip of JSON files."""
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, one in enumerate(records):
            archive.writestr(f"{number}.json", json.dumps(one))
    return path


@pytest.mark.parametrize(
    ("version", "events", "affected"),
    [
        ("1.0", [{"introduced": "0"}], True),
        ("1.0", [{"introduced": "0"}, {"fixed": "1.0"}], False),
        ("0.9", [{"introduced": "0"}, {"fixed": "1.0"}], True),
        ("1.0", [{"introduced": "0"}, {"last_affected": "1.0"}], True),
        ("1.0.1", [{"introduced": "0"}, {"last_affected": "1.0"}], False),
        ("3.0", [{"fixed": "2.5"}, {"introduced": "2.0"}, {"introduced": "0"}, {"fixed": "1.5"}], False),
        ("2.1", [{"fixed": "2.5"}, {"introduced": "2.0"}, {"introduced": "0"}, {"fixed": "1.5"}], True),
        ("1.7", [{"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.5"}], False),
        ("1.0rc1", [{"introduced": "1.0"}], False),
        ("2.4.1+cu121", [{"introduced": "2.0"}, {"fixed": "2.5"}], True),
        ("1.10", [{"introduced": "1.9"}, {"fixed": "1.11"}], True),
        ("1.0", [{"introduced": "not a version"}], True),
    ],
)
def test_ranges_are_read_as_the_schema_says(
    version: str, events: list[dict[str, str]], affected: bool
) -> None:
    entry = {"ranges": [{"type": "ECOSYSTEM", "events": events}]}
    assert vulnerabilities.is_affected(version, entry) is affected


def test_listed_versions_count_and_commits_do_not() -> None:
    assert vulnerabilities.is_affected("1.0", {"versions": ["1.0.0"]})
    commits = {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}
    assert not vulnerabilities.is_affected("1.0", commits)


def test_a_dump_finds_what_is_locked_and_nothing_else(tmp_path: Path) -> None:
    all_versions = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
    path = dump(
        tmp_path,
        CONTROL,
        record("Celery", ranges=all_versions),
        record("kombu", ranges=all_versions),
        record("redis", ranges=all_versions, ecosystem="npm"),
        {**record("redis", versions=["8.0.0"]), "withdrawn": "2026-01-01T00:00:00Z"},
    )
    found = vulnerabilities.from_dump(path, PINS, TODAY)
    assert [(one.package, one.id) for one in found] == [("celery", "GHSA-Celery")]
    step = vulnerabilities.check(found, "a dump", NONE)
    assert (step.held, step.data["faults"]) == (False, ["celery 5.7.0: GHSA-Celery"])
    day = date(2026, 11, 23)
    excuse = exceptions.Excuse(
        "vulnerability", "celery", "GHSA-Celery", "the broken part is not used", day, day
    )
    assert vulnerabilities.check(found, "a dump", exceptions.Exceptions([excuse], day)).held


@pytest.mark.parametrize(
    ("modified", "judged"),
    [
        ("2026-11-23T00:00:00Z", True),
        ("2026-11-09T23:59:59Z", True),
        ("2026-11-08T23:59:59.5Z", False),
        ("", False),
        ("yesterday", False),
    ],
)
def test_an_old_dump_is_not_believed(tmp_path: Path, modified: str, judged: bool) -> None:
    step = vulnerabilities.judge(PINS, dump(tmp_path, {**CONTROL, "modified": modified}), False, NONE)
    assert (step.held, step.data["judged"]) == (judged, judged)


@pytest.mark.parametrize(
    "one", [[], "text", {"affected": 1}, {"affected": [{"package": None}]}, {"affected": [1]}]
)
def test_records_that_are_none_judge_nothing(tmp_path: Path, one: Any) -> None:
    assert not vulnerabilities.judge(PINS, dump(tmp_path, CONTROL, one), False, NONE).held


@pytest.mark.parametrize("records", [(), (record("celery", versions=["1"]),)])
def test_a_dump_that_does_not_know_the_control_is_not_believed(tmp_path: Path, records: Any) -> None:
    step = vulnerabilities.judge(PINS, dump(tmp_path, *records), False, NONE)
    assert (step.held, step.data["judged"]) == (False, False)
    assert ("CVE-2019-10906" if records else "no record of the last 14 days") in step.lines[1]


def test_a_dump_that_is_none_judges_nothing(tmp_path: Path) -> None:
    torn = tmp_path / "torn.zip"
    torn.write_bytes(dump(tmp_path, CONTROL).read_bytes()[:60])
    for path in (torn, tmp_path / "missing.zip"):
        assert not vulnerabilities.judge(PINS, path, False, NONE).held


class Audit:
    """Stands for pip-audit's process: it prints, and says nothing of how it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self.answer = answer
        self.asked: list[list[str]] = []
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        names = [line.split("==") for line in Path(command[-1]).read_text().split()]
        self.asked.append([name for name, _ in names])
        rows = [{"name": name, "version": version, **self.answer(name)} for name, version in names]
        return subprocess.CompletedProcess(command, 0, json.dumps({"dependencies": rows}), "")


def knows_control(name: str) -> dict[str, Any]:
    known = [{"id": "PYSEC-1", "aliases": ["CVE-2019-10906"]}] if name == "jinja2" else []
    return {"vulns": known}


def test_pip_audit_is_believed_when_it_knows_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit(monkeypatch, knows_control)
    pins = (*PINS, locks.Pin("celery", "5.6.0", ("y",)), locks.Pin("jinja2", "3.1.6", ("x",)))
    found = vulnerabilities.from_pip_audit(pins)
    assert [(one.package, one.version) for one in found] == [("jinja2", "3.1.6")]  # the stand-in says so
    assert all(len(names) == len(set(names)) for names in audit.asked)
    assert sorted(name for names in audit.asked for name in names) == [
        "celery",
        "celery",
        "jinja2",
        "jinja2",
        "redis",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        lambda name: {"vulns": []},
        lambda name: knows_control(name) if name != "redis" else {"skip_reason": "not found"},
    ],
    ids=["knows nothing", "leaves one out"],
)
def test_pip_audit_that_finds_nothing_for_want_of_data_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    Audit(monkeypatch, answer)
    step = vulnerabilities.judge(PINS, None, False, NONE)
    assert (step.held, step.data["judged"], len(step.data["reasons"])) == (False, False, 2)


def test_going_on_without_a_database_is_agreed_to_by_name_and_says_so(tmp_path: Path) -> None:
    step = vulnerabilities.judge(PINS, tmp_path / "missing.zip", True, NONE)
    assert step.held
    assert step.data["judged"] is False
    assert step.lines[0].startswith("NOT JUDGED")
