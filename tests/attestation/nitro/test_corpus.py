"""Documents recorded on hardware: each gives its expected result, at its own time only."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.attestation import MeasurementSet, Platforms, TrustPolicy, appraise
from ephemeralml.attestation.nitro import AWS_NITRO_ROOT_G1, NitroDetails, NitroEndorsements
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, Error, MalformedError, VerificationError

from ...corpus import corpus

GENUINE = (
    "evervault_2022_prod",
    "evervault_2022_debug",
    "blocky_2024_prod_maxfields",
    "eternis_2024a_debug",
    "mysten_2025_prod_pcr16",
    "nautilus_2025_weather_prod",
    "base_2026_prod_repaired",
)
REFUSED = (
    ("NEG_eternis_badsig_debug", 1721770180, "SIG_FAILED"),
    ("NEG_DERIVED_pcr0_bitflip", 1665651482, "SIG_FAILED"),
    ("NEG_DERIVED_sig_bitflip", 1665651482, "SIG_FAILED"),
    ("NEG_base_2026_malformed_cbor", 1767472867, "CBOR_BAD_UTF8"),
    ("NEG_blocky_selfsigned_no_cabundle", 1713379906, "COSE_SHAPE"),
)


@cache
def _expected(stem: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = json.loads(corpus("nitro/EXPECTED.json").read_text())
    return next(row for row in rows if Path(row["file"]).stem == stem)


def _document(stem: str) -> bytes:
    return corpus(f"nitro/{stem}.bin").read_bytes()


def _policy(stem: str, **changes: Any) -> TrustPolicy:
    pcrs = parse(_document(stem)).pcrs
    wanted = MeasurementSet(name=stem, **{f"pcr{index}": pcrs[index].hex() for index in (0, 1, 2, 3, 4, 8)})
    return TrustPolicy(version="1", platforms=Platforms(nitro=(wanted,)), **changes)


def test_every_file_of_the_corpus_is_tested() -> None:
    names = {path.stem for path in corpus("nitro").glob("*.bin")}
    assert names == {*GENUINE, *(stem for stem, _, _ in REFUSED)}
    rows = json.loads(corpus("nitro/EXPECTED.json").read_text())
    assert {Path(row["file"]).stem for row in rows if row["ok"]} == set(GENUINE)


def test_the_pinned_root_is_the_vendors() -> None:
    assert sha256(corpus("nitro/aws_nitro_root_g1.der").read_bytes()) == AWS_NITRO_ROOT_G1


@pytest.mark.parametrize("stem", GENUINE)
def test_a_recorded_document_verifies_at_its_own_time(stem: str) -> None:
    expected, data = _expected(stem), _document(stem)
    verified = verify(data, NitroEndorsements(), expected["time"])
    assert (verified.debug, NitroDetails.of(verified).module_id) == (expected["debug"], expected["module"])
    assert len(NitroDetails.of(verified).registers) == expected["npcr"]
    assert verified.issued_at == expected["time"]
    assert verified.evidence_hash == sha256(data)
    assert verified.root_fingerprint == AWS_NITRO_ROOT_G1
    assert verified.platform == "nitro"
    assert not verified.simulated


@pytest.mark.parametrize("stem", GENUINE)
def test_validity_ends_where_the_chains_does(stem: str) -> None:
    expected, data = _expected(stem), _document(stem)
    first, last = (
        int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in expected["window"]
    )
    assert verify(data, NitroEndorsements(), first).not_before == first
    assert verify(data, NitroEndorsements(), last).not_after == last
    with pytest.raises(VerificationError, match="CERTIFICATE_NOT_YET_VALID"):
        verify(data, NitroEndorsements(), first - 1)
    with pytest.raises(VerificationError, match="CERTIFICATE_EXPIRED"):
        verify(data, NitroEndorsements(), last + 1)


@pytest.mark.parametrize(("stem", "now", "code"), REFUSED)
def test_a_bad_document_is_refused(stem: str, now: int, code: str) -> None:
    with pytest.raises((MalformedError, VerificationError)) as caught:
        verify(_document(stem), NitroEndorsements(), now)
    assert caught.value.code == code


@pytest.mark.parametrize("stem", GENUINE)
def test_debug_is_refused_and_production_is_not(stem: str) -> None:
    expected = _expected(stem)
    verified = verify(_document(stem), NitroEndorsements(), expected["time"])
    if not expected["debug"]:
        assert appraise(verified, _policy(stem), expected["time"]).security_mode == "production"
        return
    with pytest.raises(AppraisalError) as caught:
        appraise(verified, _policy(stem), expected["time"])
    codes = [code for code, _ in caught.value.findings]
    assert codes == ["DEBUG_NOT_ALLOWED", "SECURITY_MODE_NOT_ALLOWED"]


def test_the_debug_override_is_named_and_gives_evaluation() -> None:
    stem = "evervault_2022_debug"
    verified = verify(_document(stem), NitroEndorsements(), _expected(stem)["time"])
    policy = _policy(stem, dangerous_allow_debug=True, security_modes=("evaluation",))
    appraisal = appraise(verified, policy, _expected(stem)["time"])
    assert appraisal.security_mode == "evaluation"
    assert ("DEBUG", "the TEE's host may read its memory") in appraisal.findings


def test_every_flipped_byte_of_a_recorded_document_is_refused() -> None:
    data, now = _document("evervault_2022_prod"), _expected("evervault_2022_prod")["time"]
    for position in range(0, len(data), 7):
        mutated = bytearray(data)
        mutated[position] ^= 1 << position % 8
        with pytest.raises(Error):
            verify(bytes(mutated), NitroEndorsements(), now)
