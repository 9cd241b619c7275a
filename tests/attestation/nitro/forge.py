"""Makes Nitro-format documents with any one thing wrong, under a root of the tests' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from ephemeralml.wire.cose import sig_structure
from ephemeralml.wire.encoding import encode, sha256

NOW = 1_700_000_000
DAY = 86_400


@dataclass
class Link:
    """One certificate of the chain; defaults are those of a CA or leaf that keeps to the profile."""

    name: str
    authority: bool = True
    path_length: int | None = None
    signs_certificates: bool | None = None
    signs_data: bool | None = None
    window: tuple[int, int] = (NOW - DAY, NOW + DAY)
    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    digest: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)
    issuer_name: str | None = None
    key_usage: bool = True
    edit: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder


def chain_links() -> list[Link]:
    """Root, three intermediates with path lengths 2, 1, 0 as AWS has them, and a leaf."""
    return [
        Link("root"),
        Link("region", path_length=2),
        Link("zone", path_length=1),
        Link("instance", path_length=0),
        Link("enclave", authority=False, window=(NOW - 3, NOW + 3 * 3600)),
    ]


@dataclass
class Chain:
    """DER certificates, root first, and the leaf's key."""

    certificates: list[bytes]
    key: ec.EllipticCurvePrivateKey

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The fingerprint that verifies it."""
        return (sha256(self.certificates[0]),)


def make_chain(links: list[Link] | None = None) -> Chain:
    """Issue a chain."""
    issuer: tuple[str, ec.EllipticCurvePrivateKey] | None = None
    certificates: list[bytes] = []
    for link in links or chain_links():
        key = ec.generate_private_key(link.curve)
        above = issuer or (link.name, key)
        certificates.append(_issue(link, key, above))
        issuer = (link.name, key)
    return Chain(certificates, key)


def _issue(
    link: Link, key: ec.EllipticCurvePrivateKey, issuer: tuple[str, ec.EllipticCurvePrivateKey]
) -> bytes:
    not_before, not_after = (datetime.fromtimestamp(at, UTC) for at in link.window)
    signs_certificates = link.authority if link.signs_certificates is None else link.signs_certificates
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(link.name))
        .issuer_name(name(link.issuer_name or issuer[0]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(link.authority, link.path_length), critical=True)
    )
    if link.key_usage:
        signs_data = not link.authority if link.signs_data is None else link.signs_data
        builder = builder.add_extension(usage(signs_data, signs_certificates), critical=link.authority)
    certificate = link.edit(builder).sign(issuer[1], link.digest)
    return certificate.public_bytes(serialization.Encoding.DER)


def name(common_name: str) -> x509.Name:
    """Return a name of one attribute."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def usage(signs_data: bool, signs_certificates: bool) -> x509.KeyUsage:
    """Return a key usage."""
    return x509.KeyUsage(
        digital_signature=signs_data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def ed25519_leaf(chain: Chain) -> bytes:
    """Return the chain's leaf with an Ed25519 key in it (its issuer is nobody)."""
    leaf = x509.load_der_x509_certificate(chain.certificates[-1])
    return (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(leaf.issuer)
        .public_key(ed25519.Ed25519PrivateKey.generate().public_key())
        .serial_number(1)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
        .sign(chain.key, hashes.SHA384())
        .public_bytes(serialization.Encoding.DER)
    )


def make_payload(chain: Chain, **changes: object) -> dict[object, object]:
    """Return a good payload with the fields in ``changes`` replaced (``...`` removes one)."""
    payload: dict[object, object] = {
        "module_id": "i-00000000000000000-enc0000000000000000",
        "digest": "SHA384",
        "timestamp": NOW * 1000 + 250,
        "pcrs": {index: bytes([index + 1]) * 48 for index in range(16)},
        "certificate": chain.certificates[-1],
        "cabundle": chain.certificates[:-1],
        "public_key": b"k" * 32,
        "user_data": b"u" * 32,
        "nonce": None,
    }
    payload.update(changes)
    return {key: value for key, value in payload.items() if value is not ...}


def make_document(
    chain: Chain,
    payload: object = None,
    *,
    body: bytes | None = None,
    protected: bytes | None = None,
    unprotected: object = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Sign a document; every part can be replaced and is then signed as it is."""
    header = encode({1: -35}) if protected is None else protected
    content = encode(make_payload(chain) if payload is None else payload) if body is None else body
    der = (key or chain.key).sign(sig_structure(header, content), ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(der)
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    return encode([header, {} if unprotected is None else unprotected, content, signature])
