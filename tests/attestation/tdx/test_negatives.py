"""Quotes and collateral with one thing wrong are refused, each with its code."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.tdx import TdxEndorsements, from_files
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, Error

from .faults import FAULTS
from .forge import NOW, Forge, key_of, pair, trusting

BODY = 48
# Offsets in a quote of version 4: header 48, body 584, length 4, then signature, key, and the enclave's part.
SIGNATURE = BODY + 584 + 4
ENCLAVE = SIGNATURE + 64 + 64 + 6
SIGNED = {
    "user data": 28,
    "TCB SVNs": BODY,
    "MRSEAM": BODY + 16,
    "MRSIGNERSEAM": BODY + 64,
    "SEAM attributes": BODY + 112,
    "TD attributes": BODY + 120,
    "XFAM": BODY + 128,
    "MRTD": BODY + 136,
    "MRCONFIGID": BODY + 184,
    "MROWNER": BODY + 232,
    "MROWNERCONFIG": BODY + 280,
    **{f"RTMR{index}": BODY + 328 + 48 * index for index in range(4)},
    "REPORTDATA": BODY + 520,
    "the last byte": BODY + 583,
    "the signature": SIGNATURE,
    "the end of the signature": SIGNATURE + 63,
}
ENCLAVES = {
    "CPUSVN": 0,
    "MRENCLAVE": 64,
    "MRSIGNER": 128,
    "the product": 256,
    "the SVN": 258,
    "what it vouches for": 320,
    "its signature": 384,
    "the end of its signature": 447,
}


@cache
def genuine(version: int = 4) -> tuple[bytes, TdxEndorsements]:
    return pair(version)


def refused(quote: bytes, endorsements: TdxEndorsements, now: int = NOW) -> str:
    with pytest.raises(Error) as caught:
        verify(quote, endorsements, now)
    assert not isinstance(caught.value, ConfigurationError)
    return caught.value.code


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


@pytest.mark.parametrize("name", FAULTS)
def test_a_quote_or_collateral_with_one_thing_wrong_is_refused(name: str) -> None:
    forge, code = FAULTS[name]
    with pytest.raises(Error) as caught:
        verify(forge.quote(), trusting().with_files(forge.files()), NOW)
    assert caught.value.code == code


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 120


@pytest.mark.parametrize("name", SIGNED)
def test_what_the_attestation_key_signed_cannot_be_changed(name: str) -> None:
    quote, endorsements = genuine()
    assert refused(flipped(quote, SIGNED[name]), endorsements) == "SIG_FAILED"


@pytest.mark.parametrize("name", ENCLAVES)
def test_what_the_pck_key_signed_cannot_be_changed(name: str) -> None:
    quote, endorsements = genuine()
    assert refused(flipped(quote, ENCLAVE + ENCLAVES[name]), endorsements) == "QE_SIG_FAILED"


@pytest.mark.parametrize("offset", [SIGNATURE + 64, SIGNATURE + 127, ENCLAVE + 450])
def test_neither_key_nor_authentication_data_can_be_changed(offset: int) -> None:
    quote, endorsements = genuine()
    assert refused(flipped(quote, offset), endorsements) == "KEY_NOT_BOUND"


@pytest.mark.parametrize("size", [0, 1, 2, 8, 47, 48, 200, 631, 632, 635, 636, 700, 770, 1_000, 1_220, 2_000])
def test_a_quote_that_is_cut_is_refused(size: int) -> None:
    quote, endorsements = genuine()
    assert refused(quote[:size], endorsements) in {"TRUNCATED", "NOT_A_TDX_QUOTE"}


def test_a_quote_that_is_too_long_is_refused() -> None:
    quote, endorsements = genuine()
    assert refused(quote + bytes(32_768), endorsements) == "TOO_LARGE"


def test_zeros_may_follow_a_quote() -> None:
    quote, endorsements = genuine()
    verify(quote + bytes(2_000), endorsements, NOW)


def test_a_key_that_is_no_point_is_refused() -> None:
    """Only reached when an enclave vouches for it, which the genuine never does."""
    forge = Forge()
    bad = b"\xff" * 64
    quote = bytearray(replace(forge, qe={"report_data": sha256(bad + forge.auth_data) + bytes(32)}).quote())
    quote[SIGNATURE + 64 : SIGNATURE + 128] = bad
    assert refused(bytes(quote), forge.endorsements()) == "BAD_KEY"


@pytest.mark.parametrize("part", ["signature", "body", "enclave", "key"])
def test_parts_of_two_quotes_do_not_mix(part: str) -> None:
    mine, endorsements = genuine()
    theirs = Forge(report={"mrtd": bytes([9]) * 48}, auth_data=bytes(32)).quote()
    bounds = {
        "signature": (SIGNATURE, SIGNATURE + 64),
        "body": (BODY, BODY + 584),
        "enclave": (ENCLAVE, ENCLAVE + 448),
    }
    if part == "key":
        mixed = mine[: SIGNATURE + 64] + bytes(reversed(mine[SIGNATURE + 64 : SIGNATURE + 128]))
        mixed += mine[SIGNATURE + 128 :]
    else:
        start, end = bounds[part]
        mixed = mine[:start] + theirs[start:end] + mine[end:]
    assert refused(mixed, endorsements) == ("KEY_NOT_BOUND" if part in ("enclave", "key") else "SIG_FAILED")


MISSING = {
    "tcb_info.json": "NO_COLLATERAL",
    "qe_identity.json": "NO_COLLATERAL",
    "tcb_signing_chain.pem": "NO_COLLATERAL",
    "pck_crl.der": "NO_COLLATERAL",
    "root_ca_crl.der": "NO_COLLATERAL",
}


@pytest.mark.parametrize("name", MISSING)
def test_without_all_collateral_nothing_is_judged(name: str) -> None:
    files = Forge().files()
    del files[name]
    assert refused(genuine()[0], trusting().with_files(files)) == MISSING[name]


@pytest.mark.parametrize(("now", "code"), [(NOW - 2 * 86_400 - 1, "NOT_YET"), (NOW + 21 * 86_400, "EXPIRED")])
def test_collateral_of_another_time_is_refused(now: int, code: str) -> None:
    assert code in refused(*genuine(), now)


def test_our_root_is_nobodys_and_intels_is_not_ours() -> None:
    quote, _ = genuine()
    assert refused(quote, from_files(Forge().files())) == "UNKNOWN_ROOT"
    assert refused(quote, TdxEndorsements(roots=())) == "NO_ROOTS"


def test_a_self_signed_quote_is_refused() -> None:
    """Somebody plays all of Intel with keys of their own, and every name right."""
    certificates = {
        "root": {"key": "own"},
        "platform": {"key": "own", "signer": "own"},
        "pck": {"key": "own", "signer": "own"},
    }
    certificates["root"]["signer"] = "own"
    forge = Forge(certificates=certificates, signers={"qe": "own"})
    assert key_of("own") is not key_of("root")
    assert refused(forge.quote(), trusting().with_files(Forge().files())) == "UNKNOWN_ROOT"
    assert refused(forge.quote(), from_files(Forge().files())) == "UNKNOWN_ROOT"


def test_a_root_that_allows_no_ca_below_it_has_none() -> None:
    forge = Forge(certificates={"root": {"path_length": 0}})
    endorsements = TdxEndorsements(roots=(sha256(forge.certificate("root")),)).with_files(forge.files())
    assert refused(forge.quote(), endorsements) == "PATH_LENGTH"


def test_collateral_under_another_pinned_root_is_refused() -> None:
    """Whether its signer was revoked would be asked of the wrong list."""
    second = Forge(certificates={"root": {"serial": 99}})
    both = replace(trusting(), roots=(*trusting().roots, sha256(second.certificate("root"))))
    verify(second.quote(), both.with_files(second.files()), NOW)
    files = {**Forge().files(), "tcb_signing_chain.pem": second.files()["tcb_signing_chain.pem"]}
    assert refused(genuine()[0], both.with_files(files)) == "UNKNOWN_ROOT"


@pytest.mark.parametrize("version", [4, 5])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_changed_bytes_raise_only_our_errors(version: int, data: st.DataObject) -> None:
    quote, endorsements = genuine(version)
    changed = bytearray(quote)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(quote) - 1))] = data.draw(st.integers(0, 255))
    try:
        verify(bytes(changed), endorsements, NOW)
    except Error:
        return
    # Only bytes that nothing signs and nobody reads may differ: line ends in the PEM.
    assert changed[: ENCLAVE + 482] == quote[: ENCLAVE + 482]


@cache
def genuine_files() -> dict[str, bytes]:
    return Forge().files()


NAMES = ("tcb_info.json", "qe_identity.json", "tcb_signing_chain.pem", "pck_crl.der", "root_ca_crl.der")


@given(st.sampled_from(NAMES), st.data())
@settings(max_examples=60, deadline=None)
def test_changed_collateral_raises_only_our_errors(name: str, data: st.DataObject) -> None:
    files = genuine_files()
    changed = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        verify(genuine()[0], trusting().with_files({**files, name: bytes(changed)}), NOW)
    except Error:
        return
