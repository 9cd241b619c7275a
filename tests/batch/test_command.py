"""``ephemeralml verify batch``: verdicts and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ephemeralml import cli
from ephemeralml.receipts.inclusion import verify_inclusion_receipt

from .samples import PUBLIC, file, head, outcomes, sealed

TEN = outcomes(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "s").write_bytes(sealed(TEN))
    (tmp_path / "o").write_bytes(file(TEN).getvalue())
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["ephemeralml", "verify", "batch", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_a_sound_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["s", "--public-key", PUBLIC.hex(), "--outcomes", "o", "--item", "4", "--json", "--signatures"]
    words += ["--input-root", head(10).input_root.hex(), "--receipt-out", "r"]
    assert run(monkeypatch, folder, *words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["items"], report["item_status"]) == ("sound", 10, "failed")
    assert report["outcome_signatures"] == "all checked"
    assert verify_inclusion_receipt((folder / "r").read_bytes(), TEN[4], PUBLIC).index == 4


def test_what_was_not_checked_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, folder, "s", "--public-key", PUBLIC.hex(), "--outcomes", "o") == 0
    assert capsys.readouterr().out.count("not checked") == 3


def test_an_unsound_batch_names_the_item(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "o").write_bytes(file([*TEN[:6], *TEN[7:]], head(10)).getvalue())
    assert run(monkeypatch, folder, "s", "--public-key", PUBLIC.hex(), "--outcomes", "o", "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["code"], report["detail"]) == ("unsound", "DROPPED", "DROPPED item 6")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["s", "--public-key", "00", "--outcomes", "o"], 1),
        (["s", "--public-key", PUBLIC.hex()], 1),
        (["s", "--public-key", PUBLIC.hex(), "--outcomes", "o", "--receipt-out", "r"], 1),
        (["o", "--public-key", PUBLIC.hex(), "--outcomes", "o"], 2),
        (["s", "--public-key", PUBLIC.hex(), "--outcomes", "s"], 2),
        (["none", "--public-key", PUBLIC.hex(), "--outcomes", "o"], 3),
        (["s", "--public-key", PUBLIC.hex(), "--outcomes", "none"], 3),
    ],
)
def test_exit_codes(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int) -> None:
    assert run(monkeypatch, folder, *words) == code
