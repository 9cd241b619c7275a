"""Birth certificates: a key that no wanted TEE made is never adopted."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation import MeasurementSet, Platforms, SimulatedPolicy, TrustPolicy
from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.key_release.aws_settings import AwsSettings
from ephemeralml.attestation.key_release.birth import BirthCertificate, make_birth, verify_birth
from ephemeralml.attestation.key_release.local_kms import development_policies
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.verify import Endorsements, endorsements_for
from ephemeralml.wire.announcement import MAX_BIRTH_BYTES
from ephemeralml.wire.bundle import EvidenceBundle
from ephemeralml.wire.cose import sign1
from ephemeralml.wire.encoding import decode, encode, sha256
from ephemeralml.wire.errors import AppraisalError, Error, MalformedError, VerificationError
from ephemeralml.wire.keys import PublicKey, SuiteName
from ephemeralml.wire.private_keys import PrivateKey

from .conftest import CONTEXT, IMAGE, WORKER, Connect, StartKms

NOW = int(time.time())
WRAPPED = b"wrapped blob"
PUBLIC = PrivateKey.from_seed("x25519", b"s" * 32).public_key
HEADER: dict[int, object] = {1: -8, 3: "application/vnd.ephemeralml.birth+cbor"}


def policy_of(root: DevelopmentRoot, image: str = IMAGE, **values: Any) -> TrustPolicy:
    pcrs = {f"pcr{index}": value.hex() for index, value in development_pcrs(image).items()}
    simulated = SimulatedPolicy(
        dangerous_allow=True,
        root_fingerprint=root.fingerprint.hex(),
        measurement_sets=(MeasurementSet(name="development", **pcrs),),
    )
    modes = values.pop("security_modes", ("evaluation",))
    return TrustPolicy(version="1", platforms=Platforms(simulated=simulated), security_modes=modes, **values)


def at(root: DevelopmentRoot, when: int, image: str = IMAGE) -> SimulatedAttester:
    return SimulatedAttester(root, development_pcrs(image), now=lambda: float(when))


def make(attester: SimulatedAttester, now: int = NOW, **values: Any) -> bytes:
    given: dict[str, Any] = {
        "pool": "minilm",
        "epoch": 3,
        "public_key": PUBLIC,
        "wrapped": WRAPPED,
        "receipt_key": Ed25519PrivateKey.generate(),
    }
    return make_birth(**(given | values), attester=BundleAttester(attester), now=now)


def check(data: bytes, root: DevelopmentRoot, **values: Any) -> BirthCertificate:
    policy = values.pop("policy", None) or policy_of(root)
    given: dict[str, Any] = {
        "pool": "minilm",
        "wrapped": WRAPPED,
        "endorsements": endorsements_for(policy),
        "policy": policy,
        "now": NOW,
    }
    return verify_birth(data, **(given | values))


def code(call: Callable[[], object], kind: type[Error]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("suite", ["xwing", "x25519"])
def test_round_trip(root: DevelopmentRoot, suite: SuiteName) -> None:
    receipt_key = Ed25519PrivateKey.generate()
    public_key = PrivateKey.from_seed(suite, b"s" * 32).public_key
    found = check(make(at(root, NOW), public_key=public_key, receipt_key=receipt_key), root)
    assert found == BirthCertificate(
        "minilm", 3, public_key, sha256(WRAPPED), NOW, receipt_key.public_key().public_bytes_raw()
    )


def test_verifies_long_after_its_evidence_expired(root: DevelopmentRoot) -> None:
    old_root = DevelopmentRoot.create(now=NOW - 10 * 86_400)
    made = make(at(old_root, NOW - 5 * 86_400), now=NOW - 5 * 86_400)
    strict = policy_of(old_root, max_evidence_age_s=60)
    assert check(made, old_root, policy=strict).created_at == NOW - 5 * 86_400


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"pool": "other"}, "BIRTH_WRONG_POOL"),
        ({"wrapped": b"another blob"}, "BIRTH_WRONG_BLOB"),
        ({"now": NOW - 301}, "BIRTH_FUTURE"),
    ],
)
def test_not_of_this_key(root: DevelopmentRoot, values: dict[str, Any], expected: str) -> None:
    made = make(at(root, NOW))
    assert code(lambda: check(made, root, **values), VerificationError) == expected


def test_too_old(root: DevelopmentRoot) -> None:
    made = make(at(root, NOW))
    assert code(lambda: check(made, root, now=NOW + 601, max_age_s=600), AppraisalError) == "BIRTH_STALE"
    assert check(made, root, now=NOW + 600, max_age_s=600)


@pytest.mark.parametrize(("offset", "good"), [(-601, False), (-600, True), (600, True), (601, False)])
def test_evidence_of_another_time(offset: int, good: bool) -> None:
    root = DevelopmentRoot.create(now=NOW - 86_400)
    made = make(at(root, NOW + offset))
    later = NOW + 3600
    if good:
        assert check(made, root, now=later)
    else:
        assert code(lambda: check(made, root, now=later), VerificationError) == "BIRTH_TIME"


def test_evidence_of_the_future(root: DevelopmentRoot) -> None:
    made = make(at(root, NOW + 400))
    assert code(lambda: check(made, root), VerificationError) == "BIRTH_TIME"


def test_made_by_an_unwanted_tee(root: DevelopmentRoot) -> None:
    for pcrs, expected in (
        (development_pcrs("planted-image"), "MEASUREMENT_MISMATCH"),
        ({}, "DEBUG_NOT_ALLOWED"),
    ):
        attester = SimulatedAttester(root, pcrs, now=lambda: float(NOW))
        made = make(attester)
        assert code(partial(check, made, root), AppraisalError) == expected
    good = make(at(root, NOW))
    default = policy_of(root, security_modes=("production",))
    assert code(lambda: check(good, root, policy=default), AppraisalError) == "SECURITY_MODE_NOT_ALLOWED"


def test_made_under_another_root(root: DevelopmentRoot) -> None:
    made = make(at(DevelopmentRoot.create(now=NOW), NOW))
    with pytest.raises(VerificationError):
        check(made, root)
    with pytest.raises(Error):
        check(make(at(root, NOW)), root, endorsements=Endorsements())
    with pytest.raises(AppraisalError):
        check(
            make(at(root, NOW)),
            root,
            policy=TrustPolicy(version="1"),
            endorsements=endorsements_for(policy_of(root)),
        )


def parts(data: bytes) -> tuple[bytes, str, bytes]:
    value: Any = decode(data)
    return value[0], value[1][0], value[1][1]


def stored(signed: bytes, platform: str, evidence: bytes) -> bytes:
    return encode([signed, EvidenceBundle(platform, evidence).to_list()])


def test_evidence_of_another_certificate_does_not_vouch(root: DevelopmentRoot) -> None:
    """The host holds genuine evidence of genuine workers: none of it fits another key."""
    genuine = make(at(root, NOW))
    _, platform, evidence = parts(genuine)
    host_key = Ed25519PrivateKey.generate()
    planted, _, _ = parts(make(at(root, NOW), receipt_key=host_key, public_key=_planted_key()))
    assert (
        code(lambda: check(stored(planted, platform, evidence), root), VerificationError)
        == "KEY_BINDING_FAILED"
    )


def test_the_same_workers_evidence_for_something_else_does_not_vouch(root: DevelopmentRoot) -> None:
    receipt_key = Ed25519PrivateKey.generate()
    signed, platform, _ = parts(make(at(root, NOW), receipt_key=receipt_key))
    announcement = at(root, NOW).attest(
        public_key=receipt_key.public_key().public_bytes_raw(), user_data=sha256(b"an announcement")
    )
    data = stored(signed, platform, announcement)
    assert code(lambda: check(data, root), VerificationError) == "BIRTH_BINDING_FAILED"


def _planted_key() -> PublicKey:
    return PrivateKey.from_seed("x25519", b"p" * 32).public_key


def resigned(root: DevelopmentRoot, change: dict[int, object], header: dict[int, object] = HEADER) -> bytes:
    """Return a certificate with changed fields that is signed and attested all the same."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    good = BirthCertificate("minilm", 3, PUBLIC, sha256(WRAPPED), NOW, raw)
    fields: Any = decode(good.encode())
    fields |= change
    payload = encode({name: value for name, value in fields.items() if value is not None})
    evidence = at(root, NOW).attest(public_key=raw, user_data=sha256(payload))
    return stored(sign1(payload, key, protected=header), "simulated", evidence)


def test_the_forgers_tool_makes_good_ones_too(root: DevelopmentRoot) -> None:
    assert check(resigned(root, {}), root).epoch == 3


@pytest.mark.parametrize(
    ("change", "kind", "expected"),
    [
        ({1: 2}, MalformedError, "UNKNOWN_VERSION"),
        ({2: "Not A Pool"}, MalformedError, "BAD_POOL"),
        ({3: -1}, MalformedError, "OUT_OF_BOUNDS"),
        ({3: None}, MalformedError, "MISSING_FIELD"),
        ({4: "rsa"}, MalformedError, "UNKNOWN_SUITE"),
        ({5: b"k"}, MalformedError, "OUT_OF_BOUNDS"),
        ({6: bytes(32)}, VerificationError, "BIRTH_WRONG_KEY_ID"),
        ({7: b"h"}, MalformedError, "OUT_OF_BOUNDS"),
        ({8: 1 << 41}, MalformedError, "OUT_OF_BOUNDS"),
        ({9: bytes(32)}, VerificationError, "SIG_FAILED"),
        ({10: 0}, MalformedError, "UNKNOWN_FIELD"),
    ],
)
def test_changed_fields(
    root: DevelopmentRoot, change: dict[int, object], kind: type[Error], expected: str
) -> None:
    data = resigned(root, change)
    assert code(lambda: check(data, root), kind) == expected


@pytest.mark.parametrize(
    "header", [{1: -8}, {1: -8.0, **{3: HEADER[3]}}, HEADER | {4: b"kid"}, HEADER | {3: "x"}]
)
def test_other_headers(root: DevelopmentRoot, header: dict[int, object]) -> None:
    data = resigned(root, {}, header)
    assert code(lambda: check(data, root), MalformedError) == "BIRTH_HEADER"


@pytest.mark.parametrize(
    "data", [b"", b"\x80", encode([]), encode([b"", "nitro", b""]), encode([b"", 5, b""]), bytes(40_000)]
)
def test_other_shapes(root: DevelopmentRoot, data: bytes) -> None:
    with pytest.raises(MalformedError):
        check(data, root)


def test_another_platforms_name_finds_no_roots_or_no_verifier(root: DevelopmentRoot) -> None:
    signed, _, evidence = parts(make(at(root, NOW)))
    for platform in ("nitro", "tdx", ""):
        data = stored(signed, platform, evidence)
        with pytest.raises(Error):
            check(data, root)


def test_every_flipped_byte_is_refused(root: DevelopmentRoot) -> None:
    good = make(at(root, NOW))
    policy = policy_of(root)
    for position in range(0, len(good), 3):
        flipped = good[:position] + bytes((good[position] ^ 1,)) + good[position + 1 :]
        with pytest.raises(Error):
            check(flipped, root, policy=policy)


def test_a_planted_fleet_key_is_refused_though_the_key_policy_is_wrong(
    start_kms: StartKms, attester: SimulatedAttester, root: DevelopmentRoot, connect: Connect
) -> None:
    """A host that may call Encrypt wraps a seed that it knows; the KMS would give it to every worker."""
    from ephemeralml.attestation.key_release.boto import make_client

    policies = development_policies(image_sha384=[development_pcrs(IMAGE)[0].hex()])
    wrong = {"Effect": "Allow", "Principal": "*", "Action": "kms:Encrypt"}
    policies["alias/fleet"]["Statement"].append(wrong)
    kms = start_kms(policies=policies)
    worker = connect(attester, kms)
    genuine = worker.generate_data_key(CONTEXT)
    now = int(time.time())  # this attester's clock is the real one
    stored = make(
        attester,
        now,
        public_key=PrivateKey.from_seed("x25519", genuine.plaintext).public_key,
        wrapped=genuine.wrapped,
    )
    settings = AwsSettings(
        endpoint_url=kms.endpoint,
        region="us-east-1",
        access_key_id=WORKER.access_key_id,
        secret_access_key=WORKER.secret_access_key,
    )
    host = make_client(settings)
    known_seed = b"k" * 32
    blob = host.encrypt(KeyId="alias/fleet", Plaintext=known_seed, EncryptionContext=CONTEXT)[
        "CiphertextBlob"
    ]
    host.close()
    assert worker.decrypt(blob, CONTEXT) == known_seed
    # The genuine certificate is of another blob,
    assert code(lambda: check(stored, root, wrapped=blob, now=now), VerificationError) == "BIRTH_WRONG_BLOB"
    # and the host cannot make one: genuine evidence does not carry its key, and its own is unwanted.
    forged = make(
        SimulatedAttester(root, development_pcrs("hosts-image")),
        now,
        public_key=PrivateKey.from_seed("x25519", known_seed).public_key,
        wrapped=blob,
    )
    assert code(lambda: check(forged, root, wrapped=blob, now=now), AppraisalError) == "MEASUREMENT_MISMATCH"
    assert check(stored, root, wrapped=genuine.wrapped, now=now).wrapped_hash == sha256(genuine.wrapped)


def test_the_bound_is_that_of_real_evidence() -> None:
    """X-Wing key, COSE and the largest document that the Nitro parser takes fit."""
    assert MAX_BIRTH_BYTES >= 16_384 + 1_216 + 1_024
