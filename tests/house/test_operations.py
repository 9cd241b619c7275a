"""The operations page names every alert that the rules hold, and the tests that it speaks of exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_alert_has_a_line_that_says_what_to_do() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"^ *- alert: (\w+)$", rules, re.MULTILINE)
    assert len(alerts) > 10
    rows = [line for line in PAGE.splitlines() if line.startswith("| `Ephemeralml")]
    named = [name for row in rows for name in re.findall(r"`(Ephemeralml\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(alerts)
    assert all(len(row.split("|")) == 5 and row.split("|")[3].strip() for row in rows)


def test_tests_that_the_page_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert named
    assert all((ROOT / name).is_file() for name in named)
