"""Fuzz targets of attestation beside the platforms' own: policies, births, envelopes, texts, devices."""

from __future__ import annotations

import ctypes
import json
import os
import re
from dataclasses import replace
from functools import cache

import cbor2
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation import appraise
from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.attest.nsm import NitroSecurityModule
from ephemeralml.attestation.attest.nsm_device import MESSAGE, Ioctl
from ephemeralml.attestation.jwt import read_jwt
from ephemeralml.attestation.key_release import ber
from ephemeralml.attestation.key_release.birth import make_birth, verify_birth
from ephemeralml.attestation.key_release.cms import make_enveloped, open_enveloped
from ephemeralml.attestation.key_release.local_kms.refusals import Refusal
from ephemeralml.attestation.key_release.local_kms.requests import read_request
from ephemeralml.attestation.key_release.orders import Standing, make_order, verify_order
from ephemeralml.attestation.nitro import NitroEndorsements
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.nitro.show import show
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.attestation.policy import PoolOperator, TrustPolicy, load_policy
from ephemeralml.attestation.policy_bundle import open_policy_bundle
from ephemeralml.attestation.show import guess_platform
from ephemeralml.attestation.show import show as show_any
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.strict_json import read_json
from ephemeralml.attestation.verify import endorsements_for
from ephemeralml.wire.errors import MalformedError
from ephemeralml.wire.keys import PublicKey
from ephemeralml.wire.private_keys import PrivateKey

from ..attestation.nitro.forge import NOW, make_document
from ..attestation.nitro.fuzz_target import chain
from ..attestation.policy import samples as bundles
from .seeds import recorded
from .target import Target

# The registers of the documents that tests/attestation/nitro/forge.py makes.
_FORGED = {"name": "forged", **{f"pcr{index}": bytes([index + 1]).hex() * 48 for index in (0, 1, 2)}}


@cache
def _root() -> DevelopmentRoot:
    return DevelopmentRoot.create(now=NOW)


@cache
def _policy() -> TrustPolicy:
    pcrs = {f"pcr{index}": value.hex() for index, value in development_pcrs("image").items()}
    sets = [{"name": "one", **pcrs, "pcr8": "UNCHECKED"}]
    simulated = {"dangerous_allow": True, "root_fingerprint": _root().fingerprint.hex()}
    wanted = {
        "version": "1",
        "security_modes": ["evaluation", "production"],
        "platforms": {"nitro": [_FORGED], "simulated": {**simulated, "measurement_sets": sets}},
        "models": [{"id": "m", "manifest_hash": "ab" * 32}],
    }
    return load_policy(json.dumps(wanted).encode())


def _nitro_signed(data: bytes) -> None:
    """Any payload, signed by the right key: what a hostile enclave may say."""
    document = make_document(chain(), body=data)
    show(document)
    now = parse(document).timestamp_ms // 1000
    appraise(verify(document, NitroEndorsements(chain().roots), now), _policy(), now)


def _nitro_payloads() -> list[bytes]:
    return [parse(make_document(chain())).payload]


def _load_policy(data: bytes) -> None:
    policy = load_policy(data)
    assert load_policy(policy.to_json().encode()) == policy


# ----------------------------------------------------------------- key release

_WRAPPED = b"wrapped"


@cache
def _born() -> PublicKey:
    return PrivateKey.from_seed("x25519", b"s" * 32).public_key


@cache
def _births() -> list[bytes]:
    attester = BundleAttester(SimulatedAttester(_root(), development_pcrs("image"), now=lambda: float(NOW)))
    made = make_birth(
        pool="minilm",
        epoch=3,
        public_key=_born(),
        wrapped=_WRAPPED,
        receipt_key=Ed25519PrivateKey.from_private_bytes(b"r" * 32),
        attester=attester,
        now=NOW,
    )
    return [made]


def _birth(data: bytes) -> None:
    found = verify_birth(
        data,
        pool="minilm",
        wrapped=_WRAPPED,
        endorsements=endorsements_for(_policy()),
        policy=_policy(),
        now=NOW,
    )
    assert (found.epoch, found.created_at, found.public_key.key_id) == (3, NOW, _born().key_id)


def _orders() -> list[bytes]:
    revoked = Standing().next("minilm", "revoke", 3, b"k" * 32, NOW)
    return [
        make_order(order, bundles.KEY) for order in (revoked, replace(revoked, kind="rotate", revoked=()))
    ]


def _operated() -> TrustPolicy:
    return TrustPolicy(version="1", operators=(PoolOperator(key=bundles.ROOT.hex(), pools=("minilm",)),))


def _order(data: bytes) -> None:
    verify_order(data, pool="minilm", policy=_operated(), newest_epoch=100, now=NOW)
    assert data in _orders(), "an order that no operator signed is obeyed"


def _kms_bodies() -> list[bytes]:
    context = {"purpose": "fleet", "pool": "minilm"}
    decrypt = {"CiphertextBlob": "d3JhcHBlZA==", "EncryptionContext": context}
    recipient = {"AttestationDocument": "ZG9j", "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    return [
        json.dumps(decrypt).encode(),
        json.dumps({**decrypt, "Recipient": recipient}).encode(),
        json.dumps({"KeyId": "alias/fleet", "NumberOfBytes": 32, "Recipient": recipient}).encode(),
    ]


def _kms_request(data: bytes) -> None:
    """The local KMS answers refusals of its own kind; they never leave its package."""
    try:
        read_request("GenerateDataKey" if b"KeyId" in data else "Decrypt", data)
    except Refusal as refusal:
        raise MalformedError("KMS_" + re.sub(r"(?<!^)(?=[A-Z])", "_", refusal.kind).upper()) from None


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


@cache
def _envelopes() -> list[bytes]:
    return [make_enveloped(bytes(range(32)), _rsa().public_key())]


# ----------------------------------------------------------------- texts


def _policy_bundle(data: bytes) -> None:
    open_policy_bundle(data, bundles.ROOT)
    assert data == bundles.first(), "a policy that the root did not sign is taken"


_JWT = (
    b"eyJhbGciOiJSUzI1NiIsImtpZCI6ImsiLCJ0eXAiOiJKV1QifQ."
    b"eyJpc3MiOiJodHRwczovL2V4YW1wbGUuY29tIiwiZXhwIjoxNzAwMDAwMDAwLCJub25jZSI6WyJhIl19.c2lnbmF0dXJl"
)


# ----------------------------------------------------------------- the security module's answers

_ANSWERS = (
    {"GetRandom": {"random": bytes(range(256))}},
    {"DescribePCR": {"lock": True, "data": bytes(48)}},
    {"Error": "InternalError"},
    {
        "DescribeNSM": {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": "i-0-enc0",
            "max_pcrs": 32,
            "locked_pcrs": [0, 1],
            "digest": "SHA384",
        }
    },
)


def _nsm(data: bytes) -> None:
    module = NitroSecurityModule(os.devnull, ioctl=_answering(data))
    if b"Desc" in data[:16]:
        module.describe()
    elif b"PCR" in data[:16]:
        module.describe_pcr(0)
    else:
        module.random(64)


def _answering(answer: bytes) -> Ioctl:
    def ioctl(_: int, __: int, message: bytearray) -> int:
        asked, size, at, capacity = MESSAGE.unpack(message)
        used = min(len(answer), capacity)
        ctypes.memmove(at, answer, used)
        message[:] = MESSAGE.pack(asked, size, at, used)
        return 0

    return ioctl


def _show(data: bytes) -> None:
    """What a person is shown of hostile evidence: words, without control characters."""
    platform = guess_platform(data)
    if platform is None:
        raise MalformedError("UNKNOWN_FORMAT")
    for label, words in show_any(platform, data):
        assert label.isprintable()
        assert words.isprintable()


def _shown() -> list[bytes]:
    chain_of = parse(make_document(chain()))
    return [chain_of.raw, _JWT, *recorded("gcp-cs/*.jwt"), *recorded("nitro/*_prod*.bin")]


TARGETS = (
    Target("show", _shown, _show),
    Target("nitro-signed", _nitro_payloads, _nitro_signed),
    Target("nsm", lambda: [cbor2.dumps(answer) for answer in _ANSWERS], _nsm),
    Target("policy", lambda: [_policy().to_json().encode()], _load_policy),
    Target("policy-bundle", lambda: [bundles.first()], _policy_bundle),
    Target("birth", _births, _birth),
    Target("order", _orders, _order),
    Target("kms-request", _kms_bodies, _kms_request),
    Target("cms", _envelopes, lambda data: open_enveloped(data, _rsa())),
    Target("ber", _envelopes, lambda data: ber.read(data, max_bytes=8192)),
    Target("jwt", lambda: [_JWT], read_jwt),
    Target(
        "json",
        lambda: [b'{"a": [1, 2.5, null, true, "\\u00e9"], "b": {"c": {}}}'],
        lambda data: read_json(data, max_bytes=65_536),
    ),
)
