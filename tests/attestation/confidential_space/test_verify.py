"""Synthetic tokens: good ones verify, each with exactly one thing wrong is refused with its code."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.confidential_space import ConfidentialSpaceDetails
from ephemeralml.attestation.confidential_space.details import nonces_for
from ephemeralml.attestation.confidential_space.show import show
from ephemeralml.attestation.confidential_space.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import Error

from .faults import Fault, all_faults, resigned
from .forge import (
    DIGEST,
    HOUR,
    IMAGE,
    NOW,
    RECEIPT_KEY,
    good_chain,
    issuer,
    leaf,
    links,
    make_chain,
    oidc,
    pki,
    rsa_key,
)

FAULTS = all_faults()


def test_there_are_many_faults_and_each_has_a_name() -> None:
    assert len(FAULTS) >= 200
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_one_fault_is_refused_with_its_code(fault: Fault) -> None:
    with pytest.raises(Error) as caught:
        verify(fault.token(), fault.endorsements(), fault.now)
    assert caught.value.code == fault.code


@pytest.mark.parametrize("token", [oidc(), pki()], ids=["OIDC", "PKI"])
def test_good_tokens_verify_and_bind(token: bytes) -> None:
    verified = verify(token, issuer(), NOW + 5)
    details = ConfidentialSpaceDetails.of(verified)
    assert (verified.platform, verified.debug, verified.measurements) == ("confidential-space", False, None)
    assert (verified.issued_at, verified.not_before, verified.not_after) == (NOW, NOW, NOW + HOUR - 1)
    assert (details.image_digest, details.gpu_cc_mode) == (IMAGE, "ON")
    assert details.binds_key(RECEIPT_KEY)
    assert details.binds_announcement(DIGEST)
    assert not details.binds_key(b"x" * 32)
    assert not details.binds_announcement(b"x" * 32)
    assert not details.binds_nonce(DIGEST)


def test_the_anchor_is_the_root_or_the_key() -> None:
    anchors = [verify(token, issuer(), NOW).root_fingerprint for token in (oidc(), pki())]
    assert anchors == [issuer().keys[0].thumbprint, good_chain().endorsements.roots[0]]


@pytest.mark.parametrize("header", [{"typ": ...}, {"kid": "key-0"}], ids=["no type", "the older key"])
def test_what_may_differ_in_the_header(header: dict[str, object]) -> None:
    key = rsa_key("older" if "kid" in header else "issuer")
    assert verify(oidc(header=header, key=key), issuer(), NOW).issued_at == NOW


def test_a_leaf_may_say_that_it_signs_data() -> None:
    chain = make_chain([*links()[:2], leaf(key_usage=True, signs_certificates=False, signs_data=True)])
    assert verify(pki(chain), chain.endorsements, NOW).issued_at == NOW


def test_a_certificate_written_again_unchanged_verifies() -> None:
    """The control of those that are written again with a fault."""
    assert verify(resigned(lambda tbs: None), issuer(), NOW).issued_at == NOW


@pytest.mark.parametrize("serial", [0, -5])
def test_serial_numbers_are_held_to_the_profile_where_warnings_are_none(serial: int) -> None:
    """The library only warns, and only here is a warning an error."""

    def change(tbs: Any) -> None:
        tbs["serial_number"] = serial

    with warnings.catch_warnings(action="ignore"), pytest.raises(Error, match="BAD_CERTIFICATE"):
        verify(resigned(change), issuer(), NOW)


def test_the_shortest_certificate_limits_the_token() -> None:
    chain = make_chain([*links()[:2], leaf(window=(NOW - 5, NOW + 60))])
    verified = verify(pki(chain), chain.endorsements, NOW)
    assert (verified.not_before, verified.not_after) == (NOW, NOW + 60)


def test_a_certificate_that_begins_after_the_token_limits_it_too() -> None:
    root, intermediate, signer = links()
    intermediate.window = (NOW + 10, NOW + 60)
    chain = make_chain([root, intermediate, signer])
    verified = verify(pki(chain), chain.endorsements, NOW + 20)
    assert (verified.issued_at, verified.not_before, verified.not_after) == (NOW, NOW + 10, NOW + 60)


@pytest.mark.parametrize("status", ["enabled", "disabled", "Disabled-Since-Boot", "disabled-since-boot "])
def test_anything_but_disabled_since_boot_is_debug(status: str) -> None:
    assert verify(oidc({"dbgstat": status}), issuer(), NOW).debug


@pytest.mark.parametrize(
    "nonces", [..., [], "a challenge of text", ["n" * 8, "n" * 88]], ids=["none", "empty", "one", "two"]
)
def test_tokens_that_bind_nothing(nonces: object) -> None:
    details = ConfidentialSpaceDetails.of(verify(oidc({"eat_nonce": nonces}), issuer(), NOW))
    assert not details.binds_key(RECEIPT_KEY)
    assert not details.binds_announcement(DIGEST)
    assert not details.binds_nonce(b"")


def test_a_challenge_cannot_pass_as_a_key() -> None:
    """Whoever chooses the challenge chooses its bytes: the digest of a key of theirs, for one."""
    nonces = nonces_for(nonce=sha256(RECEIPT_KEY))
    details = ConfidentialSpaceDetails.of(verify(oidc({"eat_nonce": list(nonces)}), issuer(), NOW))
    assert details.binds_nonce(sha256(RECEIPT_KEY))
    assert not details.binds_key(RECEIPT_KEY)
    assert not details.binds_announcement(sha256(RECEIPT_KEY))


@pytest.mark.parametrize(
    "changes",
    [
        {"submods/nvidia_gpu": ..., "submods/gce": ...},
        {"submods/confidential_space/support_attributes": ..., "dbgstat": "enabled"},
        {"submods/container/env_override": ..., "google_service_accounts": ...},
        {"https://aws.amazon.com/tags": {"principal_tags": {}}, "tdx": []},
    ],
)
def test_what_a_token_may_lack_or_add(changes: dict[str, object]) -> None:
    token = oidc(changes)
    assert verify(token, issuer(), NOW).issued_at == NOW
    assert dict(show(token))["image"] == IMAGE


TOKENS = (oidc(), pki())


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(TOKENS), st.data())
def test_no_changed_token_verifies(token: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    edit = data.draw(st.sampled_from(["flip", "drop", "insert", "cut", "swap"]))
    other = data.draw(st.integers(0, len(token) - 1))
    octet = data.draw(st.integers(1, 255))
    changed = bytearray(token)
    if edit == "flip":
        changed[place] ^= octet
    elif edit == "drop":
        del changed[place]
    elif edit == "insert":
        changed.insert(place, octet)
    elif edit == "cut":
        del changed[place:]
    else:
        changed[place], changed[other] = changed[other], changed[place]
    if bytes(changed) == token:
        return
    with pytest.raises(Error):
        verify(bytes(changed), issuer(), NOW)
