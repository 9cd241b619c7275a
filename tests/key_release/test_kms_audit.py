"""The audit table, as a test and as the command that operators run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ephemeralml.attestation.key_release.aws_settings import AwsSettings
from ephemeralml.attestation.key_release.kms_audit import Row, audit_kms
from ephemeralml.attestation.key_release.local_kms import LocalKms, development_policies
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.producer.cli.kms import app
from ephemeralml.producer.lab import Lab

from .conftest import IMAGE, WORKER, StartKms

TABLE = {
    "correct PCR0": "released",
    "wrong PCR0": "AccessDeniedException",
    "no attestation": "AccessDeniedException",
    "random bytes": "ValidationException",
    "one bit flipped": "ValidationException",
    "replayed document": "ValidationException",
    "debug document (zero PCRs)": "AccessDeniedException",
}


def rows(kms: LocalKms, root: DevelopmentRoot, *, single_use: bool, others: bool = True) -> tuple[Row, ...]:
    settings = AwsSettings(
        endpoint_url=kms.endpoint,
        region="us-east-1",
        access_key_id=WORKER.access_key_id,
        secret_access_key=WORKER.secret_access_key,
    )
    wrong, debug = SimulatedAttester(root, development_pcrs("other")), SimulatedAttester(root, {})
    return audit_kms(
        settings,
        "alias/fleet",
        SimulatedAttester(root, development_pcrs(IMAGE)),
        wrong=wrong if others else None,
        debug=debug if others else None,
        single_use=single_use,
    )


@pytest.mark.parametrize("single_use", [True, False])
@pytest.mark.parametrize("max_age", [300, None])
def test_the_table(start_kms: StartKms, root: DevelopmentRoot, single_use: bool, max_age: int | None) -> None:
    if single_use and max_age is None:
        max_age = 3600
    kms = start_kms(single_use=single_use, max_document_age_s=max_age)
    found = rows(kms, root, single_use=single_use)
    replayed = {} if single_use else {"replayed document": "released"}
    assert {row.name: row.got for row in found} == TABLE | replayed
    assert all(row.verdict == "ok" for row in found)


def test_what_cannot_be_made_is_never_passed(kms: LocalKms, root: DevelopmentRoot) -> None:
    verdicts = {row.name: row.verdict for row in rows(kms, root, single_use=True, others=False)}
    assert verdicts["wrong PCR0"] == verdicts["debug document (zero PCRs)"] == "not possible here"
    assert list(verdicts.values()).count("ok") == 5


def test_a_lax_policy_fails_the_audit(start_kms: StartKms, root: DevelopmentRoot) -> None:
    policies = development_policies(image_sha384=[development_pcrs(IMAGE)[0].hex()])
    for statement in policies["alias/fleet"]["Statement"]:
        statement.pop("Condition", None)
    found = {row.name: row for row in rows(start_kms(policies=policies), root, single_use=False)}
    assert found["no attestation"].got == "released in the clear"
    assert found["wrong PCR0"].got == "released"
    # The local KMS refuses debug enclaves whatever the policy says.
    assert found["debug document (zero PCRs)"].verdict == "ok"
    assert found["no attestation"].verdict == found["wrong PCR0"].verdict == "FAILED"


# ------------------------------------------------------------- the commands


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab.create(tmp_path / "lab")


def command(lab: Lab, *arguments: str, **more: str) -> Any:
    key = lab.about["principals"]["worker"]
    environment = {
        "EPHEMERALML_WORKER_KMS_ENDPOINT": lab.endpoint,
        "EPHEMERALML_WORKER_KMS_ACCESS_KEY_ID": key["id"],
        "EPHEMERALML_WORKER_KMS_SECRET_ACCESS_KEY": key["secret"],
        "EPHEMERALML_WORKER_SIMULATED_ROOT": str(lab.root),
    }
    return CliRunner().invoke(app, list(arguments), env=environment | more)


def test_the_audit_command(lab: Lab) -> None:
    with lab.kms():
        done = command(lab, "audit", "--json")
        assert done.exit_code == 0, done.output
        found = {row["name"]: row["got"] for row in json.loads(done.stdout)["rows"]}
        assert found == TABLE
        other = command(lab, "audit", "--image", "another")
        assert other.exit_code == 2
        assert "FAILED" in other.stdout
        assert command(lab, "audit", "--no-single-use").exit_code == 2
    assert command(lab, "audit", "--attester", "tdx").exit_code == 78
    assert command(lab, "audit", EPHEMERALML_WORKER_SIMULATED_ROOT="").exit_code == 78


def test_keys_states_and_log(lab: Lab) -> None:
    with lab.kms():
        listed = command(lab, "keys", str(lab.folder)).stdout
        assert listed.count("Enabled") == 2
        assert command(lab, "disable", str(lab.folder), "alias/fleet").exit_code == 0
        assert "alias/fleet  Disabled" in command(lab, "keys", str(lab.folder)).stdout
        found = json.loads(command(lab, "audit", "--json").stdout)["rows"]
        assert found[0]["got"] == "DisabledException"
        assert command(lab, "enable", str(lab.folder), "alias/fleet").exit_code == 0
        assert command(lab, "audit").exit_code == 0
        assert command(lab, "disable", str(lab.folder), "alias/none").exit_code == 77
    assert command(lab, "log", str(lab.folder)).exit_code == 0
    log = lab.folder / "kms" / "audit.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2] + lines[3:]))
    broken = command(lab, "log", str(lab.folder))
    assert broken.exit_code == 2


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (json.dumps(development_policies(image_sha384=["ab" * 48])["alias/fleet"]), 0, "no findings"),
        (json.dumps(development_policies(image_sha384=["ab" * 48])["alias/model"]), 2, "RELEASES_UNATTESTED"),
        (json.dumps(development_policies(image_sha384=[])["alias/fleet"]), 0, "RELEASES_NOTHING"),
        ("{}", 78, ""),
        ("[]", 78, ""),
        ("[" * 20_000, 78, ""),
    ],
)
def test_policy_check(tmp_path: Path, text: str, code: int, word: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    done = CliRunner().invoke(app, ["policy", "check", str(file)])
    assert done.exit_code == code
    assert word in done.stdout
    assert CliRunner().invoke(app, ["policy", "check", str(file), "--json"]).exit_code == code
