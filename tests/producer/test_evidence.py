"""``verify evidence`` and ``attest`` as commands: every exit, what they print, and what they never print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ephemeralml.attestation import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.attest import detect
from ephemeralml.attestation.attest.nitro import NitroAttester
from ephemeralml.attestation.confidential_space.verify import verify as verify_token
from ephemeralml.attestation.nvidia.verify import verify as verify_gpus
from ephemeralml.attestation.show import guess_platform, printable, show
from ephemeralml.cli import main
from ephemeralml.producer.cli.evidence import _without_policy
from ephemeralml.receipts.issue import issue
from ephemeralml.wire.errors import ConfigurationError, EndorsementsError, MalformedError

from ..attestation.confidential_space import forge as tokens
from ..attestation.nitro.forge import make_chain, make_document, make_payload
from ..attestation.nitro.nsm import EmulatedNsm
from ..attestation.nvidia import forge as gpus
from ..attestation.nvidia import service
from ..corpus import corpus
from ..receipts.samples import CLAIMS, KEY, PUBLIC

PROD, PROD_TIME = "nitro/evervault_2022_prod.bin", 1665651482
DEBUG, DEBUG_TIME = "nitro/evervault_2022_debug.bin", 1665582606


def run(*words: object) -> int:
    with patch.object(sys, "argv", ["ephemeralml", *map(str, words)]), pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def judged(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = run("verify", "evidence", *words, "--json")
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def root() -> DevelopmentRoot:
    return DevelopmentRoot.create()


@pytest.fixture
def simulated(root: DevelopmentRoot, tmp_path: Path) -> Path:
    """Evidence of a simulated TEE."""
    path = tmp_path / "evidence.bin"
    path.write_bytes(SimulatedAttester(root, development_pcrs("image")).attest(nonce=b"n" * 32))
    return path


@pytest.fixture
def policy(root: DevelopmentRoot, tmp_path: Path) -> Path:
    """A policy that wants the simulated image."""
    return policy_for(root, tmp_path, "image")


def policy_for(root: DevelopmentRoot, folder: Path, image: str) -> Path:
    wanted = {f"pcr{index}": value.hex() for index, value in development_pcrs(image).items()}
    path = folder / f"{image}.json"
    platforms = {
        "simulated": {
            "dangerous_allow": True,
            "root_fingerprint": root.fingerprint.hex(),
            "measurement_sets": [{"name": image, **wanted}],
        }
    }
    path.write_text(json.dumps({"version": "1", "security_modes": ["evaluation"], "platforms": platforms}))
    return path


def nitro_policy(folder: Path, **changes: object) -> Path:
    """A policy that names the recorded production enclave's application."""
    words = dict(show("nitro", corpus(PROD).read_bytes()))
    pcr2 = next(value for label, value in words.items() if label.startswith("PCR2"))
    wanted = {"name": "recorded", "pcr0": "UNCHECKED", "pcr1": "UNCHECKED", "pcr2": pcr2}
    path = folder / "nitro.json"
    path.write_text(json.dumps({"version": "1", "platforms": {"nitro": [wanted]}} | changes))
    return path


# ----------------------------------------------------------------- verify evidence


def test_genuine_evidence_without_a_policy_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = judged(capsys, corpus(PROD), "--at", PROD_TIME)
    assert code == 0
    assert (report["genuine"], report["wanted"], report["findings"]) == (True, None, [])
    assert (report["platform"], report["platform_guessed"]) == ("nitro", True)
    assert report["valid"][0] <= report["issued_at"] <= report["valid"][1]
    assert len(report["measurements"]) == 7


def test_wanted_evidence_exits_0_and_says_what_was_left_unchecked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = judged(capsys, corpus(PROD), "--at", PROD_TIME, "--policy", nitro_policy(tmp_path))
    assert (code, report["wanted"], report["measurement_set"]) == (0, True, "recorded")
    assert {"code": "UNCHECKED", "detail": "pcr0"} in report["findings"]


def test_unwanted_evidence_exits_2_with_every_reason(
    simulated: Path, root: DevelopmentRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = judged(capsys, simulated, "--policy", policy_for(root, tmp_path, "other"))
    assert (code, report["genuine"], report["wanted"]) == (2, True, False)
    assert [finding["code"] for finding in report["findings"]] == ["MEASUREMENT_MISMATCH"]


def test_a_simulated_tee_is_found_by_the_policys_root(
    simulated: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = judged(capsys, simulated, "--policy", policy)
    assert (code, report["platform"], report["platform_guessed"]) == (0, "simulated", True)
    assert report["security_mode"] == "evaluation"
    code, report = judged(capsys, simulated)
    assert (code, report["platform"], report["code"]) == (2, "nitro", "UNKNOWN_ROOT")
    code, report = judged(capsys, simulated, "--platform", "simulated")
    assert (code, report["genuine"], report["code"]) == (3, None, "NO_ROOTS")


def test_debug_evidence_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = judged(capsys, corpus(DEBUG), "--at", DEBUG_TIME)
    assert (code, report["genuine"], report["debug"]) == (2, True, True)
    code, report = judged(capsys, corpus(DEBUG), "--at", DEBUG_TIME, "--policy", nitro_policy(tmp_path))
    assert code == 2
    assert "DEBUG_NOT_ALLOWED" in [finding["code"] for finding in report["findings"]]


def test_forged_evidence_exits_2_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = tmp_path / "forged"
    forged.write_bytes(corpus(PROD).read_bytes()[:-1] + b"\0")
    code, report = judged(capsys, forged, "--at", PROD_TIME)
    assert (code, report["genuine"], report["code"]) == (2, False, "SIG_FAILED")
    assert run("verify", "evidence", forged, "--at", PROD_TIME) == 2
    said = capsys.readouterr()
    assert "genuine            NO" in said.out
    assert "SIG_FAILED" in said.err


def test_expired_evidence_is_told_its_own_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "evidence", corpus(PROD)) == 2
    assert f"--at {PROD_TIME}" in capsys.readouterr().err


def test_findings_of_the_verifier_are_told_without_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    """The finding stands beside what is worse: the machine was started for debugging."""
    token = corpus("gcp-cs/flare_pki_2025-10-28.jwt")
    code, report = judged(capsys, token, "--at", 1761669801)
    assert (code, report["platform"]) == (2, "confidential-space")
    assert [finding["code"] for finding in report["findings"]] == ["REVOCATION_NOT_CHECKED"]


@pytest.mark.parametrize(
    ("findings", "debug", "code"),
    [
        ((), False, 0),
        ((), True, 2),
        ((("REVOCATION_NOT_CHECKED", ""),), False, 3),
        ((("TCB_OUT_OF_DATE", ""),), False, 2),
        ((("REVOCATION_NOT_CHECKED", ""), ("TCB_REVOKED", "")), False, 2),
        ((("SOMETHING_NEW", ""),), False, 3),
    ],
)
def test_without_a_policy_it_is_closed_by_default(
    findings: tuple[tuple[str, str], ...], debug: bool, code: int
) -> None:
    from dataclasses import replace

    from ephemeralml.attestation.evidence import VERIFIER_TOKEN
    from ephemeralml.attestation.nitro import NitroEndorsements
    from ephemeralml.attestation.nitro.verify import verify
    from ephemeralml.producer.cli.evidence import _without_policy

    chain = make_chain()
    document = make_document(chain)
    found = verify(document, NitroEndorsements(chain.roots), 1_700_000_000)
    assert _without_policy(replace(found, findings=findings, debug=debug, token=VERIFIER_TOKEN)) == code


def test_collateral_is_taken_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = corpus("gcp-cs/synddb_oidc_2025-12-02_0.jwt")
    code, report = judged(capsys, token, "--at", 1764708700)
    assert (code, report["code"]) == (3, "NO_COLLATERAL")
    (tmp_path / "jwks.json").write_bytes(corpus("gcp-cs/synddb_jwks_2025-12-02.json").read_bytes())
    (tmp_path / ".hidden").write_bytes(b"\xff")
    (tmp_path / "folder").mkdir()
    code, report = judged(capsys, token, "--at", 1764708700, "--collateral", tmp_path)
    assert (code, report["genuine"], report["debug"]) == (2, True, True)
    (tmp_path / "jwks.json").write_bytes(b"{")
    assert judged(capsys, token, "--at", 1764708700, "--collateral", tmp_path)[0] == 2


def test_what_it_must_vouch_for_is_checked(
    simulated: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = (simulated, "--policy", policy)
    assert judged(capsys, *known, "--nonce", b"n".hex() * 32)[0] == 0
    code, report = judged(capsys, *known, "--nonce", b"m".hex() * 32)
    assert (code, report["genuine"], report["wanted"], report["code"]) == (2, True, False, "NONCE_MISMATCH")
    code, report = judged(capsys, *known, "--public-key", "00" * 32)
    assert (code, report["code"]) == (2, "KEY_BINDING_FAILED")
    assert run("verify", "evidence", *known, "--nonce", "x") == 1


def test_too_much_collateral_and_bad_options_are_misuse(
    tmp_path: Path, simulated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(65):
        (tmp_path / f"{number}.crl").write_bytes(b"x")
    assert run("verify", "evidence", simulated, "--collateral", tmp_path) == 1
    assert "COLLATERAL_TOO_LARGE" in capsys.readouterr().err
    assert run("verify", "evidence", simulated, "--collateral", tmp_path / "none") == 1
    assert run("verify", "evidence", simulated, "--at", "9" * 30 + "x") == 1
    assert run("verify", "evidence", simulated, "--policy", tmp_path / "none") == 1
    assert run("verify", "evidence", tmp_path / "none") == 1
    assert str(tmp_path) not in capsys.readouterr().err


def test_an_unknown_format_is_unsound_and_an_unknown_platform_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise").write_bytes(b"noise")
    assert judged(capsys, tmp_path / "noise")[1]["code"] == "UNKNOWN_FORMAT"
    assert run("verify", "evidence", tmp_path / "noise", "--platform", "abacus") == 3


# ----------------------------------------------------------------- attest show


def test_show_explains_and_says_that_nothing_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("attest", "show", corpus(PROD)) == 0
    said = capsys.readouterr().out
    assert said.startswith("NOT VERIFIED")
    for words in ("AWS Nitro Enclave", "2022-10-13 08:58:02 UTC", "PCR0 (the enclave's image)", "guessed"):
        assert words in said
    assert run("attest", "show", corpus(PROD), "--json") == 0
    assert json.loads(capsys.readouterr().out)["verified"] is False


def test_show_reads_forged_and_simulated_evidence_too(
    simulated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("attest", "show", simulated) == 0
    assert "not AWS's" in capsys.readouterr().out
    assert run("attest", "show", simulated, "--platform", "simulated") == 0
    assert "proves nothing about hardware" in capsys.readouterr().out
    assert run("attest", "show", simulated, "--platform", "confidential-space") == 65
    assert run("attest", "show", simulated.parent / "none") == 78


def test_control_characters_of_evidence_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = make_chain()
    hostile = "\x1b]0;owned\x07\x1b[2J[bold]\r\n\u202e"
    (tmp_path / "evidence").write_bytes(make_document(chain, make_payload(chain, module_id=hostile)))
    assert run("attest", "show", tmp_path / "evidence") == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(said)
    assert "[bold]" in said
    assert printable("é ✓") == "é ✓"


@pytest.mark.parametrize(
    ("data", "platform"),
    [
        (b"\x04\x00\x02\x00\x81\x00\x00\x00rest", "tdx"),
        (b"\x05\x00\x02\x00\x81\x00\x00\x00rest", "tdx"),
        (b"\x03\x00\x02\x00\x00\x00\x00\x00rest", None),
        (b"eyJh.eyJi.c2ln", "confidential-space"),
        (b"eyJh.eyJi", None),
        (b"", None),
        (b"\x84", None),
        (b"{}", None),
    ],
)
def test_a_platform_is_guessed_from_the_bytes(data: bytes, platform: str | None) -> None:
    assert guess_platform(data) == platform


def test_an_unknown_platform_is_not_shown() -> None:
    with pytest.raises(EndorsementsError):
        show("abacus", b"")
    with pytest.raises(MalformedError):
        show("nitro", b"")


# ----------------------------------------------------------------- attest make


def test_make_says_where_there_is_no_tee(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(detect, "DEVICES", ()):
        assert run("attest", "make", "--out", tmp_path / "evidence") == 78
    assert "NO_TEE" in capsys.readouterr().err
    assert run("attest", "make", "--out", tmp_path / "e", "--platform", "abacus") == 78
    assert run("attest", "make", "--out", tmp_path / "e", "--platform", "confidential-space") == 78
    assert run("attest", "make", "--out", tmp_path / "e", "--nonce", "zz") == 78
    assert list(tmp_path.iterdir()) == []


def test_make_asks_the_tee_that_is_there(
    root: DevelopmentRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nsm").touch()
    nsm = EmulatedNsm(root, development_pcrs("image"))
    attester = NitroAttester.of(device=str(tmp_path / "nsm"), ioctl=nsm)
    out = tmp_path / "evidence"
    with (
        patch.object(detect, "detect_platform", lambda: "nitro"),
        patch.object(detect, "NitroAttester", lambda: attester),
    ):
        assert run("attest", "make", "--out", out, "--user-data", "ab" * 32) == 0
    made = json.loads(capsys.readouterr().out)
    words = dict(show("nitro", out.read_bytes()))
    assert words["nonce"].startswith(made["nonce"])
    assert words["user data"].startswith("ab" * 32)
    assert run("verify", "evidence", out, "--policy", policy_for(root, tmp_path, "image")) == 0
    assert "--at" not in capsys.readouterr().err


def test_devices_are_found_by_their_paths(tmp_path: Path) -> None:
    assert not any(detect.is_here(device, str(tmp_path)) for device in detect.DEVICES)
    with pytest.raises(ConfigurationError, match="NO_TEE"):
        detect.detect_platform(str(tmp_path))
    for device in reversed(detect.DEVICES):
        place = tmp_path / device.path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert detect.detect_platform(str(tmp_path)) == device.platform


@pytest.mark.parametrize(("kind", "code"), [("simulated", "EVIDENCE_FUTURE"), ("noise", "UNKNOWN_FORMAT")])
def test_a_receipts_evidence_needs_no_platform_either(
    kind: str, code: str, simulated: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evidence is of another worker and a later time: with a wrong guess its root would be unknown."""
    (tmp_path / "receipt.air").write_bytes(issue(CLAIMS, KEY))
    (tmp_path / "noise").write_bytes(b"noise")
    evidence = simulated if kind == "simulated" else tmp_path / "noise"
    words = ("--public-key", PUBLIC.hex(), "--at", CLAIMS.iat, "--policy", policy)
    assert run("verify", "receipt", tmp_path / "receipt.air", "--evidence", evidence, *words) == 2
    assert code in capsys.readouterr().err


@pytest.mark.parametrize(
    ("claims", "overall"),
    [
        ({"measres": "fail"}, {}),
        ({"secboot": False}, {}),
        ({}, {"x-nvidia-overall-att-result": False}),
    ],
)
def test_gpus_that_the_service_calls_bad_are_unsound_without_a_policy(
    claims: dict[str, object], overall: dict[str, object]
) -> None:
    value = service.answer(service.token(service.device_claims(**claims)), overall=overall)
    found = verify_gpus(service.make_evidence(value), service.endorsements(), gpus.NOW)
    assert _without_policy(found) == 2


def test_a_gpu_whose_measurements_differ_is_unsound_without_a_policy() -> None:
    blocks = b"".join(gpus.block(index, b"y" * 48) for index in range(1, 65))
    report = gpus.make_report(gpus.ReportParts(blocks=blocks))
    found = verify_gpus(
        gpus.make_evidence((report, gpus.leaf_first(gpus.device()))), gpus.endorsements(), gpus.NOW
    )
    assert _without_policy(found) == 2
    good = gpus.make_evidence((gpus.make_report(), gpus.leaf_first(gpus.device())))
    assert _without_policy(verify_gpus(good, gpus.endorsements(), gpus.NOW)) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [({}, 0), ({"secboot": False}, 2), ({"swname": "GCE"}, 2), ({"hwmodel": "GCP_SHIELDED_VM"}, 2)],
)
def test_a_token_of_an_unprotected_machine_is_unsound_without_a_policy(
    changes: dict[str, object], code: int
) -> None:
    found = verify_token(tokens.oidc(changes), tokens.issuer(), tokens.NOW)
    assert _without_policy(found) == code
