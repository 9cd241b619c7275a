"""A development root: P-384 root and intermediate, made and kept on a developer's machine."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError

CERTIFICATES_FILE: Final = "development-root.pem"
KEY_FILE: Final = "development-root.key"
DEFAULT_LIFETIME_S: Final = 365 * 24 * 3600
BACKDATE_S: Final = 300
"""Certificates begin this much in the past, in seconds, for clocks that differ."""
_MAX_FILE_BYTES: Final = 65_536


@dataclass(frozen=True)
class DevelopmentRoot:
    """The anchor and the issuing key of a simulated TEE.

    The root's own private key is dropped as soon as it has signed the intermediate.

    :param certificates: DER, root first, then the intermediate.
    :param issuing_key: private key of the intermediate.
    """

    certificates: tuple[bytes, ...]
    issuing_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, *, now: float | None = None, lifetime_s: int = DEFAULT_LIFETIME_S) -> DevelopmentRoot:
        """Make a new root and its intermediate.

        :param now: Unix seconds; the clock's by default. :param lifetime_s: validity in seconds.
        """
        start = int(time.time() if now is None else now)
        root_key = ec.generate_private_key(ec.SECP384R1())
        issuing_key = ec.generate_private_key(ec.SECP384R1())
        root_name, name = _name("EphemeralML development root"), _name("EphemeralML development intermediate")
        window = (start - BACKDATE_S, start + lifetime_s)
        root = issue(root_name, root_key.public_key(), root_name, root_key, window, path_length=1)
        intermediate = issue(name, issuing_key.public_key(), root_name, root_key, window, path_length=0)
        return cls((_der(root), _der(intermediate)), issuing_key)

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the root certificate's DER, 32 bytes: what a policy pins."""
        return sha256(self.certificates[0])

    @cached_property
    def issuer(self) -> x509.Certificate:
        """The intermediate."""
        return x509.load_der_x509_certificate(self.certificates[-1])

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write certificates and private key (mode 0600) into a folder that is made if needed.

        :raises ConfigurationError: ``DEVELOPMENT_ROOT_EXISTS`` or ``DEVELOPMENT_ROOT_UNWRITABLE``.
        """
        folder = Path(directory)
        pem = b"".join(_pem(der) for der in self.certificates)
        key = self.issuing_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(folder / KEY_FILE, key, 0o600)
            _write_new(folder / CERTIFICATES_FILE, pem, 0o644)
        except FileExistsError:
            raise ConfigurationError("DEVELOPMENT_ROOT_EXISTS", "the folder holds a root already") from None
        except OSError as error:
            raise ConfigurationError(
                "DEVELOPMENT_ROOT_UNWRITABLE", f"cannot write the development root: {error.strerror}"
            ) from None

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> DevelopmentRoot:
        """Read what :meth:`save` wrote.

        :raises ConfigurationError: ``DEVELOPMENT_ROOT_UNREADABLE``, ``DEVELOPMENT_ROOT_EXPOSED`` (others
            may read the key) or ``DEVELOPMENT_ROOT_MALFORMED``.
        """
        folder = Path(directory)
        try:
            if stat.S_IMODE((folder / KEY_FILE).stat().st_mode) & 0o077:
                raise ConfigurationError(
                    "DEVELOPMENT_ROOT_EXPOSED", "the development root's key is not private: chmod 600 it"
                )
            key_pem, pem = _read(folder / KEY_FILE), _read(folder / CERTIFICATES_FILE)
        except OSError as error:
            raise ConfigurationError(
                "DEVELOPMENT_ROOT_UNREADABLE", f"cannot read the development root: {error.strerror}"
            ) from None
        return cls._from_pem(pem, key_pem)

    @classmethod
    def _from_pem(cls, pem: bytes, key_pem: bytes) -> DevelopmentRoot:
        malformed = ConfigurationError("DEVELOPMENT_ROOT_MALFORMED", "the development root cannot be used")
        try:
            certificates = x509.load_pem_x509_certificates(pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
            issuer = certificates[-1].public_key()
        except Exception:  # the cause may hold key bytes; the library raises many kinds
            raise malformed from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != issuer:
            raise malformed
        return cls(tuple(_der(certificate) for certificate in certificates), key)


def issue(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    window: tuple[int, int],
    *,
    path_length: int | None = None,
) -> x509.Certificate:
    """Return a certificate in the profile of the Nitro PKI.

    :param window: not before and not after, Unix seconds.
    :param path_length: of a CA; None makes a signing certificate.
    """
    authority = path_length is not None
    not_before, not_after = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at) for at in window)
    usage = x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(usage, critical=authority)
        .sign(issuer_key, hashes.SHA384())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
