"""Provenance is of its formats, signed as DSSE says, and verified to the byte."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from .tool import HERE, NotHeld, artefacts, provenance

SEED = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
FILES = {"a-1.whl": b"wheel", "a-1.tar.gz": b"sdist"}
SOURCE = artefacts.Source("ab" * 20, 1_700_000_000, False)


def made(**more: Any) -> dict[str, Any]:
    """Return a statement about two small files."""
    value: dict[str, Any] = provenance.statement(
        SOURCE,
        FILES,
        {"locks/x.txt": b"lock"},
        started_at=1_700_000_000,
        ended_at=1_700_000_060,
        byproducts={"report.json": b"{}"},
    )
    return {**value, **more}


ENVELOPE = provenance.sign(provenance.encode(made()), SEED)


def test_the_statement_says_what_became_of_which_source() -> None:
    value = made()
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [one["name"] for one in value["subject"]] == sorted(FILES)
    assert all(set(one["digest"]) == {"sha256"} for one in value["subject"])
    definition = value["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"revision": SOURCE.revision}
    assert definition["internalParameters"]["SOURCE_DATE_EPOCH"] == "1700000000"
    commit, *others = definition["resolvedDependencies"]
    assert commit["digest"] == {"gitCommit": SOURCE.revision}
    assert {"file:locks/x.txt"} <= {one["uri"] for one in others}
    details = value["predicate"]["runDetails"]
    assert details["metadata"] == {"startedOn": "2023-11-14T22:13:20Z", "finishedOn": "2023-11-14T22:14:20Z"}


def test_the_envelope_is_signed_over_dsse_s_framing() -> None:
    value = json.loads(ENVELOPE)
    payload = base64.b64decode(value["payload"])
    framed = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    (signature,) = value["signatures"]
    key = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
    key.verify(base64.b64decode(signature["sig"]), framed)
    assert provenance.verify(ENVELOPE, PUBLIC) == made()


@given(place=st.integers(0, len(ENVELOPE) - 1), bit=st.integers(0, 7))
def test_no_changed_byte_changes_what_is_believed(place: int, bit: int) -> None:
    changed = bytearray(ENVELOPE)
    changed[place] ^= 1 << bit
    try:
        assert provenance.verify(bytes(changed), PUBLIC) == made()
    except NotHeld:
        return


@pytest.mark.parametrize(
    "statement",
    [
        made(_type="https://in-toto.io/Statement/v0.1"),
        made(predicateType="https://slsa.dev/provenance/v0.2"),
        made(predicate={"buildDefinition": {"buildType": "urn:other"}}),
        made(predicate=[]),
    ],
)
def test_a_signed_statement_of_another_kind_is_refused(statement: dict[str, Any]) -> None:
    with pytest.raises(NotHeld, match="provenance"):
        provenance.verify(provenance.sign(provenance.encode(statement), SEED), PUBLIC)


def test_keys_that_are_none_are_refused() -> None:
    with pytest.raises(NotHeld, match="32 bytes"):
        provenance.sign(b"{}", b"short")
    for key in (b"", bytes(32), PUBLIC[:-1] + b"\0"):
        with pytest.raises(NotHeld):
            provenance.verify(ENVELOPE, key)
    with pytest.raises(NotHeld, match="too large"):
        provenance.verify(b" " * (provenance.MAX_ENVELOPE_BYTES + 1), PUBLIC)


def verified(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run ``verify`` as a user does."""
    (folder / "p.json").write_bytes(ENVELOPE)
    command = [sys.executable, str(HERE), "verify", str(folder / "p.json"), "--public-key", PUBLIC.hex()]
    return subprocess.run(
        [*command, "--artefacts", str(folder), *more], capture_output=True, text=True, check=False
    )


def test_a_user_holds_files_against_it(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    done = verified(tmp_path, "--revision", SOURCE.revision)
    assert (done.returncode, SOURCE.revision in done.stdout) == (0, True), done.stderr


def test_files_of_another_build_or_revision_are_refused(tmp_path: Path) -> None:
    statement = made()
    with pytest.raises(NotHeld, match=r"a-1\.tar\.gz is not there"):
        provenance.check_files(statement, tmp_path, None)
    for name in FILES:
        (tmp_path / name).write_bytes(b"another")
    with pytest.raises(NotHeld, match="not what was built"):
        provenance.check_files(statement, tmp_path, None)
    with pytest.raises(NotHeld, match="of revision"):
        provenance.check_files(statement, tmp_path, "cd" * 20)
    done = verified(tmp_path)
    assert (done.returncode, done.stderr.startswith("error a-1.tar.gz")) == (1, True)
