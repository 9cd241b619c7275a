"""The threat model names the tests that show each control; each of them exists, runs and is not skipped."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "threat-model.md"
NODE = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
COLUMNS = ["threat", "control", "what remains", "shown by"]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of the page's tables of threats."""
    part = text.split("## What may be tried, and what stops it", 1)[1].split("\n## ", 1)[0]
    found = []
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells != COLUMNS and not set(line) <= set("|-"):
            found.append(cells)
    return found


THREATS = rows(PAGE.read_text(encoding="utf-8"))
NAMED = sorted({node for cells in THREATS for node in NODE.findall(cells[-1])})


@cache
def functions_in(path: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the test functions of a file, by name."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {one.name: one for one in functions}


def never_runs(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a test is marked as skipped or as expected to fail, or holds nothing."""
    marks = " ".join(ast.unparse(decorator) for decorator in test.decorator_list)
    body = [
        one for one in test.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]
    return bool(re.search(r"\bmark\.(skip|xfail)\b", marks)) or all(isinstance(one, ast.Pass) for one in body)


@pytest.mark.parametrize("cells", THREATS, ids=lambda cells: re.sub(r"\W+", "-", cells[0])[:60])
def test_every_threat_has_a_control_and_tests(cells: list[str]) -> None:
    threat, control, _, shown = cells
    assert threat
    assert control
    nodes = NODE.findall(shown)
    assert nodes, "no test shows it"
    assert len(nodes) == shown.count("`") // 2, "a test is not named as pytest takes it"


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_every_named_test_exists_and_runs(path: str, name: str) -> None:
    assert (ROOT / path).is_file(), f"there is no {path}"
    assert name in functions_in(path), f"{path} has no {name}"
    assert not never_runs(functions_in(path)[name])


def test_there_is_a_page_to_hold() -> None:
    assert len(THREATS) > 50
    assert len(NAMED) > 100
    assert len({cells[0] for cells in THREATS}) == len(THREATS), "a threat twice"


@pytest.mark.parametrize(
    ("source", "never"),
    [
        ("def test_a():\n    assert f()", False),
        ("@pytest.mark.parametrize('a', [1])\ndef test_a(a):\n    assert a", False),
        ("@pytest.mark.skip\ndef test_a():\n    assert f()", True),
        ("@pytest.mark.skip(reason='x')\ndef test_a():\n    assert f()", True),
        ("@pytest.mark.xfail(strict=True)\ndef test_a():\n    assert f()", True),
        ("def test_a():\n    'says much'\n    pass", True),
        ("async def test_a():\n    '''says much'''", True),
    ],
)
def test_what_never_runs_is_seen(source: str, never: bool) -> None:
    (test,) = ast.parse(source).body
    assert isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
    assert never_runs(test) is never
