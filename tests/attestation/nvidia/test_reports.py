"""Reports with exactly one thing wrong; each is refused with its code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nvidia import NvidiaDetails, NvidiaEndorsements
from ephemeralml.attestation.nvidia.parse import parse
from ephemeralml.attestation.nvidia.show import show
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.attestation.verify import stated_time
from ephemeralml.wire.encoding import encode, sha256
from ephemeralml.wire.errors import ConfigurationError, EndorsementsError, Error

from .forge import (
    DAY,
    DRIVER,
    FWID,
    NONCE,
    NOW,
    VBIOS,
    Cert,
    Party,
    ReportParts,
    blackwell,
    block,
    composite,
    der,
    device,
    device_certs,
    device_name,
    endorsements,
    fwid_der,
    issue,
    leaf_first,
    make_chain,
    make_evidence,
    make_manifest,
    make_report,
    manifest_text,
    opaque,
    other_device,
    tcb_info,
    versioned_opaque,
)


def judge(data: bytes, given: NvidiaEndorsements | None = None, now: int = NOW) -> VerifiedEvidence:
    return verify(data, given or endorsements(), now)


def refused(data: bytes, given: NvidiaEndorsements | None = None, now: int = NOW) -> str:
    with pytest.raises(Error) as caught:
        judge(data, given, now)
    return caught.value.code


def one(report: bytes, chain: Sequence[Party] | None = None, **changes: Any) -> bytes:
    return make_evidence((report, leaf_first(chain or device())), **changes)


def test_a_good_gpu_verifies_whole() -> None:
    verified = judge(make_evidence())
    details = NvidiaDetails.of(verified)
    (found,) = details.devices
    assert (found.driver, found.vbios, found.mode, found.chip) == (DRIVER, VBIOS, "spt", "GH100")
    assert (found.compared, found.differing) == (8, ())
    assert found.revocation_checked
    assert found.firmware_bound
    assert verified.findings == ()
    assert (verified.platform, verified.measurements, verified.issued_at) == ("nvidia", None, None)
    assert (verified.debug, verified.simulated) == (False, False)
    assert verified.root_fingerprint == sha256(device()[0].certificate)
    assert stated_time("nvidia", make_evidence()) is None


def test_it_vouches_for_a_nonce_and_nothing_else() -> None:
    details = judge(make_evidence()).details
    assert details.binds_nonce(NONCE)
    assert not details.binds_nonce(bytes(32))
    assert not details.binds_nonce(b"")
    assert not details.binds_key(NONCE)
    assert not details.binds_announcement(NONCE)


def test_two_gpus_verify_and_each_has_its_findings() -> None:
    second = make_report(key=other_device()[-1].key)
    data = make_evidence((make_report(), leaf_first(device())), (second, leaf_first(other_device())))
    verified = judge(data)
    assert len(NvidiaDetails.of(verified).devices) == 2
    # The second boot ROM's OCSP answer is not at hand.
    assert [code for code, _ in verified.findings] == ["OCSP_NOT_CHECKED"]
    assert verified.findings[0][1].startswith("device 1")


def test_blackwell_is_bound_through_its_tcb_information() -> None:
    fields = opaque(f35=b"GB100\0\0\0", f3=b"575.32\0", f6=bytes.fromhex("008800970f000000"))
    report = make_report(ReportParts(opaque=fields), blackwell()[-1].key)
    (found,) = NvidiaDetails.of(judge(one(report, blackwell(), architecture="BLACKWELL"))).devices
    assert (found.architecture, found.firmware_bound, found.compared) == ("BLACKWELL", True, None)


def test_firmware_that_is_not_loaded_binds_nothing() -> None:
    fields = opaque(f3=b"575.32\0", f6=bytes.fromhex("008800970f000000"), f20=bytes(48))
    report = make_report(ReportParts(opaque=fields), blackwell()[-1].key)
    assert refused(one(report, blackwell(), architecture="BLACKWELL")) == "FWID_MISMATCH"


def test_the_newer_layout_says_the_same() -> None:
    verified = judge(one(make_report(ReportParts(opaque=versioned_opaque()))))
    assert NvidiaDetails.of(verified).devices == NvidiaDetails.of(judge(make_evidence())).devices


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"f36": b"\0\0"}, "spt"),
        ({"f36": b"\1"}, "mpt"),
        ({"f36": b"\2\0\0\0", "f21": b"\xaa"}, "ppcie"),
        ({"f36": None, "f21": b"\xaa"}, "ppcie"),
        ({"f36": None}, None),
        ({"f36": None, "f21": None}, None),
    ],
)
def test_the_mode_is_what_the_report_says(changes: dict[str, bytes | None], mode: str | None) -> None:
    verified = judge(one(make_report(ReportParts(opaque=opaque(**changes)))))
    assert NvidiaDetails.of(verified).devices[0].mode == mode
    assert ("CC_MODE_NOT_STATED" in {code for code, _ in verified.findings}) == (mode is None)


def test_an_older_report_does_not_say_its_firmware() -> None:
    verified = judge(one(make_report(ReportParts(opaque=opaque(f20=None)))))
    assert not NvidiaDetails.of(verified).devices[0].firmware_bound
    assert [code for code, _ in verified.findings] == ["FWID_NOT_STATED"]


def test_without_any_collateral_every_missing_check_is_named() -> None:
    verified = judge(make_evidence(), endorsements(rims={}, ocsp=()))
    assert [code for code, _ in verified.findings] == [
        "MEASUREMENTS_NOT_COMPARED",
        "DEBUG_NOT_CHECKED",
        "OCSP_NOT_CHECKED",
    ]


REPORTS: list[tuple[str, ReportParts, str]] = [
    ("SPDM 1.0", ReportParts(request=b"\x10\xe0\x01\xff"), "BAD_REPORT"),
    ("SPDM 1.2", ReportParts(request=b"\x12\xe0\x01\xff"), "BAD_REPORT"),
    ("another request", ReportParts(request=b"\x11\x83\x01\xff"), "BAD_REPORT"),
    ("no signature asked for", ReportParts(request=b"\x11\xe0\x00\xff"), "BAD_REPORT"),
    ("not all measurements", ReportParts(request=b"\x11\xe0\x01\x01"), "BAD_REPORT"),
    ("slot 8", ReportParts(slot=8, head=b"\x11\x60\0\x08"), "BAD_REPORT"),
    ("slots that differ", ReportParts(slot=1), "BAD_REPORT"),
    ("another version in the response", ReportParts(head=b"\x10\x60\0\0"), "BAD_REPORT"),
    ("another response", ReportParts(head=b"\x11\x7f\0\0"), "BAD_REPORT"),
    ("Param1", ReportParts(head=b"\x11\x60\1\0"), "BAD_REPORT"),
    ("no blocks", ReportParts(blocks=b"", count=0), "BAD_REPORT"),
    ("fewer blocks than counted", ReportParts(blocks=block(1), count=2), "BAD_REPORT"),
    ("more blocks than counted", ReportParts(blocks=block(1) + block(2), count=1), "BAD_REPORT"),
    ("a record that ends early", ReportParts(record_length=55 * 64 - 1), "BAD_REPORT"),
    ("a record that ends late", ReportParts(record_length=55 * 64 + 1), "BAD_REPORT"),
    ("a record of 16 MiB", ReportParts(record_length=0xFFFFFF), "BAD_REPORT"),
    ("indices from 0", ReportParts(blocks=block(0), count=1), "BAD_REPORT"),
    ("indices with a gap", ReportParts(blocks=block(1) + block(3), count=2), "BAD_REPORT"),
    ("an index twice", ReportParts(blocks=block(1) + block(1), count=2), "BAD_REPORT"),
    ("another specification", ReportParts(blocks=block(1, spec=2), count=1), "BAD_REPORT"),
    ("raw measurements", ReportParts(blocks=block(1, kind=0x81), count=1), "BAD_REPORT"),
    ("a SHA-256 measurement", ReportParts(blocks=block(1, b"m" * 32, size=35), count=1), "BAD_REPORT"),
    ("a size that lies", ReportParts(blocks=block(1, size=50), count=1), "BAD_REPORT"),
    ("opaque data that ends early", ReportParts(opaque_length=10), "BAD_REPORT"),
    ("opaque data that ends late", ReportParts(opaque_length=900), "BAD_REPORT"),
    ("too much opaque data", ReportParts(opaque=opaque(f99=bytes(1000))), "BAD_REPORT"),
    ("bytes before the signature", ReportParts(tail=b"\0"), "BAD_REPORT"),
    ("an entry that ends outside", ReportParts(opaque=opaque() + b"\7\0\xff\0"), "BAD_OPAQUE_DATA"),
    ("half an entry", ReportParts(opaque=opaque() + b"\7\0\1"), "BAD_OPAQUE_DATA"),
    ("an entry twice", ReportParts(opaque=opaque() + b"\3\0\4\x001.2\0"), "BAD_OPAQUE_DATA"),
    ("too many entries", ReportParts(opaque=opaque(dict.fromkeys(range(200, 330), b""))), "BAD_OPAQUE_DATA"),
    ("no driver", ReportParts(opaque=opaque(f3=None)), "BAD_OPAQUE_DATA"),
    ("no VBIOS", ReportParts(opaque=opaque(f6=None)), "BAD_OPAQUE_DATA"),
    ("a driver with a path in it", ReportParts(opaque=opaque(f3=b"../../x\0")), "BAD_OPAQUE_DATA"),
    ("a driver that is not ASCII", ReportParts(opaque=opaque(f3=b"\xff550.90\0")), "BAD_OPAQUE_DATA"),
    ("a driver of one number", ReportParts(opaque=opaque(f3=b"550\0")), "BAD_OPAQUE_DATA"),
    ("a VBIOS of 7 bytes", ReportParts(opaque=opaque(f6=bytes(7))), "BAD_OPAQUE_DATA"),
    ("a VBIOS with more", ReportParts(opaque=opaque(f6=b"\0\x9f\0\x96\1\0\0\1")), "BAD_OPAQUE_DATA"),
    ("a project with a slash", ReportParts(opaque=opaque(f17=b"10/0\0")), "BAD_OPAQUE_DATA"),
    ("an empty project", ReportParts(opaque=opaque(f17=b"\0")), "BAD_OPAQUE_DATA"),
    ("a chip with a dot", ReportParts(opaque=opaque(f35=b"GB.100")), "BAD_OPAQUE_DATA"),
    ("a decoder half on", ReportParts(opaque=opaque(f11=b"\x5a")), "BAD_OPAQUE_DATA"),
    ("a decoder of two bytes", ReportParts(opaque=opaque(f11=b"\x55\0")), "BAD_OPAQUE_DATA"),
    ("firmware of 47 bytes", ReportParts(opaque=opaque(f20=bytes(47))), "BAD_OPAQUE_DATA"),
    ("an unknown mode", ReportParts(opaque=opaque(f36=b"\3")), "BAD_OPAQUE_DATA"),
    ("a mode of no bytes", ReportParts(opaque=opaque(f36=b"")), "BAD_OPAQUE_DATA"),
    ("a mode of 9 bytes", ReportParts(opaque=opaque(f36=bytes(9))), "BAD_OPAQUE_DATA"),
    ("modes that differ", ReportParts(opaque=opaque(f21=b"\xaa")), "BAD_OPAQUE_DATA"),
    ("protected PCIe half on", ReportParts(opaque=opaque(f21=b"\0")), "BAD_OPAQUE_DATA"),
    ("a header cut short", ReportParts(opaque=b"NVDAOD\0\0\2"), "BAD_OPAQUE_DATA"),
    ("another profile", ReportParts(opaque=b"NVDAOD\1\0\2\0\0\0"), "BAD_OPAQUE_DATA"),
    ("a version of tomorrow", ReportParts(opaque=b"NVDAOD\0\0\3\0\0\0"), "BAD_OPAQUE_DATA"),
    ("a nonce of somebody else", ReportParts(nonce=bytes(32)), "NONCE_MISMATCH"),
    ("other firmware than the key's", ReportParts(opaque=opaque(f20=b"g" * 48)), "FWID_MISMATCH"),
    ("firmware of zeros", ReportParts(opaque=opaque(f20=bytes(48))), "FWID_MISMATCH"),
]


@pytest.mark.parametrize(("parts", "code"), [row[1:] for row in REPORTS], ids=[row[0] for row in REPORTS])
def test_a_bad_report_is_refused(parts: ReportParts, code: str) -> None:
    assert refused(one(make_report(parts))) == code


def _swap(data: bytes, edit: Callable[[dict[object, object]], object]) -> bytes:
    from ephemeralml.wire.encoding import decode

    value = decode(data)
    assert isinstance(value, dict)
    edit(value)
    return encode(value)


@cache
def entry() -> list[object]:
    return [make_report(), leaf_first(device())]


FORMS: list[tuple[str, Callable[[], bytes], str]] = [
    ("nothing", lambda: b"", "CBOR_TRUNCATED"),
    ("text", lambda: encode("gpu"), "BAD_EVIDENCE"),
    ("an array", lambda: encode([1, "gpu"]), "BAD_EVIDENCE"),
    ("version 2", lambda: _swap(make_evidence(), lambda v: v.update({1: 2})), "UNKNOWN_VERSION"),
    ("version true", lambda: _swap(make_evidence(), lambda v: v.update({1: True})), "BAD_EVIDENCE"),
    ("no version", lambda: _swap(make_evidence(), lambda v: v.pop(1)), "BAD_EVIDENCE"),
    ("an unknown kind", lambda: make_evidence(kind="dpu"), "BAD_EVIDENCE"),
    ("a GPU said to be a switch", lambda: make_evidence(kind="switch"), "BAD_EVIDENCE"),
    (
        "an unknown architecture",
        lambda: _swap(make_evidence(), lambda v: v.update({3: "ADA"})),
        "BAD_EVIDENCE",
    ),
    ("a field more", lambda: _swap(make_evidence(), lambda v: v.update({6: 0})), "BAD_EVIDENCE"),
    ("a nonce of 31 bytes", lambda: make_evidence(nonce=bytes(31)), "OUT_OF_BOUNDS"),
    ("no device", lambda: _swap(make_evidence(), lambda v: v.update({5: []})), "OUT_OF_BOUNDS"),
    ("nine devices", lambda: _swap(make_evidence(), lambda v: v.update({5: [entry()] * 9})), "OUT_OF_BOUNDS"),
    (
        "a device of three",
        lambda: _swap(make_evidence(), lambda v: v.update({5: [[*entry(), 0]]})),
        "BAD_EVIDENCE",
    ),
    ("a chain of two", lambda: make_evidence((make_report(), leaf_first(device())[:2])), "OUT_OF_BOUNDS"),
    (
        "a chain of nine",
        lambda: make_evidence((make_report(), leaf_first(device())[:1] * 9)),
        "OUT_OF_BOUNDS",
    ),
    ("an empty certificate", lambda: make_evidence((make_report(), [b"", b"", b""])), "OUT_OF_BOUNDS"),
    ("a long certificate", lambda: make_evidence((make_report(), [bytes(2049)] * 3)), "OUT_OF_BOUNDS"),
    ("text for a certificate", lambda: make_evidence((make_report(), ["a"] * 3)), "OUT_OF_BOUNDS"),  # type: ignore[list-item]
    ("a report of 37 bytes", lambda: make_evidence((bytes(37), leaf_first(device()))), "BAD_REPORT"),
    ("a report of 8,193 bytes", lambda: make_evidence((bytes(8193), leaf_first(device()))), "BAD_REPORT"),
    ("a trailing byte", lambda: make_evidence() + b"\0", "CBOR_TRAILING_BYTES"),
    ("another order", lambda: b"\xa5" + make_evidence()[3:] + make_evidence()[1:3], "CBOR_NOT_DETERMINISTIC"),
    ("too much", lambda: bytes(262_145), "CBOR_TOO_LARGE"),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_another_form_is_refused(make: Callable[[], bytes], code: str) -> None:
    assert refused(make()) in {code, *({"CBOR_TRAILING_BYTES"} if code == "CBOR_NOT_DETERMINISTIC" else ())}


def _chain(place: int, **changes: Any) -> tuple[Party, ...]:
    certs = device_certs()
    certs[place] = replace(certs[place], **changes)
    return make_chain(certs)


def _leaf(*extensions: x509.ExtensionType, **changes: Any) -> tuple[Party, ...]:
    above = device()[:4]
    return (*above, issue(Cert("leaf", ca=False, extensions=extensions, **changes), above[-1]))


NAME = device_name()
CHAINS: list[tuple[str, Callable[[], tuple[Party, ...]], str]] = [
    ("an unknown root", lambda: make_chain(device_certs()), "UNKNOWN_ROOT"),
    ("an expired root", lambda: _chain(0, window=(NOW - DAY, NOW - 1)), "CERTIFICATE_EXPIRED"),
    ("an expired provisioner", lambda: _chain(2, window=(NOW - DAY, NOW - 1)), "CERTIFICATE_EXPIRED"),
    ("a leaf of tomorrow", lambda: _chain(4, window=(NOW + 1, NOW + DAY)), "CERTIFICATE_NOT_YET_VALID"),
    ("an intermediate that is no CA", lambda: _chain(1, ca=False, signs_certificates=True), "NOT_A_CA"),
    ("a CA that may not sign", lambda: _chain(2, signs_certificates=False), "KEY_USAGE"),
    ("a path too long", lambda: _chain(1, path_length=1), "PATH_LENGTH"),
    ("a leaf that is a CA", lambda: _chain(4, ca=True, signs_data=True), "KEY_USAGE"),
    ("a leaf that may not sign data", lambda: _chain(4, signs_data=False), "KEY_USAGE"),
    ("a leaf on P-256", lambda: _chain(4, curve=ec.SECP256R1()), "CERTIFICATE_PROFILE"),
    ("a certificate by RSA", lambda: _chain(3, rsa=True), "CERTIFICATE_PROFILE"),
    ("another issuer's name", lambda: _chain(3, issuer_name="somebody"), "CHAIN_BROKEN"),
    ("a critical extension", lambda: _leaf(NAME, critical=True), "CERTIFICATE_PROFILE"),
    ("a leaf without a name", lambda: _leaf(composite()), "CERTIFICATE_PROFILE"),
    (
        "another vendor's name",
        lambda: _leaf(device_name("ACME:GH100:48B02D92494BADF4")),
        "CERTIFICATE_PROFILE",
    ),
    ("a name with more", lambda: _leaf(device_name("NVIDIA:GH100:48B02D92494BADF4:")), "CERTIFICATE_PROFILE"),
    ("another chip", lambda: _leaf(device_name("NVIDIA:GB100:48B02D92494BADF4")), "ARCHITECTURE_MISMATCH"),
    ("a switch", lambda: _leaf(device_name("NVIDIA:LS_10:48B02D92494BADF4")), "ARCHITECTURE_MISMATCH"),
    ("no firmware in the leaf", lambda: _leaf(NAME), "FWID_MISMATCH"),
    ("other firmware in the leaf", lambda: _leaf(NAME, composite(fwid_der(b"x" * 48))), "FWID_MISMATCH"),
    ("firmware that is not DER", lambda: _leaf(NAME, composite(b"\x30\xff")), "BAD_DER"),
    ("firmware of SHA-256", lambda: _leaf(NAME, composite(fwid_der(b"x" * 32))), "BAD_DER"),
    ("two firmwares where one fits", lambda: _leaf(NAME, composite(fwid_der(), fwid_der())), "BAD_DER"),
    (
        "firmware by another algorithm",
        lambda: _leaf(NAME, composite(der(0x30, der(0x06, b"\x2a"), der(0x04, FWID)))),
        "BAD_DER",
    ),
    ("TCB information out of order", lambda: _leaf(NAME, tcb_info(fields=der(0x87, b"\0\0"))), "BAD_DER"),
    ("TCB information twice", lambda: _leaf(NAME, tcb_info(fields=der(0xA6, fwid_der()))), "BAD_DER"),
    ("nine firmwares", lambda: _leaf(NAME, tcb_info(*[fwid_der()] * 9)), "BAD_DER"),
    ("a field that is none", lambda: _leaf(NAME, tcb_info(fields=der(0x04, b"x"))), "BAD_DER"),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS])
def test_a_bad_chain_is_refused(make: Callable[[], tuple[Party, ...]], code: str) -> None:
    chain = make()
    own = code == "UNKNOWN_ROOT"
    roots = endorsements() if own else endorsements(device_roots=(sha256(chain[0].certificate),), ocsp=())
    key = chain[-1].key if isinstance(chain[-1].key, ec.EllipticCurvePrivateKey) else None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size != 384:
        key = None
    assert refused(one(make_report(key=key), chain), roots) == code


@pytest.mark.parametrize("changes", [{"f15": None}, {"f17": None}, {"f18": None}])
def test_without_its_boards_name_nothing_is_compared(changes: dict[str, bytes | None]) -> None:
    verified = judge(one(make_report(ReportParts(opaque=opaque(**changes)))))
    assert "MEASUREMENTS_NOT_COMPARED" in {code for code, _ in verified.findings}


def test_a_switch_is_compared_with_its_bios() -> None:
    chain = _leaf(device_name("NVIDIA:LS_10:48B02DFE0092CDDB"))
    fields = opaque({6: b"96.10.55.00.01", 23: b"\xec\0"})
    report = make_report(ReportParts(opaque=fields), chain[-1].key)
    data = one(report, chain, kind="switch", architecture="LS10")
    bios = make_manifest(manifest_text("96.10.55.00.01", (0, 3), product="LS10"))
    rims = {"NV_SWITCH_BIOS_5612_0002_890_9610550001": bios}
    (found,) = NvidiaDetails.of(judge(data, endorsements(rims=rims))).devices
    assert (found.architecture, found.vbios, found.compared, found.differing) == (
        "LS10",
        "96.10.55.00.01",
        2,
        (),
    )


def test_certificates_in_another_order_are_refused() -> None:
    chain = leaf_first(device())
    assert refused(make_evidence((make_report(), chain[::-1]))) == "UNKNOWN_ROOT"
    assert refused(make_evidence((make_report(), [chain[0], chain[2], chain[1], *chain[3:]]))) in {
        "CHAIN_BROKEN",
        "KEY_USAGE",
    }


def test_a_certificate_that_is_none_is_refused() -> None:
    chain = leaf_first(device())
    assert refused(make_evidence((make_report(), [b"\x30\x03\x02\x01\x01", *chain[1:]]))) == "BAD_CERTIFICATE"


def test_another_keys_signature_is_refused() -> None:
    assert refused(one(make_report(key=other_device()[-1].key))) == "SIG_FAILED"


@pytest.mark.parametrize("signature", [bytes(96), b"\xff" * 96, bytes(95) + b"\1"])
def test_a_signature_out_of_range_is_refused(signature: bytes) -> None:
    assert refused(one(make_report()[:-96] + signature)) == "SIG_FAILED"


def test_one_device_twice_is_refused_also_with_another_key() -> None:
    twice = (make_report(), leaf_first(device()))
    assert refused(make_evidence(twice, twice)) == "DEVICE_TWICE"
    # The same boot ROM, after other firmware: another leaf, still one GPU.
    again = _leaf(NAME, composite(fwid_der(b"z" * 48)))
    report = make_report(ReportParts(opaque=opaque(f20=b"z" * 48)), again[-1].key)
    assert refused(make_evidence(twice, (report, leaf_first(again)))) == "DEVICE_TWICE"


def test_one_bad_device_of_two_refuses_all() -> None:
    bad = make_report(ReportParts(nonce=bytes(32)), other_device()[-1].key)
    data = make_evidence((make_report(), leaf_first(device())), (bad, leaf_first(other_device())))
    assert refused(data) == "NONCE_MISMATCH"


def test_without_roots_nothing_is_judged() -> None:
    with pytest.raises(EndorsementsError, match="NO_ROOTS"):
        judge(make_evidence(), endorsements(device_roots=()))
    for name in ("device_roots", "rim_roots", "nras_issuers"):
        with pytest.raises(ConfigurationError, match="BAD_FINGERPRINT"):
            endorsements(**{name: (b"short",)})


def test_show_says_what_it_claims() -> None:
    words = dict(show(make_evidence()))
    assert words["device 0 driver"] == DRIVER
    assert words["nonce"] == NONCE.hex()
    assert words["device 0 mode"] == "spt"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_changed_it_never_verifies(data: st.DataObject) -> None:
    good = make_evidence()
    place = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(good)
    changed[place] ^= 1 << bit
    with pytest.raises(Error) as caught:
        judge(bytes(changed))
    assert caught.value.code.isupper()
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Error):
        parse(data)
