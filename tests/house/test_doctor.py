"""Every code that ``doctor`` can say is in its document, and every code there can be said."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "producer" / "cli" / "doctor").glob("*.py"))
CODE = re.compile(r"[A-Z][A-Z0-9]+(_[A-Z0-9]+)*")
#: Functions that make findings: their first argument is a code.
MAKERS = {"Finding", "_asked", "_direct", "_not_asked"}
#: Codes that are put together: where their first part stands in the source.
MADE = {"DEVICE_", "EXTRA_", "HOST_", "KEY_POLICY_"}


def literals() -> set[str]:
    """Return all words of the doctor's source that are written as codes are."""
    trees = [ast.parse(path.read_text("utf-8")) for path in SOURCES]
    words = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {word for word in words if isinstance(word, str) and CODE.fullmatch(word)}


def said() -> set[str]:
    """Return the codes that stand in calls that make findings."""
    found: set[str] = set()
    for tree in (ast.parse(path.read_text("utf-8")) for path in SOURCES):
        for node in ast.walk(tree):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in MAKERS and node.args:  # type: ignore[attr-defined]
                first = node.args[0]  # type: ignore[attr-defined]
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


def documented() -> set[str]:
    """Return the codes in the first column of the document's tables."""
    page = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`([A-Z0-9_]+)", row)}


def test_codes_and_their_document_are_the_same() -> None:
    codes, page = said(), documented()
    assert len(codes) > 25
    assert codes <= page
    for code in page - codes:
        assert code in literals() or any(code.startswith(first) for first in MADE), code
