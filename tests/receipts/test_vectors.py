"""The published vectors, ours, and the generator of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ephemeralml.receipts.checks import CHECKS
from ephemeralml.receipts.vectors import run_vectors
from ephemeralml.wire.errors import ConfigurationError, MalformedError

from ..corpus import corpus
from ..vectors import generate_air

OURS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "air-v1"


def test_the_ten_published_vectors_give_their_layer_and_code() -> None:
    results = list(run_vectors(corpus("air-v1")))
    assert len(results) == 10
    assert [result.name for result in results if not result.passed] == []


def test_all_of_ours_give_their_layer_check_and_code() -> None:
    results = list(run_vectors(OURS))
    assert len(results) >= 40
    assert [(one.name, one.layer, one.code) for one in results if not one.passed] == []


def test_the_generator_makes_the_published_receipts_byte_for_byte() -> None:
    for file in sorted(corpus("air-v1").rglob("*.json")):
        published = json.loads(file.read_text())
        ours = json.loads((OURS / file.name).read_text())
        for field in ("receipt_hex", "public_key_hex", "wrong_public_key_hex"):
            assert ours.get(field) == published.get(field), (file.name, field)


def test_the_committed_vectors_are_what_the_generator_makes() -> None:
    committed = {file.name: file.read_text(encoding="utf-8") for file in OURS.glob("*.json")}
    assert committed == generate_air.files()


def test_every_check_of_the_four_layers_has_a_vector_but_replay() -> None:
    failing = {
        (vector["expected"]["layer"], vector["expected"]["check"])
        for vector in map(json.loads, generate_air.files().values())
        if "layer" in vector["expected"]
    }
    every = {(layer, name) for layer, names in CHECKS.items() if layer < 5 for name in names}
    assert every - failing == {(4, "REPLAY")}


def test_a_list_of_vectors_is_run_in_its_order(tmp_path: Path) -> None:
    ours = [json.loads(file.read_text()) for file in sorted(OURS.glob("*.json"))]
    (tmp_path / "all.json").write_text(json.dumps(ours))
    results = list(run_vectors(tmp_path / "all.json"))
    assert [result.name for result in results] == [vector["name"] for vector in ours]
    assert all(result.passed for result in results)


def test_a_vector_without_expectation_is_judged_all_the_same(tmp_path: Path) -> None:
    vector = json.loads((OURS / "v1-wrong-alg.json").read_text())
    bare = {name: vector[name] for name in ("receipt_hex", "public_key_hex")}
    (tmp_path / "mine.json").write_text(json.dumps([bare, {**bare, "receipt_hex": "00", "now": "never"}]))
    first, second = run_vectors(tmp_path)
    assert (first.name, first.passed, first.layer, first.code) == ("mine#1", None, 1, "BAD_ALG")
    assert (second.name, second.passed, second.code) == ("mine#2", None, "COSE_DECODE_FAILED")


def test_a_vector_that_does_not_come_out_is_reported(tmp_path: Path) -> None:
    vector = json.loads((OURS / "v1-wrong-alg.json").read_text())
    for expected in ({"verdict": "sound"}, {**vector["expected"], "check": "SIG"}):
        (tmp_path / "one.json").write_text(json.dumps({**vector, "expected": expected}))
        assert [result.passed for result in run_vectors(tmp_path)] == [False]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[1]",
        "{}",
        '{"receipt_hex": 1}',
        '{"receipt_hex": "0", "public_key_hex": "00"}',
        '{"receipt_hex": "", "public_key_hex": "00", "verify_policy": []}',
        '{"receipt_hex": "", "public_key_hex": "00", "verify_policy": {"unknown": 1}}',
        '{"receipt_hex": "", "public_key_hex": "00", "verify_policy": {"max_age_secs": "1"}}',
        '{"receipt_hex": "", "public_key_hex": "00", "expected": "valid"}',
        '{"receipt_hex": "", "public_key_hex": "00", "expected": {"verdict": "unsound"}}',
    ],
)
def test_what_is_no_vector_has_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(MalformedError, match="BAD_VECTOR"):
        list(run_vectors(tmp_path / "bad.json"))


def test_an_empty_folder_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="NO_VECTORS"):
        list(run_vectors(tmp_path))
