"""``verify evidence --platform nvidia`` takes the vendor's own forms, and names what was not checked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ephemeralml.attestation.nvidia import evidence_from
from ephemeralml.cli import main
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.exit_codes import NOT_JUDGED, OK, UNSOUND

from .test_corpus import MATCHING, NOW, REPORTS, read


def judged(
    capsys: pytest.CaptureFixture[str], data: bytes, folder: Path, *more: object
) -> tuple[int, dict[str, Any]]:
    file = folder / "evidence"
    file.write_bytes(data)
    words = ["verify", "evidence", file, "--platform", "nvidia", "--at", NOW, "--json", *more]
    with (
        patch.object(sys, "argv", ["ephemeralml", *map(str, words)]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out)


def recorded() -> bytes:
    return read(REPORTS[0][0]) + b"\n" + read(REPORTS[0][1])


def test_a_list_of_the_vendors_tools_is_judged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, report = judged(capsys, read("sdk/hopper_evidence.json"), tmp_path)
    assert (code, report["genuine"], report["platform"]) == (NOT_JUDGED, True, "nvidia")
    assert "MEASUREMENTS_NOT_COMPARED" in json.dumps(report["findings"])
    assert sha256(evidence_from(read("sdk/hopper_evidence.json"))).hex() in json.dumps(report)


def test_a_report_with_its_chain_and_manifests_is_judged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    collateral = tmp_path / "collateral"
    collateral.mkdir()
    for name in MATCHING:
        (collateral / name).write_bytes(read(f"nolicense/{name}"))
    code, report = judged(capsys, recorded(), tmp_path, "--collateral", collateral)
    assert (code, report["genuine"]) == (NOT_JUDGED, True)
    codes = json.dumps(report["findings"])
    assert "OCSP_NOT_CHECKED" in codes
    assert "MEASUREMENTS_NOT_COMPARED" not in codes


@pytest.mark.parametrize(
    ("accept", "exit_code", "wanted"), [(["local"], OK, True), (["nras"], UNSOUND, False)]
)
def test_a_policy_says_what_may_stay_unchecked(
    accept: list[str], exit_code: int, wanted: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    versions = {"name": "a", "architecture": "HOPPER", "driver": "550.90.07", "vbios": "96.00.9F.00.01"}
    rules = {"measurement_sets": [versions], "accept": accept, "rim": "UNCHECKED", "ocsp": "UNCHECKED"}
    policy = tmp_path / "policy.json"
    wants = {"version": "1", "platforms": {"nvidia": {**rules, "modes": "UNCHECKED"}}}
    policy.write_text(json.dumps(wants))
    code, report = judged(capsys, recorded(), tmp_path, "--policy", policy)
    assert (code, report["wanted"]) == (exit_code, wanted)


def test_a_bad_signature_is_unsound(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = read(REPORTS[2][0]) + b"\n" + read(REPORTS[2][1])
    code, report = judged(capsys, data, tmp_path)
    assert (code, report["genuine"], report["code"]) == (UNSOUND, False, "SIG_FAILED")
