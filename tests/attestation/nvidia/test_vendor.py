"""The vendor's own forms of evidence, taken as they are."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.nvidia import evidence_from
from ephemeralml.attestation.nvidia.parse import encode_answer
from ephemeralml.attestation.nvidia.vendor import evidence_of_report, read_pem_chain
from ephemeralml.wire.errors import Error, MalformedError

from . import service
from .forge import (
    NONCE,
    Cert,
    ReportParts,
    block,
    device,
    device_name,
    issue,
    leaf_first,
    make_evidence,
    make_report,
    opaque,
)


def pem(chain: list[bytes] | None = None) -> bytes:
    ders = leaf_first(device()) if chain is None else chain
    return b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in ders)


def entry(**changes: object) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "arch": "HOPPER",
        "nonce": NONCE.hex(),
        "evidence": base64.b64encode(make_report()).decode(),
        "certificate": base64.b64encode(pem()).decode(),
    }
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def converted(value: object) -> bytes:
    return evidence_from(json.dumps(value).encode())


def request(**changes: object) -> dict[str, object]:
    return {"arch": "HOPPER", "nonce": NONCE.hex(), "evidence_list": [entry(nonce=..., arch=...)], **changes}


def same(found: bytes) -> bool:
    """ECDSA signs differently each time: compare without the signature."""
    good = make_evidence()
    return len(found) == len(good) and found[:3000] == good[:3000]


def test_every_form_gives_the_one_that_travels() -> None:
    assert same(converted([entry()]))
    assert same(converted([entry(version="1.0", driver_version="x")]))
    assert same(converted(request()))
    assert same(evidence_of_report(make_report(), pem()))
    assert same(evidence_of_report(make_report().hex().encode() + b"\n", pem()))
    assert same(evidence_from(make_report().hex().encode() + b"\n" + pem()))
    answer = json.dumps(service.answer()).encode()
    assert evidence_from(answer) == encode_answer(answer)


def test_what_travels_already_stays_as_it_is() -> None:
    data = make_evidence()
    assert evidence_from(data) == data
    assert evidence_from(b"anything else") == b"anything else"


def test_a_report_of_a_switch_becomes_evidence_of_a_switch() -> None:
    switch = opaque({6: b"96.10.55.00.01"})
    report = make_report(ReportParts(opaque=switch, blocks=block(1), count=1))
    name = device_name("NVIDIA:LS_10:48B02DFE0092CDDB")
    chain = (*device()[:4], issue(Cert("leaf", ca=False, extensions=(name,)), device()[3]))
    assert b"fswitch" in evidence_of_report(report, pem(leaf_first(chain)))
    assert b"fswitch" in evidence_from(report.hex().encode() + pem(leaf_first(chain)))


@pytest.mark.parametrize("text", ["NVIDIA:TU102:48B02DFE0092CDDB", "ACME:GH100:48B02DFE0092CDDB"])
def test_a_report_of_another_device_is_refused(text: str) -> None:
    chain = (*device()[:4], issue(Cert("leaf", ca=False, extensions=(device_name(text),)), device()[3]))
    with pytest.raises(MalformedError, match="BAD_EVIDENCE"):
        evidence_of_report(make_report(), pem(leaf_first(chain)))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([], "BAD_EVIDENCE"),
        ({}, "BAD_EVIDENCE"),
        ([1], "BAD_EVIDENCE"),
        ([entry(arch=...)], "BAD_EVIDENCE"),
        ([entry(arch="ADA")], "BAD_EVIDENCE"),
        ([entry(nonce=...)], "BAD_EVIDENCE"),
        ([entry(nonce=7)], "BAD_EVIDENCE"),
        ([entry(nonce="xyz")], "BAD_EVIDENCE"),
        ([entry(nonce="00")], "OUT_OF_BOUNDS"),
        ([entry(evidence=...)], "BAD_EVIDENCE"),
        ([entry(evidence="*")], "BAD_EVIDENCE"),
        ([entry(evidence="AAAA")], "BAD_REPORT"),
        ([entry(certificate=...)], "BAD_EVIDENCE"),
        ([entry(certificate="AAAA")], "BAD_CERTIFICATE"),
        ([entry(), 1], "BAD_EVIDENCE"),
        ([entry(), entry(nonce="00" * 32)], "BAD_EVIDENCE"),
        ([entry(), entry(arch="BLACKWELL")], "BAD_EVIDENCE"),
        ([entry()] * 9, "OUT_OF_BOUNDS"),
        (request(evidence_list=[]), "OUT_OF_BOUNDS"),
        (request(evidence_list="x"), "BAD_EVIDENCE"),
        (request(arch="x"), "BAD_EVIDENCE"),
        ([["JWT", "a.b"], {"GPU-0": "a"}], "BAD_JWT"),
    ],
)
def test_a_form_that_is_broken_is_refused(value: object, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        converted(value)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pem()[:-40],
        pem() * 2,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b" " * 40_000,
    ],
)
def test_a_chain_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="BAD_CERTIFICATE"):
        read_pem_chain(data)


@pytest.mark.parametrize("report", [b"", b"zz", b"1", b"\x11", "ü".encode(), b"11" * 20_000])
def test_a_report_that_is_none_is_refused(report: bytes) -> None:
    with pytest.raises(MalformedError):
        evidence_of_report(report, pem())


def test_an_answer_must_be_text() -> None:
    with pytest.raises(MalformedError, match="BAD_EVIDENCE"):
        encode_answer(b"\xff")


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda part: (
            st.lists(part)
            | st.dictionaries(
                st.sampled_from(["arch", "nonce", "evidence", "certificate", "evidence_list", "JWT"]), part
            )
        ),
    )
)
def test_any_json_is_refused_with_a_code(value: object) -> None:
    data = json.dumps(value).encode()
    try:
        found = evidence_from(data)
    except Error as error:
        found = error.code.encode()
    assert found == data or found.isupper()
