"""Where AWS is asked and as whom: every address a setting, for a TEE that has no network of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ...wire.errors import ConfigurationError

DEFAULT_TIMEOUT_S: Final = 5.0
INSTANCE_METADATA: Final = "http://169.254.169.254"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """Addresses and credentials of AWS KMS.

    Credentials are static, or the parent instance's, or what environment and files of this process hold;
    the network is asked for them only where ``instance_metadata`` or ``role_arn`` says so.

    :param endpoint_url: of KMS. :param sts_endpoint: of STS, for ``role_arn``. None: AWS's own.
    :param instance_metadata: ``http://host[:port]`` of the parent's metadata service (IMDSv2).
    :param role_arn: a role to take with these credentials.
    :param ca_bundle: PEM file of the roots for TLS; None: botocore's.
    :param proxy: ``http://host:port`` of a forward proxy, e.g. a vsock forwarder on loopback.
    :param connect_timeout_s: :param read_timeout_s: in seconds.
    :raises ConfigurationError: ``KMS_CREDENTIALS_INCOMPLETE`` or ``BAD_KMS_SETTINGS``.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    sts_endpoint: str | None = None
    instance_metadata: str | None = None
    role_arn: str | None = None
    ca_bundle: Path | None = None
    proxy: str | None = None
    connect_timeout_s: float = DEFAULT_TIMEOUT_S
    read_timeout_s: float = DEFAULT_TIMEOUT_S

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigurationError("KMS_CREDENTIALS_INCOMPLETE", "access key id and secret come together")
        if self.session_token is not None and self.access_key_id is None:
            raise ConfigurationError(
                "KMS_CREDENTIALS_INCOMPLETE", "a session token comes with its access key"
            )
        if self.access_key_id is not None and self.instance_metadata is not None:
            raise _wrong("credentials are static or the parent instance's, not both")
        for name in ("endpoint_url", "sts_endpoint", "instance_metadata", "proxy"):
            _check_address(name, getattr(self, name))
        if self.ca_bundle is not None and not self.ca_bundle.is_file():
            raise _wrong("the CA bundle is not a file")
        if min(self.connect_timeout_s, self.read_timeout_s) <= 0:
            raise _wrong("a timeout is longer than zero")


def _check_address(name: str, address: str | None) -> None:
    if address is None:
        return
    schemes = ("http",) if name in ("instance_metadata", "proxy") else ("http", "https")
    try:
        parts = urlsplit(address)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise _wrong(f"{name} is not an address of the form {schemes[-1]}://host[:port]")


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError("BAD_KMS_SETTINGS", message)
