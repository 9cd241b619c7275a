"""``verify evidence`` on TDX quotes recorded on hardware, with the vendor's collateral in a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ephemeralml.cli import main

from ..corpus import corpus

PHALA = ("phala_v4_b0c06f.quote", "mit_b0c06f_2025-06-19", 1751624191)
OUT_OF_DATE = ("zkdcap_v4_00806f050000_OutOfDate.quote", "mit_00806f050000_2025-07-07", 1753175614)
DEBUG = ("trustee_v4_50806f_DEBUG.quote", "mit_50806f_2026-03-16", 1774995904)


def run(*words: object) -> int:
    with patch.object(sys, "argv", ["ephemeralml", *map(str, words)]), pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def judged(
    capsys: pytest.CaptureFixture[str], row: tuple[str, str, int], *words: object
) -> tuple[int, dict[str, Any]]:
    quote, folder, at = row
    collateral = corpus(f"tdx/collateral/{folder}")
    given = ("--collateral", collateral, "--at", at, "--json", *words)
    code = run("verify", "evidence", corpus(f"tdx/{quote}"), *given)
    return code, json.loads(capsys.readouterr().out)


def test_a_quote_of_an_up_to_date_platform_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = judged(capsys, PHALA)
    assert (code, report["platform"], report["platform_guessed"]) == (0, "tdx", True)
    assert (report["genuine"], report["status"], report["findings"]) == (True, "UpToDate", [])
    assert report["measurements"]["kind"] == "tdx-mrtd-rtmr"


def test_a_platform_that_is_out_of_date_exits_2_without_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = judged(capsys, OUT_OF_DATE)
    assert (code, report["genuine"], report["status"]) == (2, True, "OutOfDate")
    assert any(finding["code"].startswith("TCB_") for finding in report["findings"])


def test_a_debug_td_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = judged(capsys, DEBUG)
    assert (code, report["debug"]) == (2, True)


def test_without_collateral_it_could_not_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    quote, _, at = PHALA
    assert run("verify", "evidence", corpus(f"tdx/{quote}"), "--at", at, "--json") == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["genuine"], report["code"]) == (None, "NO_COLLATERAL")


def test_collateral_of_another_time_or_broken_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quote, folder, at = PHALA
    assert judged(capsys, (quote, folder, at + 365 * 86_400))[0] == 3
    (tmp_path / "collateral.json").write_bytes(b"{")
    given = ("--collateral", tmp_path, "--at", at, "--json")
    assert run("verify", "evidence", corpus(f"tdx/{quote}"), *given) == 2


def test_a_quote_is_shown_with_its_registers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("attest", "show", corpus(f"tdx/{PHALA[0]}")) == 0
    said = capsys.readouterr().out
    assert said.startswith("NOT VERIFIED")
    for words in ("tdx", "MRTD", "RTMR3"):
        assert words in said
