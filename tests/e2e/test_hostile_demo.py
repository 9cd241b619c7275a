"""``demo --hostile``: every attempt of the host's is met as designed, and one that is not is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from rich.console import Console

from ephemeralml.producer.cli import demo_hostile
from ephemeralml.producer.cli.demo import Stage
from ephemeralml.producer.cli.demo_host import forms
from ephemeralml.producer.cli.demo_hostile import ATTEMPTS, Attempt, HostileDemo, Verdict, attempt, table
from ephemeralml.producer.cli.demo_scene import Met, NotMet, Scene
from ephemeralml.wire.errors import DeliveryError

NO_SCENE = cast("Scene", None)


def test_every_attempt_is_met_as_designed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ephemeralml", "demo", "--hostile", "--keep", str(tmp_path / "kept")],
        env={**os.environ, "COLUMNS": "120", "EPHEMERALML_WORKER_BACKEND": "noop"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for one in ATTEMPTS:
        (line,) = [line for line in lines if line.startswith(f"held {one.kind}: {one.did} ")]
        assert line.endswith(one.code) or not one.code, line
    assert f"all {len(ATTEMPTS)} attempts were met as designed" in done.stdout
    assert {"read", "swap", "replay", "drop", "re-route", "keys"} <= {one.kind for one in ATTEMPTS}


def through(_: Scene) -> Met:
    raise NotMet("it got through")


def ended(_: Scene) -> Met:
    raise DeliveryError("NOTHING_TAKEN", "the host found nothing")


def otherwise(_: Scene) -> Met:
    codes: list[str] = ["TWO", "CODES"]
    (code,) = codes
    return Met(code, "")


@pytest.mark.parametrize(
    ("act", "held"),
    [
        (lambda _: Met("CANNOT_OPEN", "refused"), True),
        (lambda _: Met("EXPIRED", "refused for another reason"), False),
        (lambda _: Met("", "not refused"), False),
        (through, False),
        (ended, False),
        (otherwise, False),
    ],
)
def test_only_the_designed_refusal_holds(
    act: Any, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = attempt(NO_SCENE, Attempt("change", "do harm", "CANNOT_OPEN", act))
    assert verdict.held is held
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    monkeypatch.setattr(demo_hostile, "OUT", console)
    shown = HostileDemo(Stage(), tmp_path, [verdict])
    if held:
        shown.report()
    else:
        with pytest.raises(typer.Exit) as ending:
            shown.report()
        assert ending.value.exit_code == 1
    console.file.close()
    assert ("NOT HELD" in console.export_text()) is not held


def test_the_table_names_each_kind_once_and_cuts_no_code() -> None:
    verdicts = [Verdict(one, Met(one.code, "as designed"), held=True) for one in ATTEMPTS]
    console = Console(width=80, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(verdicts))
    console.file.close()
    text = console.export_text()
    assert all(one.code in text for one in ATTEMPTS)
    for kind in {one.kind for one in ATTEMPTS}:
        assert sum(line.strip().startswith(f"{kind} ") for line in text.splitlines()) == 1


@pytest.mark.parametrize("shift", range(3))
def test_the_search_knows_base64_at_every_alignment(shift: int) -> None:
    import base64

    hidden = base64.b64encode(b"x" * shift + b"a secret that is searched" + b"tail")
    assert any(form in hidden for form in forms("a secret that is searched"))
