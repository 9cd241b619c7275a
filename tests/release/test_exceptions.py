"""Exceptions are named, reasoned and dated; what has ended or excuses nothing fails a release."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from .tool import HERE, NotHeld, exceptions

GOOD = """
[[exception]]
kind = "vulnerability"
package = "Some_Package"
id = "CVE-2026-0001"
reason = "the function is not called by this project"
granted = 2026-11-01
until = 2026-12-01
"""


def read(tmp_path: Path, text: str, today: date = date(2026, 11, 23)) -> exceptions.Exceptions:
    """Read a file of exceptions."""
    path = tmp_path / "exceptions.toml"
    path.write_text(text)
    return exceptions.read_exceptions(path, today)


def test_a_finding_is_excused_by_id_or_alias_until_the_last_day(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD, date(2026, 12, 1))
    assert found.excuse("licence", "some-package", {"CVE-2026-0001"}) is None
    assert found.excuse("vulnerability", "other", {"CVE-2026-0001"}) is None
    assert found.excuse("vulnerability", "some.package", {"GHSA-x", "CVE-2026-0001"}) is not None
    assert found.faults({"vulnerability"}) == []


def test_what_has_ended_excuses_nothing_and_is_a_fault(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD, date(2026, 12, 2))
    assert found.excuse("vulnerability", "some-package", {"CVE-2026-0001"}) is None
    assert found.faults({"vulnerability"}) == [
        "exception for some-package (CVE-2026-0001): ended on 2026-12-01"
    ]


def test_what_excuses_nothing_is_a_fault_where_that_was_judged(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found.faults({"licence"}) == []
    assert found.faults({"vulnerability"}) == ["exception for some-package (CVE-2026-0001): excuses nothing"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "vulnerability"', 'kind = "other"'),
        ("until = 2026-12-01", "until = 2028-12-01"),
        ("until = 2026-12-01", "until = 2026-11-01"),
        ("until = 2026-12-01", 'until = "2026-12-01"'),
        ("until = 2026-12-01", "until = 2026-12-01T00:00:00"),
        ("until = 2026-12-01", ""),
        ("reason = ", "because = "),
        ("the function is not called by this project", "not called"),
        ("[[exception]]", "[[exception"),
        ("[[exception]]", "owner = 1\n[[exception]]\nextra = 1"),
    ],
)
def test_an_exception_that_is_not_of_its_form_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(NotHeld):
        read(tmp_path, GOOD.replace(old, new))


def test_the_projects_own_are_of_their_form() -> None:
    assert exceptions.read_exceptions(HERE / "exceptions.toml", date(2026, 11, 23)).all
