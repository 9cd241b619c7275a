"""Genuine quotes: what they say, how their platform stands, and that two verifiers must agree."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest

from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.show import guess_platform, show
from ephemeralml.attestation.tdx import TdxDetails, TdxEndorsements, from_files
from ephemeralml.attestation.tdx import second as second_opinion
from ephemeralml.attestation.tdx.collateral import STATUSES
from ephemeralml.attestation.tdx.parse import parse
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.attestation.verify import Endorsements, stated_time, verify_evidence
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError, VerificationError

from .faults import attributes, setting, svns
from .forge import COMPONENTS, DAY, FMSPC, NOW, Forge, Json, pair, trusting

# Compiled, and without types that a checker finds.
dcap_qvl: Any = import_module("dcap_qvl")


def judged(forge: Forge, now: int = NOW) -> VerifiedEvidence:
    return verify(forge.quote(), forge.endorsements(), now)


@pytest.mark.parametrize(("version", "newer"), [(4, False), (5, False), (5, True)])
def test_a_genuine_quote_says_what_it_says(version: int, newer: bool) -> None:
    forge = Forge(version=version, newer=newer)
    quote = forge.quote()
    found = verify(quote, forge.endorsements(), NOW)
    details = TdxDetails.of(found)
    assert (found.platform, found.evidence_hash, found.issued_at) == ("tdx", sha256(quote), None)
    assert (found.debug, found.simulated, found.findings) == (False, False, ())
    assert (found.not_before, found.not_after) == (NOW - 2 * DAY, NOW + 20 * DAY)
    assert found.root_fingerprint == sha256(forge.certificate("root"))
    assert found.measurements is not None
    assert found.measurements.kind == "tdx-mrtd-rtmr"
    assert found.measurements.values == {
        "pcr0": b"\xd0" * 48,
        **{f"pcr{index}": bytes([index]) * 48 for index in range(1, 5)},
    }
    assert (details.quote_version, details.fmspc, details.tcb_status) == (version, FMSPC, "UpToDate")
    assert (details.tcb_date, details.module_date, details.qe_date) == (NOW - 200 * DAY,) * 3
    assert (details.evaluation_number, details.collateral_issued_at) == (17, NOW - 5 * DAY)
    assert (details.report.tee_tcb_svn2 is not None) == newer


def test_reportdata_binds_key_and_announcement() -> None:
    key, digest = b"k" * 32, b"d" * 32
    details = TdxDetails.of(judged(Forge(report={"report_data": sha256(key) + digest})))
    assert details.binds_key(key)
    assert details.binds_announcement(digest)
    assert not details.binds_key(digest)
    assert not details.binds_announcement(key)
    assert not details.binds_announcement(sha256(key))
    assert not details.binds_nonce(digest)
    assert not details.binds_nonce(sha256(key))


STANDINGS: dict[str, tuple[Forge, str, tuple[str, ...]]] = {
    "all is well": (Forge(), "UpToDate", ()),
    "higher than wanted": (Forge(components=(9, *COMPONENTS[1:]), pce_svn=12), "UpToDate", ()),
    "the second level": (
        Forge(components=(4, *COMPONENTS[1:])),
        "SWHardeningNeeded",
        ("INTEL-SA-00001",),
    ),
    "the third level": (
        Forge(components=(3, *COMPONENTS[1:])),
        "OutOfDate",
        ("INTEL-SA-00001", "INTEL-SA-00002"),
    ),
    "an older TDX microcode": (
        Forge(report=svns(bytes([5, 1, 1]))),
        "OutOfDate",
        ("INTEL-SA-00001", "INTEL-SA-00002"),
    ),
    "an older module": (Forge(report=svns(bytes([3, 1, 2]))), "OutOfDate", ("INTEL-SA-00003",)),
    "an older module 1.0": (
        Forge(report=svns(bytes([3, 0, 2]))),
        "OutOfDate",
        ("INTEL-SA-00001", "INTEL-SA-00002"),
    ),
    "a module 1.0": (Forge(report=svns(bytes([5, 0, 2]))), "UpToDate", ()),
    "an older enclave": (Forge(qe={"isv_svn": b"\2\0"}), "OutOfDate", ("INTEL-SA-00004",)),
    "a newer enclave": (Forge(qe={"isv_svn": b"\0\1"}), "UpToDate", ()),
    "everything older": (
        Forge(components=(4, *COMPONENTS[1:]), report=svns(bytes([3, 1, 2])), qe={"isv_svn": b"\2\0"}),
        "OutOfDate",
        ("INTEL-SA-00001", "INTEL-SA-00003", "INTEL-SA-00004"),
    ),
}


@pytest.mark.parametrize("name", STANDINGS)
def test_the_levels_that_are_reached_give_status_and_advisories(name: str) -> None:
    forge, status, advisories = STANDINGS[name]
    found = judged(forge)
    details = TdxDetails.of(found)
    assert (details.tcb_status, details.advisory_ids) == (status, advisories)
    assert [code for code, _ in found.findings] == ([] if status == "UpToDate" else [f"TCB_{status}"])
    assert all(advisory in found.findings[0][1] for advisory in advisories)


WITH_OUT_OF_DATE = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
}


@pytest.mark.parametrize("part", ["none", "module", "enclave", "both"])
@pytest.mark.parametrize("status", WITH_OUT_OF_DATE)
def test_statuses_converge_as_both_verifiers_say(status: str, part: str) -> None:
    report = svns(bytes([3, 1, 2])) if part in ("module", "both") else {}
    qe = {"isv_svn": b"\2\0"} if part in ("enclave", "both") else {}
    forge = Forge(info=setting("tcbLevels/0/tcbStatus", status), report=report, qe=qe)
    expected = status if part == "none" else WITH_OUT_OF_DATE[status]
    assert TdxDetails.of(judged(forge)).tcb_status == expected
    assert set(WITH_OUT_OF_DATE) == STATUSES - {"Revoked"}


@pytest.mark.parametrize("bits", [1, 2, 0x80])
def test_a_debug_domain_is_genuine_and_marked(bits: int) -> None:
    found = judged(Forge(report=attributes(1 << 28 | bits)))
    assert found.debug
    assert dict(found.findings).keys() == {"ONE_VERIFIER_ONLY"}


def test_performance_counters_are_left_to_the_policy() -> None:
    found = judged(Forge(report=attributes(1 << 28 | 1 << 63)))
    assert TdxDetails.of(found).report.attributes[7] == 0x80


# --------------------------------------------------------- the second opinion


class Opinion:
    """What the second verifier could say."""

    def __init__(self, status: str = "UpToDate", advisories: tuple[str, ...] = ()) -> None:
        self.status, self.advisory_ids = status, list(advisories)


@pytest.mark.parametrize(
    "answer",
    [
        Opinion("OutOfDate"),
        Opinion(advisories=("INTEL-SA-00001",)),
        ValueError("refused"),
        RuntimeError("broken"),
    ],
)
def test_a_verifier_that_judges_otherwise_refuses(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    def other(*_: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(dcap_qvl, "verify_with_root_ca", other)
    with pytest.raises(VerificationError) as caught:
        verify(*pair(), NOW)
    assert caught.value.code == "PARSERS_DISAGREE"


@pytest.mark.parametrize("debug", [False, True])
def test_a_parser_that_reads_otherwise_refuses(monkeypatch: pytest.MonkeyPatch, debug: bool) -> None:
    forge = Forge(report=attributes(1 << 28 | debug))
    theirs = dcap_qvl.parse_quote(Forge(report={"mrtd": bytes(48)}).quote())
    monkeypatch.setattr(dcap_qvl, "parse_quote", lambda _: theirs)
    with pytest.raises(VerificationError) as caught:
        judged(forge)
    assert caught.value.code == "PARSERS_DISAGREE"


@pytest.mark.parametrize("name", sorted(second_opinion.FIELDS.values()))
def test_every_field_is_compared(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ours is changed in one field; theirs is what it is."""
    forge = Forge()
    size = len(getattr(parse(forge.quote()).report, name))
    theirs = dcap_qvl.parse_quote(Forge(report={name: b"\x77" * size}).quote())
    monkeypatch.setattr(dcap_qvl, "parse_quote", lambda _: theirs)
    with pytest.raises(VerificationError) as caught:
        judged(forge)
    assert caught.value.code == "PARSERS_DISAGREE"


# -------------------------------------------------------------- the collateral


def test_one_file_and_separate_files_say_the_same() -> None:
    forge = Forge()
    quote = forge.quote()
    one = trusting().with_files({"collateral.json": forge.collateral()})
    several = trusting().with_files(forge.files())
    first, second = (TdxDetails.of(verify(quote, found, NOW)) for found in (one, several))
    assert first == second


def test_what_is_there_wins_and_what_is_missing_is_filled() -> None:
    mine = Forge(info=setting("tcbEvaluationDataNumber", 5))
    theirs = Forge(info=setting("tcbEvaluationDataNumber", 6))
    both = mine.endorsements().with_files(theirs.files())
    assert TdxDetails.of(verify(mine.quote(), both, NOW)).evaluation_number == 5
    old = Forge(info=setting("nextUpdate", "2026-01-01T00:00:00Z")).endorsements().with_files(theirs.files())
    assert TdxDetails.of(verify(mine.quote(), old, NOW)).evaluation_number == 6
    assert both.roots == mine.endorsements().roots


def test_the_same_files_again_change_nothing() -> None:
    forge = Forge()
    files = forge.files()
    once = trusting().with_files(files)
    assert once.with_files(files) == once


def test_the_collateral_of_the_quotes_platform_is_chosen() -> None:
    other = Forge(fmspc=bytes(6))
    files = {
        "other_collateral.json": other.collateral(),
        "mine_collateral.json": Forge().collateral(),
        "README.md": b"let be",
    }
    both = trusting().with_files(files)
    assert TdxDetails.of(verify(Forge().quote(), both, NOW)).fmspc == FMSPC
    assert TdxDetails.of(verify(other.quote(), both, NOW)).fmspc == bytes(6)


def collateral_with(**changes: Any) -> dict[str, bytes]:
    values: Json = json.loads(Forge().collateral())
    for name, value in changes.items():
        if value is ...:
            del values[name]
        else:
            values[name] = value
    return {"collateral.json": json.dumps(values).encode()}


BODY = Forge().files()["tcb_info.json"]
BAD_FILES: dict[str, tuple[dict[str, bytes], str]] = {
    "no JSON": ({"collateral.json": b"{"}, "BAD_JSON"),
    "too long": ({"collateral.json": b" " * 600_000}, "TOO_LARGE"),
    "no TCB info": (collateral_with(tcb_info=...), "BAD_COLLATERAL"),
    "a TCB info that is an object": (collateral_with(tcb_info={}), "BAD_COLLATERAL"),
    "a short signature": (collateral_with(tcb_info_signature="00" * 63), "BAD_COLLATERAL"),
    "half an octet": (collateral_with(pck_crl="000"), "BAD_COLLATERAL"),
    "spaces in hexadecimal": (collateral_with(pck_crl="00 00"), "BAD_COLLATERAL"),
    "a list that is none": (collateral_with(pck_crl="0000"), "BAD_CRL"),
    "a chain that is none": (collateral_with(tcb_info_issuer_chain="none"), "BAD_CERTIFICATE"),
    "a lone surrogate": (collateral_with(tcb_info="\ud800"), "BAD_JSON"),
    "a body that is a list": ({"tcb_info.json": b"[]"}, "BAD_JSON"),
    "a body of another name": ({"tcb_info.json": BODY.replace(b"tcbInfo", b"tcbinfo", 1)}, "BAD_COLLATERAL"),
    "a body with more": ({"tcb_info.json": b'{"more":1,' + BODY[1:]}, "BAD_COLLATERAL"),
    "a body twice": ({"tcb_info.json": BODY[:-1] + b"," + BODY[1:]}, "DUPLICATE_KEY"),
    "an identity for a TCB info": ({"tcb_info.json": Forge().files()["qe_identity.json"]}, "BAD_COLLATERAL"),
    "a list that is too long": ({"pck_crl.der": bytes(262_145)}, "TOO_LARGE"),
    "too many files": ({f"pck_crl_{index}.der": b"" for index in range(65)}, "OUT_OF_BOUNDS"),
    "an unreadable signing chain": ({"tcb_signing_chain.pem": b"\0"}, "BAD_CERTIFICATE"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_not_what_they_should_be_are_refused(name: str) -> None:
    files, code = BAD_FILES[name]
    with pytest.raises(MalformedError) as caught:
        from_files(files)
    assert caught.value.code == code


def test_a_fingerprint_has_32_bytes() -> None:
    with pytest.raises(ConfigurationError) as caught:
        TdxEndorsements(roots=(b"short",))
    assert caught.value.code == "BAD_FINGERPRINT"


# ------------------------------------------------------------------- the doors


def test_the_doors_to_all_platforms_know_quotes() -> None:
    quote, endorsements = pair()
    assert guess_platform(quote) == "tdx"
    assert stated_time("tdx", quote) is None
    assert verify_evidence("tdx", quote, Endorsements(tdx=endorsements), NOW).platform == "tdx"
    with pytest.raises(Error) as caught:
        verify_evidence("tdx", quote, Endorsements(), NOW)
    assert caught.value.code == "UNKNOWN_ROOT"


def test_what_a_quote_says_is_shown() -> None:
    lines = dict(show("tdx", Forge(report=attributes(1 << 28 | 1)).quote()))
    assert lines["FMSPC"] == FMSPC.hex()
    assert lines["MRTD"] == "d0" * 48
    assert lines["debug"].startswith("yes")
    assert dict(show("tdx", Forge().quote()))["debug"] == "no"


@pytest.mark.parametrize("made", [NOW - 6 * DAY, NOW - DAY, NOW + 3600])
def test_no_older_list_hides_what_a_list_at_hand_revokes(made: int) -> None:
    """The time that a quote is judged at is its sender's word: it must not choose the list."""
    revoking = Forge(lists={"pck": {"serials": (1, 13), "issued_at": made}})
    others = revoking.endorsements().with_files({"pck_crl.der": Forge().revocation_list("pck")})
    with pytest.raises(VerificationError, match="CERTIFICATE_REVOKED"):
        verify(Forge().quote(), others, NOW)


def test_a_list_that_nobody_signed_revokes_nothing() -> None:
    good = Forge()
    revoking = bytearray(Forge(lists={"pck": {"serials": (13,)}}).revocation_list("pck"))
    revoking[-1] ^= 1
    found = verify(good.quote(), good.endorsements().with_files({"pck_crl.der": bytes(revoking)}), NOW)
    assert TdxDetails.of(found).tcb_status == "UpToDate"
