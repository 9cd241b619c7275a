"""The owner's commands: what they print, and what each refusal ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ephemeralml.workers.model_cli import model_app

from .forge import SIGNER, make


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(model_app, [str(one) for one in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def sealed(folder: Path, tmp_path: Path) -> Path:
    make(folder, tmp_path / "m.eml")
    return tmp_path / "m.eml"


def test_verify_says_what_it_checked(sealed: Path) -> None:
    code, out, _ = run("verify", sealed, "--signer", SIGNER.hex())
    assert code == 0
    assert "contents" not in json.loads(out)["checked"]


@pytest.mark.parametrize(
    ("data", "more", "code", "word"),
    [
        (None, ("--signer", "00" * 32), 2, "MODEL_SIGNER_UNTRUSTED"),
        (None, ("--signer", SIGNER.hex(), "--manifest-hash", "00" * 32), 2, "MODEL_UNEXPECTED"),
        (slice(0, -1), ("--signer", SIGNER.hex()), 2, "PACKAGE_TRUNCATED"),
        (slice(0, 4), ("--signer", SIGNER.hex()), 2, "PACKAGE_TRUNCATED"),
        (None, ("--signer", "zz"), 78, "BAD_HEX"),
    ],
)
def test_verify_refuses_in_one_line(
    sealed: Path, data: slice | None, more: tuple[str, ...], code: int, word: str
) -> None:
    if data is not None:
        sealed.write_bytes(sealed.read_bytes()[data])
    found, out, error = run("verify", sealed, *more)
    assert (found, out) == (code, "")
    assert word in error
    assert error.count("\n") == 1


def test_what_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    for place in (tmp_path / "missing", f"file://{tmp_path}/missing"):
        code, _, error = run("verify", place, "--signer", SIGNER.hex())
        assert code == 3
        assert str(tmp_path) not in error


def test_published_package_verifies_from_its_url(sealed: Path, tmp_path: Path) -> None:
    code, out, _ = run("publish", sealed, "--to", f"file://{tmp_path}/store", "--signer", SIGNER.hex())
    assert code == 0
    told = json.loads(out)
    pin = told["worker"]["EPHEMERALML_WORKER_MODEL_MANIFEST_HASH"]
    assert told["policy"]["models"] == [{"id": "m", "manifest_hash": pin}]
    assert run("verify", told["url"], "--signer", SIGNER.hex(), "--manifest-hash", pin)[0] == 0


def test_broken_package_is_not_published(sealed: Path, tmp_path: Path) -> None:
    sealed.write_bytes(sealed.read_bytes()[:-1])
    code, _, _ = run("publish", sealed, "--to", f"file://{tmp_path}/store", "--signer", SIGNER.hex())
    assert code == 65
    assert not (tmp_path / "store").exists()
