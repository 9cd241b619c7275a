"""Every locked package's licence is known and allowed, or excused; what is unknown is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from .tool import HERE, ROOT, NotHeld, exceptions, licences, locks

RULES = licences.read_rules(HERE / "licences.toml")
NONE = exceptions.Exceptions([], date(2026, 11, 23))


def row(expression: str = "UNKNOWN", text: str = "UNKNOWN", classifier: str = "UNKNOWN") -> dict[str, str]:
    """Return what pip-licenses prints of a package."""
    return {"License-Expression": expression, "License-Metadata": text, "License-Classifier": classifier}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (row("MIT"), "MIT"),
        (row("MIT", "GPL-3.0-only", "BSD License"), "MIT"),
        (row(text="Apache 2.0"), "Apache-2.0"),
        (
            row(text="Dual License", classifier="Apache Software License; BSD License"),
            "Apache-2.0 OR BSD-3-Clause",
        ),
        (row(text="Copyright (c) somebody, all rights reserved", classifier="BSD License"), "BSD-3-Clause"),
        (row(text="Whatever"), "UNKNOWN"),
        (row(), "UNKNOWN"),
    ],
)
def test_a_package_says_what_it_is_under(said: dict[str, str], meant: str) -> None:
    assert licences.expression(said, RULES) == meant


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("(GPL-3.0-only OR MIT) AND AGPL-3.0-only", False),
        ("MIT OR GPL-3.0-only AND AGPL-3.0-only", True),
        ("(MIT OR GPL-3.0-only) AND AGPL-3.0-only", False),
        ("GPL-3.0-only AND AGPL-3.0-only OR (MIT AND (ISC OR GPL-3.0-only))", True),
        ("mit and apache-2.0", True),
        ("MIT WITH LLVM-exception", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("LGPL-3.0-only", False),
        ("LicenseRef-NVIDIA-Proprietary", False),
        ("UNKNOWN", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_alternatives_need_one_and_conjunctions_all(text: str, may: bool) -> None:
    assert licences.allowed(text, RULES) is may


def test_only_what_is_excused_by_its_licence_passes() -> None:
    pins = [locks.Pin(name, "1", ("x",)) for name in ("free", "bound", "dark", "recorded")]
    found = {("free", "1"): row("MIT"), ("bound", "1"): row("GPL-3.0-only"), ("dark", "1"): row()}
    rules = licences.Rules(RULES.allowed, RULES.spellings, {("recorded", "1"): "MIT", ("dark", "2"): "MIT"})
    step = licences.check(pins, found, rules, NONE)
    assert not step.held
    assert step.data["faults"] == [
        "bound 1 (x): GPL-3.0-only is not allowed",
        "dark 1 (x): UNKNOWN is not allowed",
    ]
    day = date(2026, 11, 23)
    excused = [
        exceptions.Excuse("licence", name, text, "a reason of enough words", day, day)
        for name, text in (("bound", "GPL-3.0-only"), ("dark", "UNKNOWN"))
    ]
    again = licences.check(pins, found, rules, exceptions.Exceptions(excused, day))
    assert again.data["faults"] == ["dark 1 (x): UNKNOWN is not allowed"]


def test_the_locks_of_this_project_are_pins_with_hashes() -> None:
    pins = locks.read_locks(ROOT / "deploy" / "docker" / "locks")
    assert {"celery", "cryptography", "torch"} <= {pin.name for pin in pins}
    recorded = {name for name, _ in RULES.recorded}
    assert recorded <= {pin.name for pin in pins}, "recorded licences of packages that nothing locks"


@pytest.mark.parametrize(
    "line", ["celery", "celery>=5 --hash=sha256:" + "0" * 64, "celery==5", "-e .", "--index-url x"]
)
def test_a_lock_with_anything_else_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.txt").write_text(f"# a comment\n{line}\n")
    with pytest.raises(NotHeld):
        locks.read_locks(tmp_path)


def test_no_locks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotHeld, match="no locks"):
        locks.read_locks(tmp_path)
