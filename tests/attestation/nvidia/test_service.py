"""Answers of the vendor's service with exactly one thing wrong; each is refused with its code."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nvidia import NvidiaDetails, NvidiaEndorsements
from ephemeralml.attestation.nvidia.jwks import MAX_JWKS_BYTES, read_jwks
from ephemeralml.attestation.nvidia.show import show
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.attestation.verify import stated_time
from ephemeralml.wire.encoding import encode, sha256
from ephemeralml.wire.errors import EndorsementsError, Error

from .forge import DAY, DRIVER, NONCE, NOW, VBIOS, Cert, issue
from .service import (
    KID,
    NAME,
    answer,
    authority,
    base64url,
    device_claims,
    endorsements,
    jwk,
    jwks,
    make_evidence,
    signer,
    signer_with,
    token,
)

GPU = "x-nvidia-gpu-"


def judge(value: object = None, given: NvidiaEndorsements | None = None, now: int = NOW) -> VerifiedEvidence:
    return verify(make_evidence(value), given or endorsements(), now)


def refused(value: object = None, given: NvidiaEndorsements | None = None, now: int = NOW) -> str:
    with pytest.raises(Error) as caught:
        judge(value, given, now)
    return caught.value.code


def test_a_good_answer_verifies() -> None:
    verified = judge()
    details = NvidiaDetails.of(verified)
    (found,) = details.devices
    assert (details.way, details.result, details.nonce) == ("nras", True, NONCE)
    assert (found.driver, found.vbios, found.mode, found.architecture) == (DRIVER, VBIOS, "spt", "HOPPER")
    assert found.objections == ()
    assert found.revocation_checked
    assert found.firmware_bound
    assert verified.findings == ()
    assert (verified.issued_at, verified.not_before, verified.not_after) == (NOW, NOW, NOW + 3600)
    assert verified.root_fingerprint == sha256(authority().certificate)
    assert stated_time("nvidia", make_evidence()) == NOW
    assert dict(show(make_evidence()))["overall result"] == "good"
    assert details.binds_nonce(NONCE)


def test_it_is_judged_while_it_lasts() -> None:
    for now in (NOW - 300, NOW, NOW + 3600):
        judge(now=now)
    assert refused(now=NOW - 301) == "TOKEN_NOT_YET_VALID"
    assert refused(now=NOW + 3601) == "TOKEN_EXPIRED"


def test_several_devices_are_all_read() -> None:
    second = token(device_claims(**{f"{GPU}driver-version": "1.2"}))
    found = NvidiaDetails.of(judge(answer(token(device_claims()), second))).devices
    assert [device.driver for device in found] == [DRIVER, "1.2"]


def test_a_device_may_have_its_own_key() -> None:
    other = signer_with()
    header = {"kid": "other", "alg": "ES384"}
    value = answer(token(device_claims(), key=other, header=header))
    judge(value, endorsements(jwk(), jwk(other, "other")))
    assert refused(value) == "UNKNOWN_KEY_ID"


def _with(**overall: object) -> Callable[[], object]:
    return lambda: answer(overall=overall)


def _device(**changes: object) -> Callable[[], object]:
    return lambda: answer(token(device_claims(**changes)))


def _second(value: list[Any], text: object) -> object:
    return [value[0], {"GPU-0": text}]


def _unsigned() -> object:
    parts = [base64url(json.dumps(part).encode()) for part in ({"kid": KID, "alg": "none"}, device_claims())]
    return answer(".".join([*parts, "AA"]))


def _hmac() -> object:
    return answer(token(device_claims(), header={"kid": KID, "alg": "HS384"}))


def _left_out() -> object:
    value = answer(token(device_claims()), token(device_claims(jti="b")))
    del value[1]["GPU-1"]
    return value


def _put_in() -> object:
    value = answer()
    value[1]["GPU-1"] = token(device_claims())
    return value


def _swapped() -> object:
    value = answer(token(device_claims()), token(device_claims(jti="b")))
    value[1] = {"GPU-0": value[1]["GPU-1"], "GPU-1": value[1]["GPU-0"]}
    return value


ANSWERS: list[tuple[str, Callable[[], object], str]] = [
    ("an object", dict, "BAD_ANSWER"),
    ("an empty list", list, "BAD_ANSWER"),
    ("three parts", lambda: [*answer(), 0], "BAD_ANSWER"),
    ("no devices", lambda: [answer()[0], {}], "BAD_ANSWER"),
    ("nine devices", lambda: [answer()[0], {f"GPU-{n}": "a" for n in range(9)}], "BAD_ANSWER"),
    ("another mark", lambda: [["CWT", answer()[0][1]], answer()[1]], "BAD_ANSWER"),
    ("a switch", lambda: answer(names=("SWITCH-0",)), "BAD_ANSWER"),
    ("a device named otherwise", lambda: answer(names=("GPU-8",)), "BAD_ANSWER"),
    ("a number for a token", lambda: _second(answer(), 7), "BAD_ANSWER"),
    ("a token of two parts", lambda: _second(answer(), "a.b"), "BAD_JWT"),
    ("a token that is not base64", lambda: _second(answer(), "a.b.*"), "BAD_BASE64"),
    ("a token without JSON", lambda: _second(answer(), "AAAA.AAAA.AAAA"), "BAD_JSON"),
    ("no key id", lambda: answer(header={"alg": "ES384"}), "BAD_ANSWER"),
    ("a key id with spaces", lambda: answer(header={"alg": "ES384", "kid": "a b"}), "BAD_ANSWER"),
    ("a key of its own", lambda: answer(header={"alg": "ES384", "kid": KID, "jwk": {}}), "BAD_ANSWER"),
    ("a chain of its own", lambda: answer(header={"alg": "ES384", "kid": KID, "x5c": []}), "BAD_ANSWER"),
    ("a critical header", lambda: answer(header={"alg": "ES384", "kid": KID, "crit": ["x"]}), "BAD_ANSWER"),
    ("no signature", _unsigned, "BAD_ALG"),
    ("HMAC", _hmac, "BAD_ALG"),
    ("another algorithm", lambda: answer(header={"kid": KID, "alg": "ES256"}), "BAD_ALG"),
    ("no issuer", _with(iss=...), "BAD_ANSWER"),
    ("another issuer", _with(iss="https://nras.example"), "WRONG_ISSUER"),
    ("a device's other issuer", _device(iss="https://nras.example"), "WRONG_ISSUER"),
    ("no time", _with(iat=...), "BAD_ANSWER"),
    ("a time as text", _with(nbf=str(NOW)), "BAD_ANSWER"),
    ("a time true", _with(exp=True), "BAD_ANSWER"),
    ("a time of 0", _with(iat=0), "BAD_ANSWER"),
    ("a time beyond", _with(exp=253_402_300_800), "BAD_ANSWER"),
    ("a fraction of a second", _with(iat=NOW + 0.5), "BAD_ANSWER"),
    ("an end before its start", _with(exp=NOW - 1), "BAD_ANSWER"),
    ("a start to come", _with(nbf=NOW + 301), "TOKEN_NOT_YET_VALID"),
    ("made in the future", _with(iat=NOW + 301), "TOKEN_NOT_YET_VALID"),
    ("a device's end", _device(iat=NOW - 9, nbf=NOW - 9, exp=NOW - 1), "TOKEN_EXPIRED"),
    ("no nonce", _with(eat_nonce=...), "BAD_ANSWER"),
    ("a short nonce", _with(eat_nonce="00"), "BAD_ANSWER"),
    ("two nonces", _with(eat_nonce=[NONCE.hex()]), "BAD_ANSWER"),
    ("a device's other nonce", _device(eat_nonce="00" * 32), "NONCE_MISMATCH"),
    ("no result", _with(**{"x-nvidia-overall-att-result": ...}), "BAD_ANSWER"),
    ("a result as text", _with(**{"x-nvidia-overall-att-result": "true"}), "BAD_ANSWER"),
    ("a result of 1", _with(**{"x-nvidia-overall-att-result": 1}), "BAD_ANSWER"),
    ("no digests", _with(submods=...), "BAD_ANSWER"),
    ("digests in a list", lambda: answer(submods=[]), "BAD_ANSWER"),
    (
        "a digest of another kind",
        lambda: answer(submods={"GPU-0": ["DIGEST", ["SHA-1", "0" * 64]]}),
        "BAD_ANSWER",
    ),
    ("a short digest", lambda: answer(submods={"GPU-0": ["DIGEST", ["SHA-256", "00"]]}), "BAD_ANSWER"),
    (
        "another digest",
        lambda: answer(submods={"GPU-0": ["DIGEST", ["SHA-256", "0" * 64]]}),
        "SUBMODULE_MISMATCH",
    ),
    ("no digest for it", lambda: answer(submods={}), "SUBMODULE_MISMATCH"),
    ("a device left out", _left_out, "SUBMODULE_MISMATCH"),
    ("a device put in", _put_in, "SUBMODULE_MISMATCH"),
    ("devices swapped", _swapped, "SUBMODULE_MISMATCH"),
    (
        "a device of another answer",
        lambda: _second(answer(), token(device_claims(jti="b"))),
        "SUBMODULE_MISMATCH",
    ),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_a_bad_answer_is_refused(make: Callable[[], object], code: str) -> None:
    assert refused(make()) == code


def test_a_signature_of_another_key_is_refused() -> None:
    assert refused(answer(key=signer_with())) == "SIG_FAILED"
    assert refused(answer(token(device_claims(), key=signer_with()))) == "SIG_FAILED"


def test_what_is_no_json_is_refused() -> None:
    for text in ("", "[", '[["JWT","a"],{"GPU-0":"a","GPU-0":"b"}]', "\x00"):
        with pytest.raises(Error):
            verify(encode({1: 1, 2: "nras", 3: text}), endorsements(), NOW)
    with pytest.raises(Error, match="TOO_LARGE"):
        verify(encode({1: 1, 2: "nras", 3: " " * 65_537}), endorsements(), NOW)


KEYS: list[tuple[str, Callable[[], dict[str, object]], str]] = [
    ("expired", lambda: jwk(signer_with(window=(NOW - DAY, NOW - 1))), "CERTIFICATE_EXPIRED"),
    ("of tomorrow", lambda: jwk(signer_with(window=(NOW + 1, NOW + DAY))), "CERTIFICATE_NOT_YET_VALID"),
    ("that may not sign", lambda: jwk(signer_with(signs_data=False)), "KEY_USAGE"),
    ("of a CA", lambda: jwk(signer_with(ca=True, signs_data=True)), "KEY_USAGE"),
    ("of another service", lambda: jwk(signer_with(name="www.example")), "CERTIFICATE_PROFILE"),
    ("under another name", lambda: jwk(signer_with(issuer_name="x")), "CHAIN_BROKEN"),
    (
        "by a stranger",
        lambda: jwk(_stranger(), x5c=[_stranger().certificate, _root().certificate]),
        "UNKNOWN_ROOT",
    ),
    ("signed by a stranger", lambda: jwk(_stranger()), "CHAIN_BROKEN"),
    ("with another's certificate", lambda: jwk(signer_with(), x5c=_x5c()), "BAD_KEY"),
    ("that is its own issuer", lambda: jwk(x5c=[signer().certificate] * 2), "UNKNOWN_ROOT"),
    ("under what is no certificate", lambda: jwk(x5c=[b"0" * 9, authority().certificate]), "BAD_CERTIFICATE"),
]


def _x5c() -> list[bytes]:
    return [signer().certificate, authority().certificate]


def _root() -> Any:
    return issue(Cert("intermediate", rsa=True, window=(NOW - 2 * DAY, NOW + DAY)))


def _stranger() -> Any:
    own = issue(Cert("intermediate"))
    return issue(Cert(NAME, ca=False, window=(NOW - 3600, NOW + DAY)), own)


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS])
def test_a_key_that_nobody_vouches_for_is_refused(make: Callable[[], dict[str, object]], code: str) -> None:
    assert refused(given=endorsements(make())) == code


def test_a_pinned_certificate_must_be_a_ca() -> None:
    for says, code in (
        (Cert("a", ca=False, signs_certificates=True), "NOT_A_CA"),
        (Cert("a", signs_certificates=False), "KEY_USAGE"),
    ):
        own = issue(says)
        key = issue(Cert(NAME, ca=False, window=(NOW - 3600, NOW + DAY)), own)
        given = replace(
            endorsements(jwk(key, x5c=[key.certificate, own.certificate])),
            nras_issuers=(sha256(own.certificate),),
        )
        assert refused(given=given) == code


def test_without_keys_it_cannot_be_judged() -> None:
    with pytest.raises(EndorsementsError, match="NO_COLLATERAL"):
        judge(given=replace(endorsements(), nras_keys={}))
    with pytest.raises(EndorsementsError, match="UNKNOWN_KEY_ID"):
        judge(given=endorsements(jwk(kid="another")))
    with pytest.raises(EndorsementsError, match="NO_ROOTS"):
        judge(given=replace(endorsements(), nras_issuers=()))


SETS: list[tuple[str, Callable[[], bytes], str]] = [
    ("not JSON", lambda: b"x", "BAD_JSON"),
    ("a list", lambda: b"[]", "BAD_JSON"),
    ("no keys", lambda: b'{"keys":[]}', "BAD_JWKS"),
    ("keys that are none", lambda: b'{"keys":{}}', "BAD_JWKS"),
    ("a key twice", lambda: jwks(jwk(), jwk()), "BAD_JWKS"),
    ("no certificate", lambda: jwks({k: v for k, v in jwk().items() if k != "x5c"}), "BAD_JWKS"),
    ("one certificate", lambda: jwks(jwk(x5c=[signer().certificate])), "BAD_JWKS"),
    ("a certificate that is not base64", lambda: jwks(jwk() | {"x5c": ["*", "*"]}), "BAD_JWKS"),
    ("an empty certificate", lambda: jwks(jwk() | {"x5c": ["", ""]}), "BAD_JWKS"),
    ("no key id", lambda: jwks(jwk(kid=...)), "BAD_JWKS"),  # type: ignore[arg-type]
    ("a long key id", lambda: jwks(jwk(kid="k" * 257)), "BAD_JWKS"),
    ("a coordinate of 47 bytes", lambda: jwks(jwk(x=base64url(bytes(47)))), "BAD_JWKS"),
    ("a point off the curve", lambda: jwks(jwk(x=base64url(b"\1" * 48))), "BAD_JWKS"),
    ("a coordinate with padding", lambda: jwks(jwk(x="AA==")), "BAD_BASE64"),
    ("too much", lambda: b" " * (MAX_JWKS_BYTES + 1), "TOO_LARGE"),
    ("too many", lambda: jwks(*[jwk(kid=str(n), x5c=[b"0", b"0"]) for n in range(257)]), "BAD_JWKS"),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in SETS], ids=[row[0] for row in SETS])
def test_a_bad_key_set_is_refused(make: Callable[[], bytes], code: str) -> None:
    with pytest.raises(Error) as caught:
        read_jwks(make())
    assert caught.value.code == code


def test_keys_of_other_kinds_are_left_aside() -> None:
    rsa = {"kty": "RSA", "kid": "r", "n": "AQ", "e": "AQAB"}
    small = {"kty": "EC", "crv": "P-256", "kid": "s"}
    assert list(read_jwks(jwks(rsa, jwk(), small))) == [KID]
    assert base64.b64decode(str(jwk()["x5c"][0])) == signer().certificate  # type: ignore[index]


CLAIMS: list[tuple[str, dict[str, object], str]] = [
    ("measurements that failed", {"measres": "fail"}, "measres"),
    ("measurements that were not compared", {"measres": "not-run"}, "measres"),
    ("no word on measurements", {"measres": ...}, "measres"),
    ("no secure boot", {"secboot": False}, "secboot"),
    ("no word on secure boot", {"secboot": None}, "secboot"),
    ("a secure boot as text", {"secboot": "true"}, "secboot"),
    ("no word on debugging", {"dbgstat": ...}, "dbgstat"),
    ("no nonce", {"eat_nonce": ...}, "eat_nonce"),
    ("an error", {"x-nvidia-error-details": {"code": 4010}}, "x-nvidia-error-details"),
    ("a check of tomorrow that failed", {f"{GPU}new-check": False}, f"{GPU}new-check"),
    ("firmware of another key", {f"{GPU}attestation-report-cert-chain-fwid-match": False}, "fwid-match"),
    ("a version that is not the manifest's", {f"{GPU}driver-rim-version-match": False}, "version-match"),
]
REQUIRED = (
    "arch-check",
    "attestation-report-parsed",
    "attestation-report-nonce-match",
    "attestation-report-signature-verified",
    "driver-rim-fetched",
    "driver-rim-signature-verified",
    "driver-rim-measurements-available",
    "vbios-rim-fetched",
    "vbios-rim-signature-verified",
    "vbios-rim-measurements-available",
    "vbios-index-no-conflict",
)
CHAINS = ("attestation-report-cert-chain", "driver-rim-cert-chain", "vbios-rim-cert-chain")
BAD_CHAINS: tuple[object, ...] = (..., True, {}, {"x-nvidia-cert-status": "expired"})
BAD_CHECKS: tuple[object, ...] = (False, ..., 1)
CLAIMS += [(f"{name} {bad}", {GPU + name: bad}, name) for name in REQUIRED for bad in BAD_CHECKS]
CLAIMS += [(f"{name} {bad}", {GPU + name: bad}, name) for name in CHAINS for bad in BAD_CHAINS]


@pytest.mark.parametrize(("changes", "name"), [row[1:] for row in CLAIMS], ids=[row[0] for row in CLAIMS])
def test_a_claim_that_is_not_as_it_must_be_is_an_objection(changes: dict[str, object], name: str) -> None:
    (found,) = NvidiaDetails.of(judge(answer(token(device_claims(**changes))))).devices
    assert any(name in one for one in found.objections)
    assert len(found.objections) == 1


def test_the_older_claims_say_less_and_it_shows() -> None:
    older: dict[str, object] = {
        f"{GPU}{name}": ... for name in ("attestation-report-cert-chain", "driver-rim-cert-chain")
    }
    older |= {f"{GPU}vbios-rim-cert-chain": ..., f"{GPU}attestation-report-cert-chain-fwid-match": ...}
    older |= {f"{GPU}attestation-report-cert-chain-validated": True, f"{GPU}mode": ...}
    older |= {f"{GPU}driver-rim-cert-validated": True, f"{GPU}vbios-rim-cert-validated": True}
    verified = judge(answer(token(device_claims(**older))))
    assert NvidiaDetails.of(verified).devices[0].objections == ()
    codes = [code for code, _ in verified.findings]
    assert codes == ["OCSP_NOT_CHECKED", "FWID_NOT_STATED", "CC_MODE_NOT_STATED"]


@pytest.mark.parametrize("status", ["revoked", "unknown", None])
def test_revocation_must_have_been_asked_for(status: str | None) -> None:
    chain = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": status}
    verified = judge(answer(token(device_claims(**{f"{GPU}vbios-rim-cert-chain": chain}))))
    assert "OCSP_NOT_CHECKED" in {code for code, _ in verified.findings}


@pytest.mark.parametrize("status", ["enabled", "disabled-since-boot", True, 1])
def test_debugging_shows(status: object) -> None:
    verified = judge(answer(token(device_claims(dbgstat=status))))
    assert verified.debug
    assert NvidiaDetails.of(verified).devices[0].objections == ("dbgstat",)


def test_a_warning_is_a_finding() -> None:
    verified = judge(answer(token(device_claims(**{"x-nvidia-attestation-warning": "old"}))))
    assert [code for code, _ in verified.findings] == ["NRAS_WARNING"]


@pytest.mark.parametrize("value", ["GH100", "GH100 A01 GSP BROM", "GB202 X", "TU102", 7, None, "GH100X"])
def test_the_chip_is_read_where_it_is_known(value: object) -> None:
    (found,) = NvidiaDetails.of(judge(answer(token(device_claims(hwmodel=value))))).devices
    text = str(value)
    known = text.split(maxsplit=1)[0] in ("GH100", "GB202")
    assert (found.chip, found.architecture) == (
        (text[:5], {"GH": "HOPPER", "GB": "BLACKWELL"}[text[:2]]) if known else ("", "")
    )


def test_an_overall_no_is_genuine_too() -> None:
    verified = judge(answer(overall={"x-nvidia-overall-att-result": False}))
    assert NvidiaDetails.of(verified).result is False


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_changed_it_never_verifies(data: st.DataObject) -> None:
    good = make_evidence()
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        verified = verify(bytes(changed), endorsements(), NOW)
    except Error:
        return
    # White space between tokens may change, nothing that is signed.
    assert NvidiaDetails.of(verified) == NvidiaDetails.of(judge())


def test_a_key_on_another_curve_is_left_aside() -> None:
    small = issue(Cert(NAME, ca=False, curve=ec.SECP256R1()), authority())
    entry = jwk(small) | {"crv": "P-256"}
    assert refused(given=endorsements(jwk(kid="x"), entry)) == "UNKNOWN_KEY_ID"
