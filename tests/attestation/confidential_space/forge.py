"""Makes Confidential Space tokens with any one thing wrong, under a root and an issuer of the tests' own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ephemeralml.attestation.confidential_space import (
    GOOGLE_ISSUER,
    ConfidentialSpaceEndorsements,
    read_jwks,
)
from ephemeralml.wire.encoding import sha256

from ..nitro.forge import name, usage

NOW = 1_700_000_000
HOUR = 3_600
DAY = 86_400
AUDIENCE = "https://verifiers.example"
IMAGE = "sha256:" + "ab" * 32
ACCOUNT = "worker@project.iam.gserviceaccount.com"
RECEIPT_KEY = b"k" * 32
DIGEST = b"d" * 32

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(label: str, bits: int = 2_048, exponent: int = 65_537) -> rsa.RSAPrivateKey:
    """Return the tests' key of this name; making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=exponent, key_size=bits)


@dataclass
class Link:
    """One certificate; defaults are those of a CA of Google's chain."""

    name: str
    authority: bool = True
    path_length: int | None = None
    signs_certificates: bool = True
    signs_data: bool = False
    key_usage: bool = True
    window: tuple[int, int] = (NOW - DAY, NOW + DAY)
    key: PrivateKey | None = None
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    pss: bool = False
    issuer_name: str | None = None
    edit: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder


def leaf(**changes: Any) -> Link:
    """Return a signing certificate as Google makes it: no keyUsage."""
    fields: dict[str, Any] = {"name": "leaf", "authority": False, "key_usage": False}
    return Link(**(fields | changes))


def links() -> list[Link]:
    """Root, intermediate, leaf: as recorded tokens have them."""
    return [Link("root"), Link("intermediate"), leaf()]


@dataclass
class Chain:
    """DER certificates, the leaf first as in ``x5c``, and the leaf's key."""

    certificates: list[bytes]
    key: PrivateKey

    @property
    def endorsements(self) -> ConfidentialSpaceEndorsements:
        """What verifies it."""
        return ConfidentialSpaceEndorsements(roots=(sha256(self.certificates[-1]),))


def make_chain(wanted: Sequence[Link] | None = None) -> Chain:
    """Issue a chain, root first."""
    issuer: tuple[str, PrivateKey] | None = None
    certificates: list[bytes] = []
    key: PrivateKey = rsa_key("root")
    for link in wanted or links():
        key = link.key or rsa_key(link.name)
        certificates.insert(0, _issue(link, key, issuer or (link.name, key)))
        issuer = (link.name, key)
    return Chain(certificates, key)


@cache
def good_chain() -> Chain:
    """Return one chain for all who change nothing of it."""
    return make_chain()


def _issue(link: Link, key: PrivateKey, issuer: tuple[str, PrivateKey]) -> bytes:
    not_before, not_after = (datetime.fromtimestamp(at, UTC) for at in link.window)
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
        builder = builder.add_extension(usage(link.signs_data, link.signs_certificates), critical=True)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if link.pss else None
    digest: Any = link.digest
    certificate = link.edit(builder).sign(issuer[1], digest, rsa_padding=pss)
    return certificate.public_bytes(Encoding.DER)


def claims(changes: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return what a production token says, with the paths in ``changes`` replaced (``...`` removes)."""
    said: dict[str, Any] = {
        "aud": AUDIENCE,
        "iss": GOOGLE_ISSUER,
        "sub": "https://www.googleapis.com/compute/v1/projects/project/zones/zone-a/instances/worker",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + HOUR,
        "eat_nonce": [sha256(RECEIPT_KEY).hex(), DIGEST.hex()],
        "eat_profile": "https://cloud.google.com/confidential-computing/…/token-claims",
        "secboot": True,
        "oemid": 11129,
        "hwmodel": "GCP_INTEL_TDX",
        "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["251001"],
        "dbgstat": "disabled-since-boot",
        "google_service_accounts": [ACCOUNT],
        "submods": {
            "confidential_space": {
                "support_attributes": ["LATEST", "STABLE", "USABLE"],
                "monitoring_enabled": {"memory": False},
            },
            "container": {
                "image_reference": "registry.example/worker:1",
                "image_digest": IMAGE,
                "image_id": "sha256:" + "cd" * 32,
                "restart_policy": "Never",
                "args": ["/worker", "--gate"],
                "env": {"PATH": "/bin", "POOL": "minilm"},
                "env_override": {"POOL": "minilm"},
            },
            "gce": {"zone": "zone-a", "project_id": "project", "instance_name": "worker"},
            "nvidia_gpu": {"cc_mode": "ON"},
        },
    }
    for path, value in (changes or {}).items():
        *parents, last = path.split("/") if path.startswith("submods/") else [path]
        place = said
        for parent in parents:
            place = place[parent]
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = value
    return said


def b64(data: bytes) -> bytes:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def x5c(certificates: Sequence[bytes]) -> list[str]:
    """Return certificates as a header carries them."""
    return [base64.b64encode(certificate).decode() for certificate in certificates]


def sign(header: object, payload: object, key: PrivateKey | None = None, *, pss: bool = False) -> bytes:
    """Sign a token; octets for header or payload are taken as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signing_input = b".".join(map(b64, parts))
    signer = key or rsa_key("issuer")
    if isinstance(signer, rsa.RSAPrivateKey):
        how = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else padding.PKCS1v15()
        signature = signer.sign(signing_input, how, hashes.SHA256())
    else:
        signature = signer.sign(signing_input, ec.ECDSA(hashes.SHA256()))
    return signing_input + b"." + b64(signature)


def oidc(
    changes: Mapping[str, object] | None = None, header: Mapping[str, object] | None = None, **how: Any
) -> bytes:
    """Return an OIDC token; ``...`` in ``header`` removes a field."""
    fields = {"alg": "RS256", "kid": "key-1", "typ": "JWT"} | dict(header or {})
    return sign({key: value for key, value in fields.items() if value is not ...}, claims(changes), **how)


def pki(
    chain: Chain | None = None,
    changes: Mapping[str, object] | None = None,
    certificates: Sequence[bytes] | None = None,
) -> bytes:
    """Return a PKI token of a chain, or with other certificates in its place."""
    made = chain or good_chain()
    shown = made.certificates if certificates is None else certificates
    return sign({"alg": "RS256", "typ": "JWT", "x5c": x5c(shown)}, claims(changes), made.key)


def jwk(label: str, key_id: str, **changes: object) -> dict[str, object]:
    """Return a public key as a JWKS has it."""
    numbers = rsa_key(label).public_key().public_numbers()
    found: dict[str, object] = {
        "kty": "RSA",
        "alg": "RS256",
        "use": "sig",
        "kid": key_id,
        "n": b64(numbers.n.to_bytes(256, "big")).decode(),
        "e": "AQAB",
    }
    return {key: value for key, value in (found | changes).items() if value is not ...}


def jwks(*keys: dict[str, object]) -> bytes:
    """Return a JWKS; by default the issuer's two keys."""
    return json.dumps(
        {"keys": list(keys) or [jwk("issuer", "key-1"), jwk("older", "key-0")]}, separators=(",", ":")
    ).encode()


@cache
def issuer() -> ConfidentialSpaceEndorsements:
    """Return what verifies OIDC tokens of the tests' issuer, and PKI tokens of its chain."""
    return ConfidentialSpaceEndorsements(roots=good_chain().endorsements.roots, keys=read_jwks(jwks()))
