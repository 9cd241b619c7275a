"""The check as a whole: what is said, what the wheel's environment gets, what a user sees of mistakes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .tool import HERE, ROOT, NotHeld, installed, load, locks, step


def main_module() -> Any:
    """Return the command line's module."""
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location("release_main", HERE / "__main__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(HERE))


MAIN = main_module()
GOOD, BAD = step.Step("good", True, ()), step.Step("bad", False, ("why",))
DARK = step.Step("vulnerabilities", True, (), {"judged": False})
SEEN = step.Step("vulnerabilities", True, (), {"judged": True})


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([GOOD, SEEN], "may be released"),
        ([GOOD, DARK], "may be released, by agreement without a judgement of: vulnerabilities"),
        ([GOOD, BAD, SEEN], "NOT to be released"),
        ([BAD, DARK], "NOT to be released"),
    ],
)
def test_the_last_line_says_what_was_not_judged(steps: list[Any], said: str) -> None:
    assert MAIN._verdict(steps) == said


def test_a_step_is_told_with_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    steps: list[Any] = []
    MAIN._say(steps, BAD)
    assert capsys.readouterr().out == "FAIL bad\n     why\n"
    assert steps == [BAD]


def test_a_command_that_fails_says_how_it_ended() -> None:
    with pytest.raises(NotHeld, match=r"ended with 3: one \| two"):
        step.run([sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"])


def test_a_command_that_is_not_there_is_said() -> None:
    with pytest.raises(NotHeld, match="no-such-tool cannot be run: No such file"):
        step.run(["no-such-tool"])


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("a\n│ total │ 3 │\n└──┴──┘\n\n", "total │ 3"),
        ("5 passed in 1s", "5 passed in 1s"),
        ("", "said nothing"),
    ],
)
def test_the_last_line_that_says_something(text: str, last: str) -> None:
    assert installed._last(text) == last


def test_test_tools_cannot_move_what_is_locked(tmp_path: Path) -> None:
    lock = ROOT / "deploy" / "docker" / "locks" / "worker-cpu.txt"
    made = installed._without_hashes(lock, tmp_path).read_text().splitlines()
    assert made == [line for line in made if "hash" not in line and "\\" not in line]
    assert {tuple(line.split("==")) for line in made} == set(locks.pins(lock))


def test_the_wheels_tests_stand_beside_none_of_the_sources_modules(tmp_path: Path) -> None:
    place = installed._beside(ROOT, tmp_path)
    assert {path.name for path in place.iterdir()} == {"tests", "spec", "docs", "pyproject.toml", "README.md"}
    assert all((ROOT / suite).exists() for suite in installed.SUITES)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "usage"),
        (["check", "--revision", "no-such-revision", "--out", "OUT"], 1, "error git "),
        (["verify", "missing.json", "--public-key", "00", "--artefacts", "."], 1, "error cannot read"),
        (["verify", "missing.json", "--public-key", "xx", "--artefacts", "."], 1, "error cannot read"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    given = [str(tmp_path / "out") if one == "OUT" else one for one in arguments]
    done = subprocess.run([sys.executable, str(HERE), *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith(words)) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_results_of_an_earlier_check_go_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    MAIN._empty(out)
    (out / "ephemeralml-1.whl").write_bytes(b"old")
    MAIN._empty(out)
    assert list(out.iterdir()) == []
    (out / "ephemeralml-1.whl").write_bytes(b"old")
    (out / "thesis.odt").write_bytes(b"precious")
    with pytest.raises(NotHeld, match=r"thesis\.odt"):
        MAIN._empty(out)
    assert len(list(out.iterdir())) == 2


def test_every_module_of_the_tool_can_be_read_alone() -> None:
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__main__")
    assert names == sorted(
        ["artefacts", "exceptions", "installed", "licences", "locks", "provenance", "step", "vulnerabilities"]
    )
    assert all(load(name).__doc__ for name in names)
