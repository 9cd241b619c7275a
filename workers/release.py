"""Makes the key release that the settings name: AWS KMS (or the local one), or Cloud KMS."""

from __future__ import annotations

from typing import Protocol

from ..attestation.attest.composite import BundleAttester
from ..attestation.key_release.protocol import KeyRelease
from ..attestation.key_release.retry import Patience
from ..wire.errors import ConfigurationError
from .settings import WorkerSettings


class ClosableRelease(KeyRelease, Protocol):
    """A key release whose connections can be dropped."""

    def close(self) -> None:
        """Drop connections."""
        ...


def make_release(
    settings: WorkerSettings, attester: BundleAttester, key_id: str, patience: Patience | None
) -> ClosableRelease:
    """Return the key release for one of the worker's keys.

    :param key_id: of the fleet or the model key, as the KMS names it.
    :raises ConfigurationError: settings are missing, or do not fit the platform.
    """
    if settings.kms == "gcp":
        return _gcp(settings, key_id)  # with a patience of its own
    if settings.platform == "tdx":
        # AWS KMS reads Nitro documents only (AWS KMS Developer Guide, "Cryptographic attestation").
        raise ConfigurationError(
            "KMS_PLATFORM", "AWS KMS releases nothing to platform 'tdx': set EPHEMERALML_WORKER_KMS=gcp"
        )
    return _aws(settings, attester, key_id, patience)


def _aws(
    settings: WorkerSettings, attester: BundleAttester, key_id: str, patience: Patience | None
) -> ClosableRelease:
    from ..attestation.key_release.aws import AwsKms

    secret, token = settings.kms_secret_access_key, settings.kms_session_token
    return AwsKms(
        attester,
        key_id,
        endpoint_url=settings.kms_endpoint,
        region=settings.kms_region,
        access_key_id=settings.kms_access_key_id,
        secret_access_key=None if secret is None else secret.get_secret_value(),
        session_token=None if token is None else token.get_secret_value(),
        sts_endpoint=settings.kms_sts_endpoint,
        role_arn=settings.kms_role_arn,
        instance_metadata=settings.kms_instance_metadata,
        proxy=settings.kms_proxy,
        ca_bundle=settings.kms_ca_bundle,
        connect_timeout_s=settings.kms_connect_timeout_seconds,
        read_timeout_s=settings.kms_read_timeout_seconds,
        deadline_s=settings.kms_deadline_seconds,
        patience=patience,
    )


def _gcp(settings: WorkerSettings, key_id: str) -> ClosableRelease:
    from ..attestation.key_release.gcp import make_gcp_release
    from ..attestation.key_release.gcp_settings import IAM_ENDPOINT, KMS_ENDPOINT, STS_URL

    if settings.gcp_provider is None:
        raise ConfigurationError(
            "BAD_KMS_SETTINGS",
            "Cloud KMS needs the workload identity provider, EPHEMERALML_WORKER_GCP_PROVIDER",
        )
    ca_bundle = settings.kms_ca_bundle
    try:
        ca_pem = None if ca_bundle is None else ca_bundle.read_bytes()
    except OSError as error:
        raise ConfigurationError("CA_UNREADABLE", f"cannot read the CA bundle: {error.strerror}") from None
    return make_gcp_release(
        key_name=key_id,
        provider=settings.gcp_provider,
        token_audience=settings.gcp_token_audience,
        service_account=settings.gcp_service_account,
        launcher_socket=settings.launcher_socket,
        kms_endpoint=settings.kms_endpoint or KMS_ENDPOINT,
        sts_url=settings.kms_sts_endpoint or STS_URL,
        iam_endpoint=settings.gcp_iam_endpoint or IAM_ENDPOINT,
        ca_pem=ca_pem,
        evidence_audience=settings.launcher_audience,
        deadline_s=settings.kms_deadline_seconds,
    )
