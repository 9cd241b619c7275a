"""Policies: closed, whole, and refused in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ephemeralml.attestation import (
    DevelopmentRoot,
    Endorsements,
    TrustPolicy,
    endorsements_for,
    load_policy,
)
from ephemeralml.attestation.nitro import AWS_NITRO_ROOT_G1
from ephemeralml.wire.errors import MalformedError

A, B = "ab" * 48, "cd" * 48
ROOT = "12" * 32
SET = {"name": "release-1", "pcr0": A, "pcr1": B, "pcr2": A}


def policy(**changes: Any) -> dict[str, Any]:
    return {
        "version": "2026-11",
        "platforms": {
            "nitro": [SET],
            "simulated": {"dangerous_allow": True, "root_fingerprint": ROOT, "measurement_sets": [SET]},
        },
        "models": [{"id": "mini", "manifest_hash": "0f" * 32}],
        **changes,
    }


def load(value: object) -> TrustPolicy:
    return load_policy(json.dumps(value).encode())


def nitro(**changes: Any) -> dict[str, Any]:
    return policy(platforms={"nitro": [{**SET, **changes}]})


def simulated(**changes: Any) -> dict[str, Any]:
    base = {"dangerous_allow": True, "root_fingerprint": ROOT, "measurement_sets": [SET], **changes}
    return policy(platforms={"simulated": {k: v for k, v in base.items() if v is not ...}})


def test_defaults_are_closed() -> None:
    minimal = load({"version": "1"})
    assert minimal.platforms.nitro == ()
    assert minimal.platforms.simulated is None
    assert minimal.models == ()
    assert minimal.security_modes == ("production",)
    assert minimal.max_evidence_age_s == 86_400
    assert not minimal.dangerous_allow_debug
    assert endorsements_for(minimal) == Endorsements()


def test_a_policy_is_read_whole_and_written_back() -> None:
    loaded = load(policy())
    assert loaded.platforms.nitro[0].registers == {
        "pcr0": A,
        "pcr1": B,
        "pcr2": A,
        "pcr3": "UNCHECKED",
        "pcr4": "UNCHECKED",
        "pcr8": "UNCHECKED",
    }
    assert load_policy(loaded.to_json().encode()) == loaded
    assert endorsements_for(loaded).simulated.roots == (bytes.fromhex(ROOT),)
    assert endorsements_for(loaded).nitro.roots == (AWS_NITRO_ROOT_G1,)


def test_hexadecimal_may_be_upper_case() -> None:
    assert load(nitro(pcr0=A.upper())).platforms.nitro[0].pcr0 == A


def test_a_policy_is_frozen() -> None:
    loaded = load(policy())
    with pytest.raises(ValidationError):
        loaded.version = "2"  # type: ignore[misc]  # the property the test is about


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"version": ""},
        {"version": 1},
        {"version": "v" * 257},
        policy(extra=1),
        policy(security_modes=["debug"]),
        policy(security_modes="production"),
        policy(max_evidence_age_s=0),
        policy(max_evidence_age_s="60"),
        policy(max_evidence_age_s=60.5),
        policy(dangerous_allow_debug=1),
        policy(models=[{"id": "mini"}]),
        policy(models=[{"id": "mini", "manifest_hash": "0f" * 31}]),
        policy(models=[{"id": "", "manifest_hash": "0f" * 32}]),
        policy(platforms={"sgx": []}),
        policy(platforms={"nitro": [SET, SET]}),
        nitro(name=""),
        nitro(pcr0=A[:-1]),
        nitro(pcr0=A[:-2]),
        nitro(pcr0=A + "\n"),
        nitro(pcr0="unchecked"),
        nitro(pcr0=None),
        nitro(pcr5=A),
        nitro(pcr0="UNCHECKED", pcr2="UNCHECKED"),
        policy(platforms={"nitro": [{"name": "n", "pcr0": A, "pcr1": A}]}),
        simulated(dangerous_allow=False),
        simulated(dangerous_allow=...),
        simulated(dangerous_allow="true"),
        simulated(root_fingerprint=...),
        simulated(root_fingerprint="12" * 31),
        simulated(root_fingerprint=AWS_NITRO_ROOT_G1.hex()),
    ],
)
def test_a_wrong_policy_is_refused(value: object) -> None:
    with pytest.raises(MalformedError) as caught:
        load(value)
    assert caught.value.code == "BAD_POLICY"


def test_a_refusal_names_the_field_and_not_its_value() -> None:
    with pytest.raises(MalformedError, match=r"platforms\.nitro\.0\.pcr0") as caught:
        load(nitro(pcr0="secret-value"))
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"version": "1", "version": "2"}',
        b'{"version": "1"} x',
        b"[" * 100_000,
        b"1" * 5_000,
        b" " * (1 << 20) + b"{}",
    ],
    ids=["empty", "open", "no utf-8", "twice", "trailing", "deep", "long number", "large"],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="BAD_POLICY"):
        load_policy(data)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(MalformedError, match="BAD_POLICY"):
        load_policy(noise)


def test_a_signer_alone_may_be_checked() -> None:
    loaded = load(nitro(pcr0="UNCHECKED", pcr1="UNCHECKED", pcr2="UNCHECKED", pcr8=B))
    assert loaded.platforms.nitro[0].pcr8 == B


def test_a_roots_fingerprint_fits_a_policy() -> None:
    root = DevelopmentRoot.create()
    loaded = load(simulated(root_fingerprint=root.fingerprint.hex()))
    assert endorsements_for(loaded).simulated.roots == (root.fingerprint,)


@pytest.mark.parametrize("name", ["x" * 5000, "\x1b[2J", "a\nb", "a b", "", "é"])
def test_a_strange_name_in_a_policy_is_not_repeated(name: str) -> None:
    with pytest.raises(MalformedError) as caught:
        load_policy(json.dumps({"version": "1", name: 1}).encode())
    assert str(caught.value).startswith("BAD_POLICY: the policy is wrong at (a name): ")
    assert len(str(caught.value)) < 200
