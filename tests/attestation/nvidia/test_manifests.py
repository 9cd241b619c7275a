"""Manifests with exactly one thing wrong, and what is compared with good ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from ephemeralml.attestation.nvidia import NvidiaDetails, NvidiaEndorsements, from_files
from ephemeralml.attestation.nvidia.details import NvidiaDevice
from ephemeralml.attestation.nvidia.rim import MAX_MANIFEST_BYTES, certificates_of, verify_manifest
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError

from .forge import (
    DAY,
    DRIVER,
    DRIVER_INDICES,
    DRIVER_RIM,
    NOW,
    VBIOS,
    VBIOS_INDICES,
    VBIOS_RIM,
    Cert,
    Party,
    ReportParts,
    block,
    device,
    driver_manifest,
    endorsements,
    leaf_first,
    make_chain,
    make_evidence,
    make_manifest,
    make_report,
    manifest_text,
    measured,
    opaque,
    resource,
    rim_signers,
    vbios_manifest,
)


def refused(data: bytes, signers: tuple[Party, ...] | None = None, now: int = NOW) -> str:
    root = (signers or rim_signers())[0]
    with pytest.raises(Error) as caught:
        verify_manifest(data, (sha256(root.certificate),), now)
    return caught.value.code


def test_a_good_manifest_verifies() -> None:
    found = verify_manifest(driver_manifest(), (sha256(rim_signers()[0].certificate),), NOW)
    assert (found.version, found.product) == (DRIVER, "GH100")
    assert set(found.measurements) == set(DRIVER_INDICES)
    assert found.measurements[9] == (b"x" * 48, measured(9))
    assert (found.not_before, found.not_after) == (NOW - DAY, NOW + 30 * DAY)
    assert list(found.chain) == leaf_first(rim_signers())[::-1] == list(certificates_of(driver_manifest()))


def test_a_declaration_of_utf_8_is_plain() -> None:
    declared = make_manifest(edit=lambda data: b'<?xml version="1.0" encoding="UTF-8"?>\n' + data)
    assert verify_manifest(declared, (sha256(rim_signers()[0].certificate),), NOW).version == DRIVER


def text(**changes: str) -> str:
    return manifest_text(resources=resource(9, measured(9), **changes))


def _signers(place: int, **changes: object) -> tuple[Party, ...]:
    certs = [Cert("rim root"), Cert("rim l2"), Cert("rim l3"), Cert("rim signer", ca=False)]
    certs[place] = replace(certs[place], **changes)  # type: ignore[arg-type]
    return make_chain(certs)


def edited(old: bytes, new: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        assert driver_manifest().count(old) >= 1
        return driver_manifest().replace(old, new, 1)

    return make


def unsigned() -> bytes:
    return manifest_text().encode()


BOMB = (
    b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">'
    b'<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]>'
    b"<a>&d;</a>"
)
SIGNATURE = b"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
DIGEST = b"http://www.w3.org/2001/04/xmldsig-more#sha384"
C14N = b"http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED = b"http://www.w3.org/2000/09/xmldsig#enveloped-signature"

INNER = b'<Signature xmlns="http://www.w3.org/2000/09/xmldsig#"/>'

MANIFESTS: list[tuple[str, Callable[[], bytes], str]] = [
    ("nothing", lambda: b"", "BAD_RIM"),
    ("not XML", lambda: b"{}", "BAD_RIM"),
    ("cut short", lambda: driver_manifest()[:-5], "BAD_RIM"),
    ("too long", lambda: driver_manifest() + b" " * MAX_MANIFEST_BYTES, "BAD_RIM"),
    ("an entity bomb", lambda: BOMB, "BAD_RIM"),
    ("a document type", lambda: b"<!DOCTYPE a>" + driver_manifest(), "BAD_RIM"),
    ("an external entity", lambda: b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "BAD_RIM"),
    ("a comment", edited(b"<ns0:Payload>", b"<ns0:Payload><!-- x -->"), "BAD_RIM"),
    ("a CDATA section", edited(b"<ns0:Payload>", b"<ns0:Payload><![CDATA[x]]>"), "BAD_RIM"),
    ("a processing instruction", edited(b"<ns0:Payload>", b"<ns0:Payload><?x y?>"), "BAD_RIM"),
    ("a style sheet", lambda: b'<?xml-stylesheet href="x"?>' + driver_manifest(), "BAD_RIM"),
    ("UTF-16", lambda: driver_manifest().decode().encode("utf-16"), "BAD_RIM"),
    ("declared as UTF-7", lambda: b'<?xml version="1.0" encoding="UTF-7"?>' + driver_manifest(), "BAD_RIM"),
    ("not UTF-8", edited(b"GH100", b"GH\xff"), "BAD_RIM"),
    ("a zero byte", edited(b"GH100", b"GH\0"), "BAD_RIM"),
    ("an undefined entity", edited(b"GH100", b"&gh;"), "BAD_RIM"),
    ("two roots", lambda: driver_manifest() + b"<a/>", "BAD_RIM"),
    ("no signature", unsigned, "BAD_RIM"),
    ("a version of somebody's", edited(DRIVER.encode(), b"550.90.08"), "RIM_SIG_FAILED"),
    (
        "a measurement of somebody's",
        edited(measured(9).hex().encode(), bytes(48).hex().encode()),
        "RIM_SIG_FAILED",
    ),
    ("an attribute more", edited(b'edition="GPU"', b'edition="GPU" x="y"'), "RIM_SIG_FAILED"),
    ("text outside", edited(b"<ns0:Payload>", b"text<ns0:Payload>"), "RIM_SIG_FAILED"),
    ("another algorithm", edited(SIGNATURE, SIGNATURE.replace(b"384", b"256")), "BAD_RIM"),
    ("HMAC", edited(SIGNATURE, b"http://www.w3.org/2001/04/xmldsig-more#hmac-sha384"), "BAD_RIM"),
    ("another digest", edited(DIGEST, b"http://www.w3.org/2000/09/xmldsig#sha1"), "BAD_RIM"),
    ("another canonical form", edited(C14N, b"http://www.w3.org/2001/10/xml-exc-c14n#"), "BAD_RIM"),
    ("an XSLT transform", edited(ENVELOPED, b"http://www.w3.org/TR/1999/REC-xslt-19991116"), "BAD_RIM"),
    ("base64 as transform", edited(ENVELOPED, b"http://www.w3.org/2000/09/xmldsig#base64"), "BAD_RIM"),
    ("a reference to a part", edited(b'URI=""', b'URI="#x"'), "BAD_RIM"),
    ("a reference outside", edited(b'URI=""', b'URI="http://127.0.0.1/"'), "BAD_RIM"),
    ("no reference at all", edited(b' URI=""', b""), "BAD_RIM"),
    (
        "two references",
        lambda: driver_manifest().replace(b"</ds:Reference>", b"</ds:Reference><ds:Reference/>"),
        "BAD_RIM",
    ),
    (
        "two signatures",
        lambda: make_manifest(manifest_text(extra='<Signature xmlns="http://www.w3.org/2000/09/xmldsig#"/>')),
        "BAD_RIM",
    ),
    ("a signature inside", edited(b"<ns0:Payload>", b"<ns0:Payload>" + INNER), "BAD_RIM"),
    (
        "a signature value more",
        edited(b"</ds:SignedInfo>", b"</ds:SignedInfo><ds:SignatureValue/>"),
        "BAD_RIM",
    ),
    ("no key information", lambda: _without(b"<ds:KeyInfo>", b"</ds:KeyInfo>"), "BAD_RIM"),
    ("a key value beside", edited(b"<ds:X509Data>", b"<ds:X509Data><ds:KeyValue/>"), "BAD_RIM"),
    (
        "a certificate that is not base64",
        edited(b"<ds:X509Certificate>", b"<ds:X509Certificate>!"),
        "BAD_RIM",
    ),
    (
        "a certificate that is none",
        edited(b"<ds:X509Certificate>", b"<ds:X509Certificate>AAAA"),
        "BAD_CERTIFICATE",
    ),
    ("one certificate", lambda: make_manifest(listed=leaf_first(rim_signers())[:1]), "BAD_RIM"),
    ("seven certificates", lambda: make_manifest(listed=leaf_first(rim_signers())[:1] * 7), "BAD_RIM"),
    ("no root", lambda: make_manifest(listed=leaf_first(rim_signers())[:3]), "UNKNOWN_ROOT"),
    ("a gap in the chain", lambda: make_manifest(listed=_gap()), "CHAIN_BROKEN"),
    ("an intermediate's signature", lambda: make_manifest(signers=rim_signers()[:-1]), "KEY_USAGE"),
    (
        "another signer",
        lambda: make_manifest(signers=device(), listed=leaf_first(rim_signers())),
        "RIM_SIG_FAILED",
    ),
    (
        "no SWID tag",
        lambda: make_manifest(manifest_text().replace("SoftwareIdentity", "Software")),
        "BAD_RIM",
    ),
    ("no payload", lambda: make_manifest(manifest_text().replace("ns0:Payload", "ns0:Other")), "BAD_RIM"),
    ("two payloads", lambda: make_manifest(manifest_text(extra="<ns0:Payload/>")), "BAD_RIM"),
    ("no version", lambda: make_manifest(manifest_text("")), "BAD_RIM"),
    ("no product", lambda: make_manifest(manifest_text(product="")), "BAD_RIM"),
    ("no measurements", lambda: make_manifest(manifest_text(resources="")), "BAD_RIM"),
    ("none that is active", lambda: make_manifest(text(active="False")), "BAD_RIM"),
    (
        "a measurement twice",
        lambda: make_manifest(manifest_text(resources=resource(9, measured(9)) * 2)),
        "BAD_RIM",
    ),
    ("a digest too short", lambda: make_manifest(manifest_text(resources=resource(9, b"x" * 47))), "BAD_RIM"),
    ("fewer digests than counted", lambda: make_manifest(text(alternatives="2")), "BAD_RIM"),
    (
        "more digests than counted",
        lambda: make_manifest(manifest_text(resources=resource(9, b"x" * 48, b"y" * 48, alternatives="1"))),
        "BAD_RIM",
    ),
    ("another kind", lambda: make_manifest(text(type="MinSvn")), "RIM_UNSUPPORTED"),
    ("an index beyond", lambda: make_manifest(text(index="64")), "RIM_UNSUPPORTED"),
    ("a negative index", lambda: make_manifest(text(index="-1")), "RIM_UNSUPPORTED"),
    ("an index in other digits", lambda: make_manifest(text(index="٩")), "RIM_UNSUPPORTED"),
    ("no index", lambda: make_manifest(text(index="")), "RIM_UNSUPPORTED"),
    ("another size", lambda: make_manifest(text(size="32")), "RIM_UNSUPPORTED"),
    ("half active", lambda: make_manifest(text(active="true")), "RIM_UNSUPPORTED"),
    ("no alternative", lambda: make_manifest(text(alternatives="0")), "RIM_UNSUPPORTED"),
    ("too many alternatives", lambda: make_manifest(text(alternatives="17")), "RIM_UNSUPPORTED"),
    (
        "another element",
        lambda: make_manifest(manifest_text(resources="<ns0:Directory/>")),
        "RIM_UNSUPPORTED",
    ),
]


def _without(start: bytes, end: bytes) -> bytes:
    data = driver_manifest()
    return data[: data.index(start)] + data[data.index(end) + len(end) :]


def _gap() -> list[bytes]:
    chain = leaf_first(rim_signers())
    return [chain[0], chain[2], chain[3]]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in MANIFESTS], ids=[row[0] for row in MANIFESTS])
def test_a_bad_manifest_is_refused(make: Callable[[], bytes], code: str) -> None:
    assert refused(make()) == code


SIGNERS: list[tuple[str, Callable[[], tuple[Party, ...]], str]] = [
    ("expired", lambda: _signers(3, window=(NOW - DAY, NOW - 1)), "COLLATERAL_EXPIRED"),
    ("of tomorrow", lambda: _signers(3, window=(NOW + 1, NOW + DAY)), "COLLATERAL_NOT_YET_VALID"),
    ("under an expired one", lambda: _signers(2, window=(NOW - DAY, NOW - 1)), "COLLATERAL_EXPIRED"),
    ("under one that is no CA", lambda: _signers(2, ca=False, signs_certificates=True), "NOT_A_CA"),
    ("that may not sign data", lambda: _signers(3, signs_data=False), "KEY_USAGE"),
    ("under a path too short", lambda: _signers(1, path_length=0), "PATH_LENGTH"),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in SIGNERS], ids=[row[0] for row in SIGNERS])
def test_a_signer_out_of_order_is_refused(make: Callable[[], tuple[Party, ...]], code: str) -> None:
    signers = make()
    assert refused(make_manifest(signers=signers), signers) == code


def test_a_manifest_of_another_root_is_refused() -> None:
    assert refused(driver_manifest(), device()) == "UNKNOWN_ROOT"


def test_what_is_remembered_is_judged_anew() -> None:
    roots = (sha256(rim_signers()[0].certificate),)
    verify_manifest(driver_manifest(), roots, NOW)
    assert refused(driver_manifest(), now=NOW + 31 * DAY) == "COLLATERAL_EXPIRED"
    assert refused(driver_manifest(), now=NOW - 2 * DAY) == "COLLATERAL_NOT_YET_VALID"


def judged(report: ReportParts | None = None, /, **rims: bytes) -> NvidiaDevice:
    given = endorsements(rims={DRIVER_RIM: driver_manifest(), VBIOS_RIM: vbios_manifest()} | rims)
    data = make_evidence((make_report(report), leaf_first(device())))
    return NvidiaDetails.of(verify(data, given, NOW)).devices[0]


def blocks(**digests: bytes) -> bytes:
    return b"".join(block(index + 1, digests.get(f"i{index}")) for index in range(64))


@pytest.mark.parametrize("index", [*DRIVER_INDICES[:3], *VBIOS_INDICES])
def test_a_measurement_of_another_firmware_shows(index: int) -> None:
    found = judged(ReportParts(blocks=blocks(**{f"i{index}": b"?" * 48})))
    assert (found.compared, found.differing) == (8, (index,))


def test_every_alternative_counts() -> None:
    assert judged(ReportParts(blocks=blocks(i9=b"x" * 48))).differing == ()


def test_the_video_decoder_counts_where_it_is_on() -> None:
    other = blocks(i35=b"?" * 48)
    assert judged(ReportParts(blocks=other)).differing == ()
    on = opaque(f11=b"\xaa")
    assert judged(ReportParts(blocks=other, opaque=on)).differing == (35,)
    assert judged(ReportParts(blocks=other, opaque=opaque(f11=None))).differing == (35,)


def test_a_measurement_that_the_report_lacks_differs() -> None:
    few = ReportParts(blocks=b"".join(block(index) for index in range(1, 11)), count=10)
    assert judged(few).differing == (11, 20)


def test_measurements_that_no_manifest_names_do_not_count() -> None:
    assert judged(ReportParts(blocks=blocks(i50=b"?" * 48, i60=b"?" * 48))).differing == ()


@cache
def overlapping() -> bytes:
    return make_manifest(manifest_text(VBIOS, (0, 9)))


@cache
def of_another_chip() -> bytes:
    return make_manifest(manifest_text(VBIOS, VBIOS_INDICES, product="GB100"))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (VBIOS_RIM, driver_manifest),
        (DRIVER_RIM, vbios_manifest),
        (VBIOS_RIM, overlapping),
        (VBIOS_RIM, of_another_chip),
    ],
)
def test_a_manifest_under_anothers_name_is_refused(name: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(Error, match="COLLATERAL_MISMATCH"):
        judged(**{name: make()})


def test_a_bad_manifest_for_another_device_is_left_aside() -> None:
    assert judged(**{"NV_GPU_DRIVER_GH100_1.2.3": b"<a/>"}).compared == 8


@pytest.mark.parametrize("missing", ["lxml", "lxml.etree", "signxml.algorithms", "signxml.verifier"])
def test_without_the_extra_it_says_which(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ephemeralml.attestation.nvidia import rim

    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "lxml":
        monkeypatch.setitem(sys.modules, "lxml.etree", None)
    rim._signed_content.cache_clear()
    with pytest.raises(ConfigurationError, match="EXTRA_MISSING") as caught:
        verify_manifest(driver_manifest(), (sha256(rim_signers()[0].certificate),), NOW)
    assert "ephemeralml[nvidia]" in caught.value.message


def test_files_are_read_by_their_names() -> None:
    given = from_files({f"{DRIVER_RIM}.swidtag": driver_manifest(), f"{VBIOS_RIM}.xml": vbios_manifest()})
    assert set(given.rims) == {DRIVER_RIM, VBIOS_RIM}
    own = given.with_files({f"{DRIVER_RIM}.xml": b"<other/>"})
    assert own.rims[DRIVER_RIM] == driver_manifest()  # what is there already stays


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"readme.txt": b""}, "UNKNOWN_COLLATERAL"),
        ({"../NV_GPU_DRIVER_GH100_1.2.swidtag": b"<a/>"}, "UNKNOWN_COLLATERAL"),
        ({"NV_GPU_DRIVER_GH100_1.2.swidtag": BOMB}, "BAD_RIM"),
        ({"a.ocsp": b"0"}, "BAD_OCSP"),
        ({"jwks.json": b"{}"}, "BAD_JWKS"),
        ({f"NV_A_{n}.xml": b"<a/>" for n in range(65)}, "OUT_OF_BOUNDS"),
    ],
)
def test_files_that_are_something_else_are_refused(files: dict[str, bytes], code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        NvidiaEndorsements().with_files(files)
    assert caught.value.code == code
