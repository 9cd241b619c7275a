"""spec/vectors/policy against the verifier, and spec/policy-bundle.cddl against both."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pycddl
import pytest

from ephemeralml.attestation.policy_bundle import (
    PolicyBundle,
    Position,
    check_succession,
    make_policy_bundle,
    verify_policy_bundle,
)
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import Error

from ...vectors import generate_policy
from .samples import KEY, after, first, statement

SPEC = Path(__file__).resolve().parents[3] / "spec"
TEXT = (SPEC / "policy-bundle.cddl").read_text(encoding="utf-8")
RULES = ("policy-bundle", "policy-protected", "policy-payload")


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (SPEC / "vectors" / "policy" / f"{name}.json").read_text(encoding="utf-8")
    )
    return found


@lru_cache
def schema(rule: str) -> pycddl.Schema:
    return pycddl.Schema(f"start = {rule}\n{TEXT}")


def accepts(rule: str, data: bytes) -> bool:
    try:
        schema(rule).validate_cbor(data)
    except pycddl.ValidationError:
        return False
    return True


def follows(data: bytes) -> bool:
    """Whether a bundle and what its byte strings encode follow the grammar."""
    if not accepts("policy-bundle", data):
        return False
    message = decode_sign1(data)
    return accepts("policy-protected", message.protected_bytes) and accepts("policy-payload", message.payload)


def judge(vector: dict[str, Any]) -> PolicyBundle:
    bundle = verify_policy_bundle(
        bytes.fromhex(vector["bundle"]), bytes.fromhex(vector["policy_root"]), vector["now"]
    )
    if "held" in vector:
        held = vector["held"]
        check_succession(bundle, Position(held["name"], held["serial"], bytes.fromhex(held["digest"])))
    return bundle


@pytest.mark.parametrize("vector", vectors("valid"), ids=lambda vector: str(vector["name"]))
def test_valid_vectors(vector: dict[str, Any]) -> None:
    bundle = judge(vector)
    stated, wanted = bundle.statement, vector["statement"]
    for field in ("name", "serial", "issued_at", "not_before", "expires", "rollback_of"):
        assert getattr(stated, field) == wanted[field], field
    assert stated.policy.hex() == wanted["policy"]
    assert (None if stated.previous is None else stated.previous.hex()) == wanted["previous"]
    assert sha256(bundle.data).hex() == vector["sha256"]
    signer = generate_policy.key()
    assert make_policy_bundle(stated, signer) == bundle.data
    assert follows(bundle.data)


@pytest.mark.parametrize("vector", vectors("invalid"), ids=lambda vector: str(vector["name"]))
def test_invalid_vectors(vector: dict[str, Any]) -> None:
    with pytest.raises(Error) as caught:
        judge(vector)
    assert caught.value.code == vector["code"]


def test_what_is_wrong_in_structure_breaks_the_schema() -> None:
    """What only prose can say is accepted by the grammar; all else is refused by both."""
    prose = {
        *("POLICY_EXPIRED", "POLICY_NOT_YET_VALID", "POLICY_DOWNGRADE", "POLICY_FORKED", "POLICY_OTHER_NAME"),
        *("POLICY_HISTORY_BROKEN", "SIG_FAILED", "BAD_POLICY", "POLICY_NOT_CANONICAL", "BAD_POLICY_TIMES"),
        *("BAD_POLICY_HISTORY", "BAD_POLICY_NAME"),
    }
    # Of encoding, not of structure: what decoders refuse before any grammar is asked.
    encoding = {"trailing-byte", "long-tag", "unsorted"}
    # Written in the grammar; this validator does not see it.
    unseen = {"unprotected", "policy-text"}
    structure = [one for one in vectors("invalid") if one["name"] not in encoding | unseen]
    accepted = {one["name"] for one in structure if follows(bytes.fromhex(one["bundle"]))}
    assert accepted == {one["name"] for one in structure if one["code"] in prose}


@pytest.mark.parametrize("data", [first(), after(first()), after(after(first()), rollback_of=1)])
def test_what_the_code_makes_follows_the_schema(data: bytes) -> None:
    assert follows(data)
    assert accepts("policy-payload", statement().encode())
    assert make_policy_bundle(statement(), KEY) == first()


def test_every_rule_can_be_the_root() -> None:
    rules = [line.split(" = ")[0] for line in TEXT.splitlines() if " = " in line and line[0] not in " ;"]
    assert tuple(rules) == RULES
    for rule in rules:
        schema(rule)


def test_the_vectors_are_what_the_generator_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_policy, "FOLDER", tmp_path)
    generate_policy.main()
    for name in ("valid", "invalid"):
        kept = (SPEC / "vectors" / "policy" / f"{name}.json").read_bytes()
        assert (tmp_path / f"{name}.json").read_bytes() == kept
