"""Recorded quotes with recorded collateral: what comes out is what independent tools said."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.tdx import INTEL_SGX_ROOT, TdxDetails, TdxEndorsements, from_files
from ephemeralml.attestation.tdx.show import show
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import Error

from ...corpus import corpus

ROWS = 29
# What the independent verifier says, in our words.
CODES = {
    "No matching TCB level found": "NO_TCB_LEVEL",
    "CertNotValidYet": "CERTIFICATE_NOT_YET_VALID",
}


@cache
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(corpus("tdx/EXPECTED.json").read_text())
    assert len(found) == ROWS
    return found


@cache
def collateral(folder: str) -> TdxEndorsements:
    return from_files({"collateral.json": corpus(f"{folder}/collateral.json").read_bytes()})


def judged(row: dict[str, Any], endorsements: TdxEndorsements) -> VerifiedEvidence | str:
    try:
        return verify(corpus(row["quote"]).read_bytes(), endorsements, row["time"])
    except Error as error:
        return error.code


@pytest.mark.parametrize("index", range(ROWS))
def test_every_quote_gives_what_is_expected(index: int) -> None:
    row = rows()[index]
    expected, found = row["dcap_qvl_0_7_0"], judged(row, collateral(row["collateral"]))
    if expected["error"] is None:
        assert isinstance(found, VerifiedEvidence)
        details = TdxDetails.of(found)
        assert (details.tcb_status, list(details.advisory_ids)) == (
            expected["status"],
            expected["advisory_ids"],
        )
        assert not found.debug
        assert bool(found.findings) == (expected["status"] != "UpToDate")
        assert found.not_before <= row["time"] <= found.not_after
    elif "Debug mode" in expected["error"]:
        assert isinstance(found, VerifiedEvidence)
        assert found.debug
        assert "ONE_VERIFIER_ONLY" in dict(found.findings)
    else:
        assert found == next(code for words, code in CODES.items() if words in expected["error"])


def test_the_collateral_of_a_quote_is_found_among_others() -> None:
    everything = TdxEndorsements()
    folders = sorted({row["collateral"] for row in rows()})
    files = {
        f"{folder.rsplit('/', 1)[1]}_collateral.json": corpus(f"{folder}/collateral.json").read_bytes()
        for folder in folders
    }
    everything = everything.with_files(files)
    for row in rows():
        alone, among = judged(row, collateral(row["collateral"])), judged(row, everything)
        if isinstance(alone, VerifiedEvidence):
            assert isinstance(among, VerifiedEvidence)
            assert TdxDetails.of(among).tcb_status == TdxDetails.of(alone).tcb_status


@pytest.mark.parametrize("index", [0, 3, 12])
def test_separate_files_say_what_the_one_file_says(index: int) -> None:
    row = rows()[index]
    folder, whole = row["collateral"], json.loads(corpus(f"{row['collateral']}/collateral.json").read_text())
    names = ("tcb_info.body.json", "qe_identity.body.json", "pck_crl.der", "root_ca_crl.der")
    files = {name: corpus(f"{folder}/{name}").read_bytes() for name in names}
    assert judged(row, from_files(files)) == "NO_COLLATERAL"
    files["tcb_signing_chain.pem"] = whole["tcb_info_issuer_chain"].encode()
    assert judged(row, from_files(files)) == judged(row, collateral(folder))


@pytest.mark.parametrize("name", ["NEG_DERIVED_mrtd_bitflip", "NEG_EphemeralML_SYNTHETIC_cpu"])
@pytest.mark.parametrize("index", [0, 3, 5])
def test_false_quotes_are_refused(name: str, index: int) -> None:
    row = dict(rows()[index], quote=f"tdx/{name}.quote")
    expected = "SIG_FAILED" if "bitflip" in name else "BAD_QUOTE"
    wide = replace(collateral(row["collateral"]))
    assert judged(row, wide) == expected


def test_the_vendors_own_sample_is_refused() -> None:
    row = dict(rows()[0], quote="tdx/intel_qvl_sample/quote.dat")
    assert judged(row, collateral(row["collateral"])) == "BAD_CERTIFICATE"


def test_the_pinned_root_is_intels() -> None:
    root = x509.load_pem_x509_certificate(corpus("tdx/intel_sgx_root_ca.pem").read_bytes())
    assert sha256(root.public_bytes(Encoding.DER)) == INTEL_SGX_ROOT


def test_what_a_quote_says_is_shown() -> None:
    lines = dict(show(corpus("tdx/google_v5_90c06f.quote").read_bytes()))
    assert (lines["FMSPC"], lines["quote version"]) == ("90c06f000000", "5")
