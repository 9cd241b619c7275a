"""A worker's settings: environment ``EPHEMERALML_WORKER_*`` or keyword arguments.

Secrets are kept out of ``repr``. Broker settings are apart
(:class:`~ephemeralml.broker_config.settings.BrokerSettings`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..wire.errors import ConfigurationError
from ..wire.keys import SuiteName

BACKENDS: Final = frozenset({"openvino", "torch", "noop", "transformers", "llama", "exllamav2", "exllamav3"})


def _text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


class WorkerSettings(BaseSettings):
    """What a worker must know before it can ask for a key."""

    model_config = SettingsConfigDict(env_prefix="EPHEMERALML_WORKER_", extra="forbid", frozen=True)

    pool: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Pool to serve")
    policy: Path = Field(description="Trust policy: signed bundle, policy store, or JSON")
    policy_root: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="Policy root's Ed25519 key, hexadecimal"
    )
    policy_memory: Path | None = Field(
        default=None, description="File that remembers the highest policy version"
    )
    policy_poll_seconds: float = Field(default=5, ge=0, le=3600, description="Read the policy this often")
    dangerous_unsigned_policy: bool = Field(
        default=False, description="Accept an unsigned policy in a real TEE"
    )
    model: Annotated[str, BeforeValidator(_text)] = Field(
        min_length=1, description="Encrypted model package: path, file://, s3:// or gs:// URL"
    )
    model_manifest_hash: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="Take this model only, hexadecimal"
    )
    model_s3_endpoint: str | None = Field(default=None, description="S3's address; default AWS")
    model_gcs_endpoint: str | None = Field(
        default=None, description="Cloud Storage's address, no credentials"
    )
    model_deadline_seconds: float = Field(default=1800, gt=0, le=86_400, description="To fetch the model")
    model_signer: str = Field(pattern=r"^[0-9a-f]{64}$", description="Owner's Ed25519 key, hexadecimal")
    issuer: str = Field(default="ephemeralml", min_length=1, max_length=256)

    platform: Literal["simulated", "nitro", "tdx"] = Field(
        default="simulated", description="Whose CPU evidence stands in receipts"
    )
    gpu: bool = Field(default=False, description="The GPUs' reports accompany the CPU's evidence")
    launcher_audience: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="A Confidential Space token for this audience accompanies the CPU's evidence",
    )
    launcher_socket: str = "/run/container_launcher/teeserver.sock"
    collateral: Path | None = Field(
        default=None, description="Folder tdx/ and nvidia/ of the vendors' files, to travel with evidence"
    )
    simulated_root: Path | None = Field(default=None, description="Folder of the development root")
    simulated_image: str = Field(default="ephemeralml-worker", description="Name that PCR0-2 derive from")

    kms: Literal["aws", "gcp"] = Field(default="aws", description="aws: AWS KMS, or the local one")
    gcp_provider: str | None = Field(default=None, description="Workload identity pool provider")
    gcp_token_audience: str | None = None
    gcp_service_account: str | None = None
    gcp_iam_endpoint: str | None = None
    kms_endpoint: str | None = None
    kms_region: str = "us-east-1"
    kms_access_key_id: str | None = None
    kms_secret_access_key: SecretStr | None = Field(default=None, repr=False)
    kms_session_token: SecretStr | None = Field(default=None, repr=False)
    kms_sts_endpoint: str | None = None
    kms_role_arn: str | None = Field(default=None, description="Role to take before the KMS is asked")
    kms_instance_metadata: str | None = Field(
        default=None, description="Address of the parent's metadata service, for its credentials"
    )
    kms_proxy: str | None = Field(default=None, description="Forward proxy, e.g. a vsock forwarder's address")
    kms_ca_bundle: Path | None = Field(default=None, description="PEM file of the roots for the KMS's TLS")
    kms_connect_timeout_seconds: float | None = Field(default=None, gt=0, le=600)
    kms_read_timeout_seconds: float | None = Field(default=None, gt=0, le=600)
    fleet_key_id: str = "alias/fleet"
    model_key_id: str = "alias/model"
    kms_deadline_seconds: float = Field(default=30, ge=0.5, le=600)
    on_denied: Literal["exit", "retry"] = "exit"

    engine_plugins: tuple[str, ...] = Field(default=(), description="Plug-ins that may be loaded, by name")
    backend: str = Field(
        default="openvino",
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$",
        description="openvino, torch; transformers, llama, exllamav2, exllamav3; or an allowed plug-in",
    )
    precision: Literal["auto", "f32", "bf16"] = "auto"
    threads: int = Field(default=0, ge=0, le=256, description="0: as many as the machine has")
    max_payload_bytes: int = Field(
        default=128 << 20, ge=1024, le=128 << 20, description="Larger packs of jobs become dead letters"
    )
    max_attempts: int = Field(default=3, ge=1, le=100, description="Runs of a job before it ends as failed")
    context_tokens: int = Field(default=0, ge=0, description="Of a text's prompt and output; 0: the model's")
    cache_tokens: int = Field(default=0, ge=0, description="Of all texts on a GPU; 0: twice a context")
    max_sequences: int = Field(default=32, ge=1, le=1024, description="Texts at once on a GPU")
    gpu_memory_gib: float = Field(default=0, ge=0, description="Most that may be used per GPU; 0: all")
    stream_interval_seconds: float = Field(default=0.25, ge=0.05, le=10, description="Between two chunks")
    concurrency: int = Field(default=2, ge=1, le=64, description="Packs in work at once")

    suite: SuiteName = "xwing"
    epoch_seconds: int = Field(default=86_400, ge=60, le=604_800, description="The same for all of a pool")
    announcement_seconds: int = Field(
        default=43_200, ge=10, le=604_800, description="Announce again after half of it"
    )
    job_seconds: int = Field(
        default=86_400, ge=60, le=604_800, description="Longest job lifetime that an ended key is kept for"
    )
    key_poll_seconds: float = Field(default=30, ge=0.1, le=60, description="Look for orders and new epochs")
    grace_seconds: float = Field(default=25, ge=0, description="Until unpublished replies are given up")
    drain_idle_seconds: float = Field(default=3.0, gt=0)

    watchdog_seconds: float = Field(
        default=60, ge=0, le=3600, description="Restart a consumer that takes nothing for so long; 0: never"
    )
    status: str | None = Field(
        default=None,
        pattern=r"^(localhost|[0-9.]{7,15}|\[[0-9a-fA-F:]{2,45}\]):[0-9]{1,5}$",
        description="Serve /healthz, /readyz and /metrics on this HOST:PORT",
    )
    log: Literal["text", "json"] = Field(
        default="text",
        validation_alias=AliasChoices("log", "EPHEMERALML_LOG"),
        description="Form of the log on standard error",
    )
    events: bool = Field(default=False, description="Send Celery's events without contents, for Flower")

    @field_validator("backend")
    @classmethod
    def _known(cls, backend: str, info: ValidationInfo) -> str:
        """Refuse a backend that cannot be loaded before any key is asked for."""
        if backend not in BACKENDS and backend not in info.data.get("engine_plugins", ()):
            raise ValueError("neither a built-in backend nor an allowed plug-in")
        return backend


def worker_settings(**values: object) -> WorkerSettings:
    """Return settings from the environment, overridden by ``values`` that are not None.

    :raises ConfigurationError: ``BAD_SETTINGS``; names the settings, never their values.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return WorkerSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise ConfigurationError("BAD_SETTINGS", f"missing or wrong worker settings: {wrong}") from None
