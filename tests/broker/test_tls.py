from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ephemeralml.broker_config import BrokerSettings, broker_settings, ping
from ephemeralml.broker_config.replies import ReplyPublisher, ReplyQueue
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.wire.errors import DeliveryError

from .conftest import free_port, redis_server, wait_for

NAME = "reply." + "0c" * 16


def certificate(folder: Path, host: x509.GeneralName) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


@pytest.fixture(params=["right name", "another name"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[BrokerSettings, Path, bool]]:
    """Settings that trust the system's roots only, the broker's certificate, whether it names the broker."""
    right = request.param == "right name"
    host: x509.GeneralName = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    cert, key = certificate(tmp_path, host if right else x509.DNSName("another.example"))
    port, plain = free_port(), free_port()
    options = ["--port", str(plain), "--tls-port", str(port), "--tls-cert-file", str(cert)]
    options += ["--tls-key-file", str(key), "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"]
    with redis_server(tmp_path / "redis", *options):
        wait_for(broker_settings(broker_url=f"redis://127.0.0.1:{plain}/0"))
        yield broker_settings(broker_url=f"rediss://127.0.0.1:{port}/0"), cert, right


def test_certificates_and_names_are_always_checked(tls: tuple[BrokerSettings, Path, bool]) -> None:
    strangers, cert, right = tls
    trusting = strangers.model_copy(update={"tls_ca_file": cert})
    for settings in (strangers,) if right else (strangers, trusting):
        for call in (
            lambda settings=settings: ping(settings),
            lambda settings=settings: Submitter(settings).__enter__(),
            lambda settings=settings: ReplyQueue(settings, NAME).__enter__(),
            lambda settings=settings: ReplyPublisher(settings).publish(NAME, b"x"),
        ):
            with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
                call()
    if not right:
        return
    ping(trusting)
    with Submitter(trusting) as submitter:
        submitter.submit("p", b"x")
    publisher = ReplyPublisher(trusting)
    publisher.publish(NAME, b"x")
    publisher.close()
    with ReplyQueue(trusting, NAME) as queue:
        delivery = queue.receive(5)
        assert delivery is not None
        assert delivery.body == b"x"
        delivery.ack()
