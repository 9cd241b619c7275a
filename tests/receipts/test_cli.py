"""``verify`` as a command: exits 0 sound, 1 misuse, 2 unsound, 3 not judged, and what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from ephemeralml.cli import main
from ephemeralml.receipts.ear import verify_ear
from ephemeralml.receipts.issue import issue

from .samples import CLAIMS, EVALUATION, KEY, NOW, OTHER_PUBLIC, PUBLIC

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "air-v1"
BOUND = (
    *("--expect-request", CLAIMS.request_hash.hex(), "--expect-response", CLAIMS.response_hash.hex()),
    *("--expect-model", CLAIMS.model_hash.hex()),
)


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    """A sound receipt in a file."""
    (tmp_path / "receipt.air").write_bytes(issue(CLAIMS, KEY))
    return tmp_path / "receipt.air"


def verify(*words: object) -> int:
    arguments = ["ephemeralml", "verify", *map(str, words)]
    with patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def of(file: Path, *words: object, key: bytes = PUBLIC, at: object = NOW) -> int:
    return verify("receipt", file, "--public-key", key.hex(), "--at", at, *words)


def test_a_sound_receipt_exits_0(receipt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert of(receipt, "--json") == 0
    assert json.loads(capsys.readouterr().out)["level"] == "signature"
    assert of(receipt, "--json", *BOUND, at="2025-02-25T17:00:00+00:00") == 0
    assert json.loads(capsys.readouterr().out)["level"] == "bound"
    assert of(receipt, "--markdown") == 0
    assert capsys.readouterr().out.startswith("# Receipt verification")


def test_an_unsound_receipt_exits_2(receipt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert of(receipt, key=OTHER_PUBLIC) == 2
    assert "SIG_FAILED" in capsys.readouterr().out
    assert of(receipt, "--expect-model", "ff" * 32) == 2
    assert of(receipt, "--max-age", 1, at=NOW + 1000) == 2
    receipt.write_bytes(b"")
    assert of(receipt) == 2
    receipt.write_bytes(bytes(1 << 21))
    assert of(receipt) == 2
    receipt.write_bytes(issue(EVALUATION, KEY))
    assert of(receipt) == 2
    assert of(receipt, "--allow-evaluation") == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--expect-request", "xyz"],
        ["--expect-request", "00"],
        ["--at", "yesterday"],
        ["--max-age", "-1"],
        ["--max-age", "soon"],
        ["--evidence", "none"],
        ["--ear", "out"],
        ["--unknown"],
        ["--html", "no/such/folder/page.html"],
    ],
)
def test_misuse_exits_1(receipt: Path, words: list[str]) -> None:
    assert of(receipt, *words) == 1


def test_a_missing_file_a_short_key_and_a_policy_that_is_none_are_misuse(receipt: Path) -> None:
    assert of(receipt.parent / "none") == 1
    assert of(receipt, key=b"\x01") == 1
    bad = receipt.parent / "policy.json"
    bad.write_text("{")
    assert of(receipt, "--evidence", receipt, "--policy", bad) == 1
    assert verify("evidence", receipt, "--policy", bad) == 1
    assert verify("receipt") == 1


def test_evidence_that_is_none_is_unsound_and_an_unknown_platform_not_judged(receipt: Path) -> None:
    assert verify("evidence", receipt, "--at", NOW) == 2
    assert verify("evidence", receipt, "--platform", "abacus", "--at", NOW) == 3


def test_vectors_exit_0_1_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("vectors", VECTORS, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(list(VECTORS.glob("*.json")))
    assert all({"name", "verdict", "layer", "codes"} <= line.keys() for line in lines)
    vector = json.loads((VECTORS / "v1-wrong-key.json").read_text())
    mine = tmp_path / "mine.json"
    bare = {name: value for name, value in vector.items() if name != "expected"}
    mine.write_text(json.dumps([vector, bare]))
    assert verify("vectors", mine) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok    v1-wrong-key unsound layer 2 SIG_FAILED",
        "-     v1-wrong-key unsound layer 2 SIG_FAILED",
    ]
    mine.write_text(json.dumps([bare, {**vector, "expected": {"verdict": "sound"}}]))
    assert verify("vectors", mine) == 2
    for text in ("[]", "{}", "no JSON"):
        mine.write_text(text)
        assert verify("vectors", mine) == 1
    assert verify("vectors", tmp_path / "none") == 1


@pytest.mark.parametrize("seed", [b"\x07" * 32, b"07" * 32 + b"\n"])
def test_page_and_ear_are_written_also_for_an_unsound_receipt(receipt: Path, seed: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32).public_key().public_bytes_raw()
    page, ear, key = (receipt.parent / name for name in ("page.html", "verdict.ear", "seed"))
    key.write_bytes(seed)
    for signer, code, tier in ((PUBLIC, 0, "none"), (OTHER_PUBLIC, 2, "contraindicated")):
        assert of(receipt, "--html", page, "--ear", ear, "--ear-key", key, key=signer) == code
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
        assert verify_ear(ear.read_bytes(), public, NOW).tier == tier
    key.write_bytes(b"short")
    assert of(receipt, "--ear", ear, "--ear-key", key) == 1
