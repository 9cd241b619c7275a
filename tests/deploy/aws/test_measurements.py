"""From what nitro-cli prints to a trust policy and to the parameters of the key policies."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.attestation.policy import load_policy

from .render import HERE, Rendered, script

SCRIPT = HERE / "measurements.py"
measurements: Any = script("measurements.py")
WORKER = "registry.example/worker-nitro@sha256:" + "5a" * 32


def printed(**changes: Any) -> str:
    """Return what nitro-cli prints after a build: a line of progress, then JSON."""
    found = {
        "HashAlgorithm": "Sha384 { ... }",
        **{f"PCR{slot}": f"{slot + 1:02x}" * 48 for slot in (0, 1, 2, 8)},
        **changes,
    }
    kept = {name: value for name, value in found.items() if value is not None}
    return "Start building the Enclave Image...\n" + json.dumps({"Measurements": kept}, indent=2)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def recorded(folder: Path, **changes: Any) -> Path:
    (folder / "printed").write_text(printed(**changes))
    (folder / "eif.sha256").write_text("ab" * 32 + "  worker.eif\n")
    out = folder / "measurements.json"
    done = run(folder / "printed", "--worker", WORKER, "--eif-sha256", folder / "eif.sha256", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("signed", [True, False])
def test_a_build_becomes_a_trust_policy(tmp_path: Path, signed: bool) -> None:
    record = recorded(tmp_path, **({} if signed else {"PCR8": None}))
    model = "minilm=" + "cd" * 32
    out = tmp_path / "policy.json"
    done = run("propose", record, "--version", "2026-11", "--set-name", "r1", "--model", model, "--out", out)
    assert done.returncode == 0, done.stderr
    policy = json.loads(load_policy(out.read_bytes()).to_json())
    (one,) = policy["platforms"]["nitro"]
    assert one["pcr0"] == "01" * 48
    assert one["pcr8"] == ("09" * 48 if signed else "UNCHECKED")
    assert json.loads(record.read_text())["eif_sha256"] == "ab" * 32


def test_two_builds_become_parameters_that_the_template_takes(tmp_path: Path) -> None:
    now, later = tmp_path / "now", tmp_path / "later"
    now.mkdir()
    later.mkdir()
    first, second = recorded(now), recorded(later, PCR0="ee" * 48)
    done = run("parameters", first, "--next", second)
    values = {one["ParameterKey"]: one["ParameterValue"] for one in json.loads(done.stdout)}
    arns = dict.fromkeys(("WorkerRoleArn", "KeyOwnerRoleArn", "PackagerRoleArn"), "arn:aws:iam::1:role/x")
    rendered = Rendered("keys.yaml", values | arns)
    assert set(values) <= set(rendered.template["Parameters"])
    statements = rendered.properties("FleetKey")["KeyPolicy"]["Statement"]
    wanted = [one["Condition"]["StringEqualsIgnoreCase"] for one in statements[:2]]
    assert [one["kms:RecipientAttestation:PCR0"] for one in wanted] == ["01" * 48, "ee" * 48]


DOCKER = """#!/bin/sh
echo "$@" >> "$NOTES/asked-docker"
for last; do :; done
cp -a "$last" "$NOTES/context"
"""
#: As nitro-cli: the image where it is told to, the measurements on standard output.
NITRO = """#!/bin/sh
echo "$@" >> "$NOTES/asked-nitro"
while [ "$#" -gt 0 ]; do [ "$1" = --output-file ] && echo image > "$2"; shift; done
cat "$NOTES/printed"
"""


def build(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run build-eif.sh where docker and nitro-cli only write down what they are told."""
    for name, text in (("docker", DOCKER), ("nitro-cli", NITRO)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "python3").unlink(missing_ok=True)
    (folder / "python3").symlink_to(sys.executable)
    (folder / "printed").write_text(printed(**({} if more else {"PCR8": None})))
    settings = str(HERE / "enclave/fleet.env.example")
    command = [str(HERE / "build-eif.sh"), WORKER, settings, str(folder / "out"), *more]
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "NOTES": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("signing", [(), ("key.pem", "certificate.pem")])
def test_an_image_is_built_and_what_was_measured_is_recorded(
    tmp_path: Path, signing: tuple[str, ...]
) -> None:
    done = build(tmp_path, *signing)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/measurements.json").read_text())
    assert record["worker_image"] == WORKER
    assert record["registers"]["pcr0"] == "01" * 48
    assert ("pcr8" in record["registers"]) == bool(signing)
    assert record["eif_sha256"] == hashlib.sha256(b"image\n").hexdigest()
    context = tmp_path / "context"
    assert {one.name for one in context.iterdir()} == {"Dockerfile", "bridge.json", "bridge.py"}
    assert {int(one.lstat().st_mtime) for one in (context, *context.iterdir())} == {0}
    assert json.loads((context / "bridge.json").read_text())["command"][-1] == "worker"
    docker = (tmp_path / "asked-docker").read_text()
    assert f"--build-arg WORKER={WORKER} --build-arg SOURCE_DATE_EPOCH=0" in docker
    assert "rewrite-timestamp=true" in docker
    asked = (tmp_path / "asked-nitro").read_text().strip()
    signed = " --private-key key.pem --signing-certificate certificate.pem" if signing else ""
    assert asked.removeprefix("build-enclave --docker-uri ephemeralml-fleet:build ") == (
        f"--output-file {tmp_path}/out/worker.eif{signed}"
    )
    again = build(tmp_path, *signing)
    assert (again.returncode, "never overwritten" in again.stderr) == (73, True)


def test_settings_that_are_wrong_build_nothing(tmp_path: Path) -> None:
    (tmp_path / "wrong.env").write_text("AWS_REGION=nowhere\n")
    command = [str(HERE / "build-eif.sh"), WORKER, str(tmp_path / "wrong.env"), str(tmp_path / "out")]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 64
    assert not (tmp_path / "out/worker.eif").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"PCR0": "00" * 48},
        {"PCR0": "01" * 32},
        {"PCR1": None},
        {"PCR2": 5},
        {"PCR8": "xy" * 48},
        {"HashAlgorithm": "Sha256 { ... }"},
    ],
)
def test_what_names_no_image_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(measurements.BadMeasurements):
        measurements.record(printed(**changes), WORKER, "ab" * 32)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Measurements": []}', "no JSON"])
def test_what_nitro_cli_never_prints_is_refused(text: str) -> None:
    with pytest.raises(measurements.BadMeasurements):
        measurements.measured(text)


@pytest.mark.parametrize("worker", ["worker:latest", "worker@sha256:short", "worker @sha256:" + "5a" * 32])
def test_an_image_without_its_digest_is_refused(worker: str) -> None:
    with pytest.raises(measurements.BadMeasurements):
        measurements.record(printed(), worker, "ab" * 32)


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    before = record.read_bytes()
    done = run(
        tmp_path / "printed", "--worker", WORKER, "--eif-sha256", tmp_path / "eif.sha256", "--out", record
    )
    assert (done.returncode, record.read_bytes()) == (66, before)
