"""Names and addresses are checked before anything is sent; TLS ends here."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import google.cloud
import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ephemeralml.attestation.key_release.gcp import owner_data_key_gcp
from ephemeralml.attestation.key_release.gcp_settings import KMS_HOST, GcpSettings, kms_target
from ephemeralml.attestation.key_release.gcp_token import access_token
from ephemeralml.wire.errors import ConfigurationError, KeyReleaseError

from ...attestation.nitro.forge import name
from .google import AUDIENCE, KEY, PROVIDER, SERVICE_ACCOUNT, Google, serve


def settings(**changes: Any) -> GcpSettings:
    fields: dict[str, Any] = {"key_name": KEY, "provider": PROVIDER}
    return GcpSettings(**(fields | changes))


def test_the_defaults_are_googles() -> None:
    made = settings(service_account=SERVICE_ACCOUNT)
    assert made.resource == f"//iam.googleapis.com/{PROVIDER}"
    assert made.audience == AUDIENCE
    assert made.sts_url == "https://sts.googleapis.com/v1/token"
    assert made.impersonation_url == (
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        f"{SERVICE_ACCOUNT}:generateAccessToken"
    )
    assert settings().impersonation_url is None


@pytest.mark.parametrize(
    "changes",
    [
        {"key_name": ""},
        {"key_name": KEY + "/"},
        {"key_name": KEY + "/cryptoKeyVersions/1"},
        {"key_name": "/" + KEY},
        {"key_name": KEY.replace("ring", "ri/ng", 1)},
        {"key_name": KEY + "\n"},
        {"provider": "//iam.googleapis.com/" + PROVIDER},
        {"provider": PROVIDER.replace("123456789", "my-project")},
        {"provider": PROVIDER.replace("global", "europe")},
        {"provider": ""},
        {"token_audience": ""},
        {"token_audience": "x" * 513},
        {"service_account": "somebody@example.com"},
        {"service_account": "a/b@owner.iam.gserviceaccount.com"},
        {"kms_endpoint": "http://cloudkms.googleapis.com"},
        {"kms_endpoint": "http://10.0.0.1:80"},
        {"kms_endpoint": "cloudkms.googleapis.com:443"},
        {"kms_endpoint": "https://"},
        {"kms_endpoint": "https://host:port"},
        {"kms_endpoint": "https://host/path"},
        {"kms_endpoint": "https://user@host"},
        {"kms_endpoint": "https://host?x=1"},
        {"kms_endpoint": "ftp://127.0.0.1"},
        {"kms_endpoint": "vsock:3"},
        {"kms_endpoint": "https://[::1"},
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(**changes)
    assert caught.value.code == "BAD_KMS_SETTINGS"


@pytest.mark.parametrize(
    ("endpoint", "address", "server_name"),
    [
        ("https://cloudkms.googleapis.com", "cloudkms.googleapis.com:443", "cloudkms.googleapis.com"),
        ("https://kms.example:8443/", "kms.example:8443", "kms.example"),
        ("http://127.0.0.1:99", "127.0.0.1:99", None),
        ("http://[::1]:99", "[::1]:99", None),
        ("http://localhost:99", "localhost:99", None),
        ("vsock:3:8001", "vsock:3:8001", "cloudkms.googleapis.com"),
        ("unix:/run/relay.sock", "unix:/run/relay.sock", "cloudkms.googleapis.com"),
    ],
)
def test_where_grpc_connects(endpoint: str, address: str, server_name: str | None) -> None:
    target = kms_target(endpoint)
    assert (target.address, target.server_name) == (address, server_name)


@pytest.mark.parametrize(
    "url", ["http://sts.googleapis.com/v1/token", "ftp://127.0.0.1/", "sts", "file:///etc/x"]
)
def test_tokens_travel_by_https(url: str) -> None:
    from ...attestation.confidential_space.forge import oidc

    class Source:
        def token(self, *, audience: str, nonces: tuple[str, ...], kind: str) -> bytes:
            return oidc({"aud": audience, "eat_nonce": list(nonces)})

    with pytest.raises(ConfigurationError, match="BAD_URL"):
        access_token(settings(sts_url=url), Source(), timeout_s=1)


@pytest.mark.parametrize(
    "module", ["google.auth", "google.cloud.kms_v1", "grpc", "google_crc32c", "tenacity", "pybreaker"]
)
def test_a_missing_extra_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    from ephemeralml.attestation.key_release.gcp import GcpKms

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr(google.cloud, "kms_v1", raising=False)
    if module == "google.auth":
        monkeypatch.setitem(sys.modules, "google.auth.exceptions", None)

    class Source:
        def token(self, **_: object) -> bytes:
            return b""

    with pytest.raises(ConfigurationError) as caught:
        GcpKms(settings(), Source()).generate_data_key({})
    assert caught.value.code == "EXTRA_MISSING"
    assert "ephemeralml[" in str(caught.value)


# --------------------------------------------------------------------- TLS


def certificate(host: str) -> tuple[bytes, bytes]:
    """Return key and self-signed certificate of a host or address, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name(host))
        .issuer_name(name(host))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, made.public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("host", "trusted"), [("127.0.0.1", True), ("127.0.0.1", False), ("kms.example", True)]
)
def test_the_kms_must_prove_its_name(host: str, trusted: bool) -> None:
    google = Google()
    owner = google.give("owner")
    key, chain = certificate(host)
    _, stranger = certificate(host)
    with serve(google, grpc.ssl_server_credentials([(key, chain)])) as addresses:

        def wrap() -> bytes:
            return owner_data_key_gcp(
                KEY,
                {},
                access_token=owner,
                kms_endpoint=addresses.kms,
                ca_pem=chain if trusted else stranger,
                timeout_s=5 if trusted and host == "127.0.0.1" else 0.5,
            ).wrapped

        if trusted and host == "127.0.0.1":
            assert wrap()
        else:
            with pytest.raises(KeyReleaseError, match="KMS_UNAVAILABLE"):
                wrap()
            assert google.calls == []


@pytest.mark.parametrize("host", ["cloudkms.googleapis.com", "relay.example"])
def test_a_relay_of_bytes_may_stand_between(tmp_path: Path, host: str) -> None:
    """It sees TLS only, and the KMS must still prove Google's name."""
    google = Google()
    owner = google.give("owner")
    key, chain = certificate(host)
    relay = f"unix:{tmp_path}/relay.sock"
    with serve(google, grpc.ssl_server_credentials([(key, chain)]), relay):

        def wrap() -> bytes:
            return owner_data_key_gcp(
                KEY,
                {},
                access_token=owner,
                kms_endpoint=relay,
                ca_pem=chain,
                timeout_s=5 if host == KMS_HOST else 0.5,
            ).wrapped

        if host == KMS_HOST:
            assert wrap()
        else:
            with pytest.raises(KeyReleaseError, match="KMS_UNAVAILABLE"):
                wrap()
    assert google.calls == (["encrypt"] if host == KMS_HOST else [])
