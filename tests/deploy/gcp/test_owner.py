"""What the keys' owner does by hand: packages a model under Cloud KMS, and writes the trust policy."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ephemeralml.attestation.key_release.gcp import context_bytes
from ephemeralml.attestation.policy import load_policy
from ephemeralml.workers.models.open import open_package

from ...key_release.gcp.google import KEY, Google, serve
from .hcl import HERE

SEED = bytes(range(32))


def package(folder: Path, endpoint: str, token: str) -> subprocess.CompletedProcess[str]:
    (folder / "signer.key").write_bytes(SEED)
    source = folder / "model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (source / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    command = [sys.executable, str(HERE / "package_model.py"), str(source), "--id", "tiny", "--kms-key", KEY]
    command += ["--kms-endpoint", endpoint, "--signing-key", str(folder / "signer.key")]
    command += ["--out", str(folder / "m.eml")]
    environment = {**os.environ, "EPHEMERALML_GCP_ACCESS_TOKEN": token}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_owner_packages_a_model_that_only_cloud_kms_can_unwrap(tmp_path: Path) -> None:
    google = Google()
    with serve(google) as addresses:
        done = package(tmp_path, addresses.kms, google.give("owner"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert google.calls == ["encrypt"]

    def unwrap(wrapped: bytes, context: Mapping[str, str]) -> bytes:
        return AESGCM(google.master).decrypt(wrapped[:12], wrapped[12:], context_bytes(context))

    with (tmp_path / "m.eml").open("rb") as file:
        model = open_package(
            file,
            unwrap,
            trusted_signers=(bytes.fromhex(said["signer"]),),
            expected_manifest_hash=bytes.fromhex(said["manifest_hash"]),
        )
    assert model.manifest.model_id == "tiny"


@pytest.mark.parametrize(("token", "code"), [("", "NO_CREDENTIALS"), ("nobody's", "KMS_CREDENTIALS")])
def test_without_the_owners_token_there_is_no_package(tmp_path: Path, token: str, code: str) -> None:
    with serve(Google()) as addresses:
        done = package(tmp_path, addresses.kms, token)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error {code}")
    assert not (tmp_path / "m.eml").exists()


def test_the_example_policy_is_one_and_lets_set_what_the_image_lets_set() -> None:
    text = (HERE / "policy.example.json").read_text("utf-8")
    policy = json.loads(load_policy(text.encode()).to_json())
    space, tdx = policy["platforms"]["confidential-space"], policy["platforms"]["tdx"]
    label = re.search(r'allow_env_override"="([A-Z0-9_,]+)"', (HERE / "image/Dockerfile").read_text())
    assert label is not None
    assert space["env_overrides"] == label[1].split(",")
    assert (space["hwmodels"], space["support_attributes"]) == (["GCP_INTEL_TDX"], ["STABLE"])
    assert tdx["requires"] == ["confidential-space"]
    # What is to be filled in is nobody's: as it stands it accepts no machine, no image and no model.
    assert set(tdx["measurement_sets"][0]["mrtd"]) == {"0"}
    assert space["images"][0]["image_digest"] == "sha256:" + "0" * 64
    assert policy["models"][0]["manifest_hash"] == "0" * 64
    assert policy["dangerous_allow_debug"] is False
