"""Where Google's services are asked, and under which names: checked once, before anything is sent."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ...wire.errors import ConfigurationError

KMS_ENDPOINT: Final = "https://cloudkms.googleapis.com"
KMS_HOST: Final = "cloudkms.googleapis.com"
STS_URL: Final = "https://sts.googleapis.com/v1/token"
IAM_ENDPOINT: Final = "https://iamcredentials.googleapis.com"
MAX_AUDIENCE_BYTES: Final = 512

# Cloud KMS API, resource names: projects/*/locations/*/keyRings/*/cryptoKeys/*.
_PART: Final = r"[A-Za-z0-9._:-]{1,63}"
_KEY: Final = re.compile(rf"projects/{_PART}/locations/{_PART}/keyRings/{_PART}/cryptoKeys/{_PART}")
# IAM, workload identity pool providers; the project by its number.
_PROVIDER: Final = re.compile(
    r"projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}/providers/[a-z0-9-]{4,32}"
)
_ACCOUNT: Final = re.compile(r"[a-z0-9-]{1,63}@[a-z0-9.-]{1,253}\.iam\.gserviceaccount\.com")
_RELAY: Final = re.compile(r"(unix:/[!-~]{1,100}|vsock:[0-9]{1,10}:[0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class GcpSettings:
    """Names and addresses.

    :param key_name: ``projects/…/locations/…/keyRings/…/cryptoKeys/…``, a symmetric key.
    :param provider: ``projects/<number>/locations/global/workloadIdentityPools/…/providers/…``.
    :param token_audience: of launcher tokens for the provider; by default the provider's own name, which it
        accepts where it lists no other.
    :param service_account: to act as, by e-mail; None: the pool's principal holds the key's role itself.
    :param kms_endpoint: ``https://host[:port]``; ``unix:…`` or ``vsock:cid:port`` for a relay of bytes (TLS
        still ends here and at Google); ``http://`` for this machine's own addresses only.
    :param sts_url: :param iam_endpoint: ``https://…``, or ``http://`` of this machine's own.
    :param ca_pem: roots for the KMS's TLS, PEM; None: those that gRPC ships.
    :raises ConfigurationError: ``BAD_KMS_SETTINGS``.
    """

    key_name: str
    provider: str
    token_audience: str | None = None
    service_account: str | None = None
    kms_endpoint: str = KMS_ENDPOINT
    sts_url: str = STS_URL
    iam_endpoint: str = IAM_ENDPOINT
    ca_pem: bytes | None = None

    def __post_init__(self) -> None:
        check_key_name(self.key_name)
        if not _PROVIDER.fullmatch(self.provider):
            raise _wrong("the workload identity pool provider is not named as IAM names it")
        if not 1 <= len(self.audience.encode()) <= MAX_AUDIENCE_BYTES:
            raise _wrong(f"an audience has 1 to {MAX_AUDIENCE_BYTES} bytes")
        if self.service_account is not None and not _ACCOUNT.fullmatch(self.service_account):
            raise _wrong("a service account is named by its e-mail")
        kms_target(self.kms_endpoint)

    @property
    def resource(self) -> str:
        """The provider as STS's audience."""
        return f"//iam.googleapis.com/{self.provider}"

    @property
    def audience(self) -> str:
        """The audience of launcher tokens (IAM: the provider's name with ``https:``, where it lists none)."""
        return f"https:{self.resource}" if self.token_audience is None else self.token_audience

    @property
    def impersonation_url(self) -> str | None:
        """Where tokens of the service account are made; None without one."""
        if self.service_account is None:
            return None
        place = f"v1/projects/-/serviceAccounts/{self.service_account}:generateAccessToken"
        return f"{self.iam_endpoint}/{place}"


@dataclass(frozen=True, slots=True)
class KmsTarget:
    """Where gRPC connects.

    :param address: as gRPC names it. :param server_name: what TLS must prove; None: no TLS (loopback).
    """

    address: str
    server_name: str | None


def kms_target(endpoint: str) -> KmsTarget:
    """Read a KMS endpoint.

    :raises ConfigurationError: ``BAD_KMS_SETTINGS``: an address in the clear that is not this machine's own.
    """
    if _RELAY.fullmatch(endpoint):
        return KmsTarget(endpoint, KMS_HOST)
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    shown = f"[{host}]" if host and ":" in host else host
    if host and bare and parts.scheme == "https":
        return KmsTarget(f"{shown}:{port or 443}", host)
    if host and bare and parts.scheme == "http" and _is_loopback(host):
        return KmsTarget(f"{shown}:{port or 80}", None)
    raise _wrong("the KMS endpoint is https://, a relay, or http:// of this machine's own")


def check_key_name(key_name: str) -> None:
    """Refuse what cannot be a key's name.

    :raises ConfigurationError: ``BAD_KMS_SETTINGS``.
    """
    if not _KEY.fullmatch(key_name):
        raise _wrong("the key is not named projects/…/locations/…/keyRings/…/cryptoKeys/…")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError("BAD_KMS_SETTINGS", message)
