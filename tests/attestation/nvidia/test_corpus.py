"""Evidence recorded on hardware: each file gives its expected result."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509

from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nvidia import (
    DEVICE_ROOT,
    NRAS_ISSUER,
    RIM_ROOT,
    NvidiaDetails,
    NvidiaEndorsements,
    evidence_from,
    from_files,
)
from ephemeralml.attestation.nvidia.identity import read_identity
from ephemeralml.attestation.nvidia.parse import Architecture, DeviceEvidence, parse
from ephemeralml.attestation.nvidia.rim import verify_manifest
from ephemeralml.attestation.nvidia.vendor import evidence_of_report, read_pem_chain
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import EndorsementsError, Error, VerificationError

from ...corpus import corpus

#: When the certificates of both manifests of the H100 report are valid.
NOW = 1_767_900_000
MATCHING = ("NV_GPU_DRIVER_GH100_550.90.07.swidtag", "NV_GPU_VBIOS_1010_0200_882_96009F0001.swidtag")
REPORTS: list[tuple[str, str, Architecture]] = [
    ("h100_550.90.07_report.hex", "h100_550.90.07_chain.pem", "HOPPER"),
    ("sdk/sample_hopperAttestationReport.txt", "sdk/sample_hopperCertChain.txt", "HOPPER"),
    ("sdk/sample_hopperAttestationReportInvalidSignature.txt", "sdk/sample_hopperCertChain.txt", "HOPPER"),
    ("sdk/blackwellAttestationReport.txt", "sdk/blackwellCertChain.txt", "BLACKWELL"),
]
LISTS = ("hopper_evidence", "hopper_evidence_cert_hold", "switch_evidence_ls10")
SERVICE = (("nanogpt_1gpu_20260610", True), ("chutes_8gpu_20260629_OVERALL_FALSE", False))


def read(name: str) -> bytes:
    return corpus(f"nvidia/{name}").read_bytes()


@cache
def expected() -> Any:
    return json.loads(read("EXPECTED.json"))


def expected_of(kind: str, name: str) -> dict[str, Any]:
    return next(row for row in expected()[kind] if row["file"] == f"nvidia/{name}")


def recorded(name: str, chain: str, architecture: Architecture) -> bytes:
    data = evidence_of_report(read(name), read(chain))
    assert data == evidence_from(read(name).strip() + b"\n" + read(chain))
    found = parse(data)
    assert isinstance(found, DeviceEvidence)
    assert found.architecture == architecture
    return data


def judge(data: bytes, endorsements: NvidiaEndorsements | None = None, now: int = NOW) -> VerifiedEvidence:
    return verify(data, endorsements or NvidiaEndorsements(), now)


def test_every_file_of_the_corpus_is_tested() -> None:
    folder = corpus("nvidia")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    known = {name for row in REPORTS for name in row[:2]}
    known |= {f"sdk/{name}.json" for name in LISTS} | {f"nolicense/{name}" for name in MATCHING}
    known |= {f"agpl/{name}.{kind}.json" for name, _ in SERVICE for kind in ("eat", "jwks", "request")}
    known |= {f"sdk/{name}" for name, *_ in MANIFESTS}
    known |= {"device_root.pem", "rim_root.pem", "nolicense/device_root_L1B.pem", "nras_gpu_x5c_chain.json"}
    assert found == known | {"sdk/hopperClaimsv3_detached_eat.json", "EXPECTED.json"}


def test_the_pinned_roots_are_the_vendors() -> None:
    assert sha256(read_pem_chain(read("device_root.pem"))[0]) == DEVICE_ROOT
    assert sha256(read_pem_chain(read("rim_root.pem"))[0]) == RIM_ROOT
    x5c = json.loads(read("nras_gpu_x5c_chain.json"))["x5c"]
    assert sha256(base64.b64decode(x5c[1])) == NRAS_ISSUER


def test_the_older_root_of_the_same_name_is_not_pinned() -> None:
    # Of one name and one key, by another certificate: a verifier that wants it pins it too.
    other = read_pem_chain(read("nolicense/device_root_L1B.pem"))[0]
    assert sha256(other) != DEVICE_ROOT
    data = parse(recorded(*REPORTS[0]))
    assert isinstance(data, DeviceEvidence)
    chain = (*data.devices[0].chain[:-1], other)
    from ephemeralml.attestation.nvidia.parse import encode_devices

    swapped = encode_devices("gpu", "HOPPER", data.nonce, [(data.devices[0].report_bytes, chain)])
    with pytest.raises(VerificationError, match="UNKNOWN_ROOT"):
        judge(swapped)
    assert judge(swapped, NvidiaEndorsements(device_roots=(sha256(other),))).root_fingerprint == sha256(other)


@pytest.mark.parametrize("row", REPORTS, ids=[row[0] for row in REPORTS])
def test_a_recorded_report_gives_what_is_expected(row: tuple[str, str, Architecture]) -> None:
    want = expected_of("reports", row[0])
    data = recorded(*row)
    if want["sig"] != "OK":
        with pytest.raises(VerificationError, match="SIG_FAILED"):
            judge(data)
        return
    verified = judge(data)
    details = NvidiaDetails.of(verified)
    (device,) = details.devices
    assert verified.root_fingerprint == DEVICE_ROOT
    assert (device.driver, device.architecture, details.nonce.hex()) == (
        want["driver"],
        row[2],
        want["nonce"],
    )
    octets = bytes.fromhex(want["vbios_le"])
    assert device.vbios == ".".join(
        f"{one:02X}" for one in (octets[3], octets[2], octets[1], octets[0], octets[4])
    )
    assert device.firmware_bound == (want["fwid"] != "none-in-report")
    assert (verified.issued_at, verified.measurements, verified.evidence_hash) == (None, None, sha256(data))
    codes = {code for code, _ in verified.findings}
    assert {"MEASUREMENTS_NOT_COMPARED", "DEBUG_NOT_CHECKED", "OCSP_NOT_CHECKED"} <= codes


def test_of_two_firmwares_in_a_blackwell_leaf_the_loaded_one_counts() -> None:
    data = parse(recorded(*REPORTS[3]))
    assert isinstance(data, DeviceEvidence)
    identity = read_identity(data.devices[0].chain[0], data.devices[0].chain[1])
    assert identity.chip == "GB100"
    assert len(identity.fwids) == 2
    assert identity.fwids == (data.devices[0].report.opaque.fwid, bytes(48))


def test_the_measurements_of_a_recorded_gpu_are_those_of_its_manifests() -> None:
    files = {name: read(f"nolicense/{name}") for name in MATCHING}
    verified = judge(recorded(*REPORTS[0]), from_files(files))
    (device,) = NvidiaDetails.of(verified).devices
    assert (device.compared, device.differing) == (33, ())
    assert "MEASUREMENTS_NOT_COMPARED" not in {code for code, _ in verified.findings}
    assert (verified.not_before, verified.not_after) == (1_767_811_161, 1_780_279_709)


@pytest.mark.parametrize("missing", MATCHING)
def test_one_of_two_manifests_is_no_comparison(missing: str) -> None:
    files = {name: read(f"nolicense/{name}") for name in MATCHING if name != missing}
    (device,) = NvidiaDetails.of(judge(recorded(*REPORTS[0]), from_files(files))).devices
    assert (device.compared, device.differing) == (None, ())


@pytest.mark.parametrize(
    ("now", "code"), [(1_767_811_160, "COLLATERAL_NOT_YET_VALID"), (1_780_279_710, "COLLATERAL_EXPIRED")]
)
def test_manifests_count_while_both_their_signers_are_valid(now: int, code: str) -> None:
    files = {name: read(f"nolicense/{name}") for name in MATCHING}
    with pytest.raises(EndorsementsError, match=code):
        judge(recorded(*REPORTS[0]), from_files(files), now)


def test_measurements_that_differ_are_named() -> None:
    # The driver's manifest as it is, and another VBIOS's under the name of the right one: its version shows.
    swapped = read("sdk/NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml")
    files = {MATCHING[0]: read(f"nolicense/{MATCHING[0]}"), MATCHING[1]: swapped}
    with pytest.raises(EndorsementsError, match="COLLATERAL_MISMATCH"):
        judge(recorded(*REPORTS[0]), from_files(files), 1_760_000_000)
    # Under its own name it says which measurements of an older report are not the vendor's.
    manifest = verify_manifest(swapped, (RIM_ROOT,), 1_760_000_000)
    older = parse(recorded(*REPORTS[1]))
    assert isinstance(older, DeviceEvidence)
    found = older.devices[0].report.measurements
    assert manifest.version == older.devices[0].report.opaque.vbios
    assert [index for index, allowed in manifest.measurements.items() if found[index] not in allowed]


MANIFESTS = [
    ("incorrect_signature_driver_rim.xml", 1_767_900_000, "RIM_SIG_FAILED"),
    ("incorrect_cert_chain_driver_rim.xml", 1_767_900_000, "UNKNOWN_ROOT"),
    ("NV_GPU_DRIVER_GH100_570.124.03_expired.xml", 1_767_900_000, "COLLATERAL_EXPIRED"),
    ("NV_GPU_DRIVER_GH100_570.124.03_expired.xml", 1_735_732_000, "RIM_SIG_FAILED"),  # edited, too
    ("NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml", 1_767_900_000, "COLLATERAL_EXPIRED"),
    ("NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml", 1_767_900_000, "RIM_SIG_FAILED"),
]


@pytest.mark.parametrize(("name", "now", "code"), MANIFESTS)
def test_a_bad_manifest_is_refused(name: str, now: int, code: str) -> None:
    with pytest.raises(Error) as caught:
        verify_manifest(read(f"sdk/{name}"), (RIM_ROOT,), now)
    assert caught.value.code == code


@pytest.mark.parametrize("name", LISTS)
def test_recorded_lists_verify(name: str) -> None:
    data = evidence_from(read(f"sdk/{name}.json"))
    verified = judge(data)
    details = NvidiaDetails.of(verified)
    assert details.kind == ("switch" if "switch" in name else "gpu")
    assert details.nonce.hex() == json.loads(read(f"sdk/{name}.json"))[0]["nonce"]
    assert details.binds_nonce(details.nonce)
    assert not details.binds_nonce(bytes(32))
    assert details.devices[0].firmware_bound == (details.kind == "gpu")
    # Whether a certificate is on hold only its OCSP answer says; without one it is a finding, no pass.
    assert "OCSP_NOT_CHECKED" in {code for code, _ in verified.findings}


def test_the_protected_pcie_mode_is_read() -> None:
    (device,) = NvidiaDetails.of(judge(evidence_from(read("sdk/hopper_evidence.json")))).devices
    assert device.mode == "ppcie"


@pytest.mark.parametrize(("name", "good"), SERVICE)
def test_the_services_recorded_answers_verify_while_they_last(name: str, good: bool) -> None:
    want = expected_of("nras", f"agpl/{name}.eat.json")
    data = evidence_from(read(f"agpl/{name}.eat.json"))
    keys = from_files({"jwks.json": read(f"agpl/{name}.jwks.json")})
    verified = judge(data, keys, want["iat"])
    details = NvidiaDetails.of(verified)
    assert (details.result, good) == (want["overall"], want["overall"])
    assert (details.nonce.hex(), verified.issued_at) == (want["eat_nonce"], want["iat"])
    assert len(details.devices) == len(want["sub_sigs"])
    assert (verified.not_after, verified.root_fingerprint) == (want["exp"], NRAS_ISSUER)
    assert any(device.objections for device in details.devices) == (not good)
    for now, code in ((want["exp"] + 1, "TOKEN_EXPIRED"), (want["iat"] - 301, "TOKEN_NOT_YET_VALID")):
        with pytest.raises(VerificationError, match=code):
            judge(data, keys, now)


def test_a_recorded_answer_needs_its_days_keys() -> None:
    data = evidence_from(read(f"agpl/{SERVICE[0][0]}.eat.json"))
    other = from_files({"jwks.json": read(f"agpl/{SERVICE[1][0]}.jwks.json")})
    with pytest.raises(EndorsementsError, match="UNKNOWN_KEY_ID"):
        judge(data, other, 1_781_056_142)
    # The same keys under a pin of somebody else are nobody's.
    own = from_files({"jwks.json": read(f"agpl/{SERVICE[0][0]}.jwks.json")})
    with pytest.raises(VerificationError, match="UNKNOWN_ROOT"):
        judge(data, replace(own, nras_issuers=(bytes(32),)), 1_781_056_142)


def test_an_answer_without_keys_cannot_be_judged() -> None:
    data = evidence_from(read("sdk/hopperClaimsv3_detached_eat.json"))
    with pytest.raises(EndorsementsError, match="NO_COLLATERAL"):
        judge(data, now=1_749_601_858)


@pytest.mark.parametrize("name", [name for name, _ in SERVICE])
def test_the_recorded_requests_hold_genuine_reports(name: str) -> None:
    request = json.loads(read(f"agpl/{name}.request.json"))
    answered = base64.b64decode(request["evidence_list"][0]["evidence"])[4:36].hex()
    if request["nonce"] != answered:  # which is why the service said no
        with pytest.raises(VerificationError, match="NONCE_MISMATCH"):
            judge(evidence_from(json.dumps(request).encode()))
    request["nonce"] = answered
    details = NvidiaDetails.of(judge(evidence_from(json.dumps(request).encode())))
    assert len({device.serial for device in details.devices}) == len(request["evidence_list"])


def test_a_recorded_device_twice_is_refused() -> None:
    entry = json.loads(read("sdk/hopper_evidence.json"))[0]
    with pytest.raises(VerificationError, match="DEVICE_TWICE"):
        judge(evidence_from(json.dumps([entry, entry]).encode()))


def test_the_service_and_the_report_agree_on_versions() -> None:
    name = SERVICE[0][0]
    keys = from_files({"jwks.json": read(f"agpl/{name}.jwks.json")})
    (said,) = NvidiaDetails.of(
        judge(evidence_from(read(f"agpl/{name}.eat.json")), keys, 1_781_056_142)
    ).devices
    (seen,) = NvidiaDetails.of(judge(evidence_from(read(f"agpl/{name}.request.json")))).devices
    assert (said.driver, said.vbios, said.architecture) == (seen.driver, seen.vbios, seen.architecture)
    leaf = x509.load_der_x509_certificate(_leaf(name))
    assert said.serial == str(leaf.serial_number)


def _leaf(name: str) -> bytes:
    read_back = parse(evidence_from(read(f"agpl/{name}.request.json")))
    assert isinstance(read_back, DeviceEvidence)
    return read_back.devices[0].chain[0]


def test_every_flipped_byte_of_a_recorded_report_is_refused() -> None:
    data = recorded(*REPORTS[0])
    report = bytes.fromhex(read(REPORTS[0][0]).decode())
    start = data.index(report)
    for place in range(0, len(report), 37):
        changed = bytearray(data)
        changed[start + place] ^= 0x10
        with pytest.raises(Error):
            judge(bytes(changed))
