"""Answers of an attestation service of the tests' own, with any one thing wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ephemeralml.attestation.nvidia import NvidiaEndorsements
from ephemeralml.wire.encoding import encode, sha256

from .forge import DAY, DRIVER, NONCE, NOW, VBIOS, Cert, Party, issue

ISSUER = "https://nras.attestation.nvidia.com"
KID = "nv-eat-kid-test"
NAME = "NVIDIA Attestation Service GPU TEST"


@cache
def authority() -> Party:
    """The certificate that is pinned, RSA as the vendor's."""
    return issue(Cert("intermediate", rsa=True))


@cache
def signer() -> Party:
    """The service's key, with a certificate of two days."""
    return issue(Cert(NAME, ca=False, window=(NOW - 3600, NOW + 2 * DAY)), authority())


def base64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(
    party: Party | None = None, kid: str = KID, *, x5c: list[bytes] | None = None, **changes: object
) -> dict[str, object]:
    """Return a key of the set."""
    own = party or signer()
    assert isinstance(own.key, ec.EllipticCurvePrivateKey)
    numbers = own.key.public_key().public_numbers()
    size = (own.key.key_size + 7) // 8
    certificates = [own.certificate, authority().certificate] if x5c is None else x5c
    entry: dict[str, object] = {
        "kty": "EC",
        "crv": "P-384",
        "kid": kid,
        "x": base64url(numbers.x.to_bytes(size, "big")),
        "y": base64url(numbers.y.to_bytes(size, "big")),
        "x5c": [base64.b64encode(one).decode() for one in certificates],
    }
    return {name: value for name, value in (entry | changes).items() if value is not ...}


def jwks(*keys: Mapping[str, object]) -> bytes:
    """Return a key set; the good one where none is given."""
    return json.dumps({"keys": list(keys or (jwk(),))}).encode()


def endorsements(*keys: Mapping[str, object]) -> NvidiaEndorsements:
    """Return what the good answer needs."""
    whole = NvidiaEndorsements(nras_issuers=(sha256(authority().certificate),))
    return whole.with_files({"jwks.json": jwks(*keys)})


def token(
    claims: Mapping[str, object], *, key: Party | None = None, header: Mapping[str, object] | None = None
) -> str:
    """Sign a token; claims that are ``...`` are left out."""
    head = {"kid": KID, "alg": "ES384"} if header is None else header
    body = {name: value for name, value in claims.items() if value is not ...}
    parts = [base64url(json.dumps(part).encode()) for part in (head, body)]
    own = (key or signer()).key
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(own.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA384())))
    size = (own.key_size + 7) // 8
    return ".".join([*parts, base64url(r.to_bytes(size, "big") + s.to_bytes(size, "big"))])


def times(**changes: object) -> dict[str, object]:
    """Return what every token has."""
    return {"iss": ISSUER, "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "eat_nonce": NONCE.hex(), **changes}


def device_claims(**changes: object) -> dict[str, object]:
    """Return what the service says of a good device; an underscore in a name stands for a hyphen."""
    chain = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
    gpu: dict[str, object] = dict.fromkeys(
        (
            "arch-check",
            "attestation-report-parsed",
            "attestation-report-nonce-match",
            "attestation-report-signature-verified",
            "attestation-report-cert-chain-fwid-match",
            "driver-rim-fetched",
            "driver-rim-signature-verified",
            "driver-rim-version-match",
            "driver-rim-measurements-available",
            "vbios-rim-fetched",
            "vbios-rim-signature-verified",
            "vbios-rim-version-match",
            "vbios-rim-measurements-available",
            "vbios-index-no-conflict",
        ),
        True,
    )
    gpu |= dict.fromkeys(
        ("attestation-report-cert-chain", "driver-rim-cert-chain", "vbios-rim-cert-chain"), chain
    )
    gpu |= {"driver-version": DRIVER, "vbios-version": VBIOS, "mode": "spt"}
    whole = {f"x-nvidia-gpu-{name}": value for name, value in gpu.items()}
    whole |= times()
    whole |= {"measres": "success", "secboot": True, "dbgstat": "disabled", "hwmodel": "GH100 A01 GSP BROM"}
    whole |= {"ueid": "478176379286082186618948445787393647364802107249"}
    return whole | changes


def answer(
    *devices: str,
    overall: Mapping[str, object] | None = None,
    submods: object = None,
    header: Mapping[str, object] | None = None,
    key: Party | None = None,
    names: tuple[str, ...] = ("GPU-0", "GPU-1", "GPU-2"),
) -> list[Any]:
    """Return an answer about devices whose tokens are given; about one good device where none is."""
    tokens = dict(zip(names, devices or (token(device_claims()),), strict=False))
    digests = {name: ["DIGEST", ["SHA-256", sha256(text.encode()).hex()]] for name, text in tokens.items()}
    claims = times(
        **{"x-nvidia-overall-att-result": True, "submods": digests if submods is None else submods}
    )
    return [["JWT", token(claims | dict(overall or {}), header=header, key=key)], tokens]


def make_evidence(value: object = None) -> bytes:
    """Return an answer in the form that travels."""
    return encode({1: 1, 2: "nras", 3: json.dumps(answer() if value is None else value)})


def signer_with(**changes: Any) -> Party:
    """Return another key whose certificate says something else."""
    says = Cert(NAME, ca=False, window=(NOW - 3600, NOW + 2 * DAY))
    return issue(replace(says, **changes), authority())
