"""Makes spec/vectors/air-v1: receipts with one fault each, and what a verifier must say of them.

Everything follows from a fixed seed and the claims below, so the output is the same
bytes every time; CI runs this file and lets ``git diff --exit-code`` judge. Run it as
``python tests/vectors/generate_air.py``. It builds receipts from raw parts and
shares no code with the issuer that the vectors test, but the CBOR encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.wire.encoding import Tag, encode

FOLDER: Final = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "air-v1"
SEED: Final = bytes([0x2A]) * 32
OTHER_SEED: Final = bytes([0x01]) * 32
NOW: Final = 1_740_500_200
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
PROFILE: Final = "https://spec.cyntrisec.com/air/v1"
HEADER: Final[dict[object, object]] = {1: -8, 3: 61}

Map = dict[object, object]
Vector = dict[str, object]
NAMES: Final = {
    1: "iss",
    6: "iat",
    7: "cti",
    10: "eat_nonce",
    265: "eat_profile",
    -65537: "model_id",
    -65538: "model_version",
    -65539: "model_hash",
    -65540: "request_hash",
    -65541: "response_hash",
    -65542: "attestation_doc_hash",
    -65543: "enclave_measurements",
    -65544: "policy_version",
    -65545: "sequence_number",
    -65546: "execution_time_ms",
    -65547: "memory_peak_mb",
    -65548: "security_mode",
    -65549: "model_hash_scheme",
}
KEY: Final = {name: key for key, name in NAMES.items()}


def nitro() -> Map:
    """The claims of a Nitro worker, without a nonce."""
    return {
        1: "cyntrisec.com",
        6: 1_740_500_000,
        7: bytes(range(0x01, 0x11)),
        265: PROFILE,
        -65537: "minilm-l6-v2",
        -65538: "1.0.0",
        -65539: b"\xaa" * 32,
        -65540: b"\xbb" * 32,
        -65541: b"\xcc" * 32,
        -65542: b"\xdd" * 32,
        -65543: measurements("nitro-pcr", 0x01, 0x02, 0x03),
        -65544: "policy-2026.02",
        -65545: 42,
        -65546: 116,
        -65547: 512,
        -65548: "production",
    }


def tdx() -> Map:
    """The claims of a TDX worker, with a nonce."""
    return {
        1: "cyntrisec.com",
        6: 1_740_500_100,
        7: bytes(range(0x11, 0x21)),
        10: bytes.fromhex("deadbeefcafebabe"),
        265: PROFILE,
        -65537: "llama-7b",
        -65538: "2.0.0",
        -65539: b"\x55" * 32,
        -65540: b"\x66" * 32,
        -65541: b"\x77" * 32,
        -65542: b"\x88" * 32,
        -65543: measurements("tdx-mrtd-rtmr", 0x10, 0x20, 0x30),
        -65544: "policy-2026.03",
        -65545: 1,
        -65546: 2500,
        -65547: 8192,
        -65548: "production",
    }


def measurements(kind: str, *slots: int) -> Map:
    """A measurements map whose slots each repeat one byte."""
    return {
        "measurement_type": kind,
        **{f"pcr{index}": bytes([byte]) * 48 for index, byte in enumerate(slots)},
    }


def key(seed: bytes = SEED) -> Ed25519PrivateKey:
    """The private key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def public(seed: bytes = SEED) -> bytes:
    """The raw public key of a seed, 32 bytes."""
    return key(seed).public_key().public_bytes_raw()


def sign(payload: bytes, protected: bytes = encode(HEADER)) -> bytes:
    """A correct signature over whatever the parts are."""
    return key().sign(encode(["Signature1", protected, b"", payload]))


def receipt(
    payload: bytes,
    *,
    protected: bytes = encode(HEADER),
    unprotected: Map | None = None,
    signature: bytes | None = None,
) -> bytes:
    """A tagged COSE_Sign1 of raw parts, correctly signed unless a signature is given."""
    signature = sign(payload, protected) if signature is None else signature
    return encode(Tag(18, [protected, unprotected or {}, payload, signature]))


def changed(base: Map, **changes: object) -> Map:
    """Claims with some replaced or, by None, left out; keys by name."""
    result = dict(base)
    result.update((KEY[name], value) for name, value in changes.items())
    return {number: value for number, value in result.items() if value is not None}


def measured(**changes: object) -> Map:
    """Nitro claims with slots replaced or, by None, left out."""
    slots = measurements("nitro-pcr", 0x01, 0x02, 0x03)
    slots.update(changes.items())
    return changed(nitro(), enclave_measurements={k: v for k, v in slots.items() if v is not None})


def vector(
    name: str,
    description: str,
    data: bytes,
    failure: tuple[int, str, str] | None = None,
    *,
    policy: Vector | None = None,
    claims: Map | None = None,
    wrong_key: bytes | None = None,
    now: int = NOW,
) -> Vector:
    """One vector file. ``failure`` is layer, check and code of the first failure."""
    result: Vector = {"name": name, "description": description, "version": "1.0"}
    if claims is not None:
        result["signing_key_seed_hex"] = SEED.hex()
    result["wrong_public_key_hex" if wrong_key is not None else "public_key_hex"] = (
        public() if wrong_key is None else wrong_key
    ).hex()
    if claims is not None:
        result["claims"] = _shown(claims)
    result |= {"receipt_hex": data.hex(), "receipt_length": len(data)}
    result |= {"verify_policy": policy or {}, "now": now}
    if failure is None:
        result["expected"] = {"verdict": "sound"}
    else:
        result["expected"] = {
            "verdict": "unsound",
            "layer": failure[0],
            "check": failure[1],
            "code": failure[2],
        }
    return result


def _shown(claims: Map) -> Vector:
    shown: Vector = {}
    for number, value in claims.items():
        name = NAMES[number] if isinstance(number, int) else str(number)
        if isinstance(value, bytes):
            shown[f"{name}_hex"] = value.hex()
        else:
            shown[name] = _shown(value) if isinstance(value, dict) else value
    return shown


def sound(name: str, description: str, claims: Map, **policy: object) -> Vector:
    """A sound vector."""
    return vector(name, description, receipt(encode(claims)), claims=claims, policy=policy)


def claim_fault(name: str, description: str, claims: Map, check: str, code: str) -> Vector:
    """A vector that fails in layer 3."""
    return vector(name, description, receipt(encode(claims)), (3, check, code))


def policy_fault(name: str, description: str, claims: Map, check: str, code: str, **policy: object) -> Vector:
    """A vector that fails in layer 4."""
    return vector(name, description, receipt(encode(claims)), (4, check, code), policy=policy)


def parse_fault(name: str, description: str, data: bytes, check: str, code: str) -> Vector:
    """A vector that fails in layer 1."""
    return vector(name, description, data, (1, check, code))


def golden() -> Iterator[Vector]:
    """The ten receipts that every implementation of the format agrees on."""
    plain, nonce = nitro(), tdx()
    data = receipt(encode(plain))
    yield sound("v1-nitro-no-nonce", "A Nitro receipt without a nonce.", plain)
    yield sound(
        "v1-tdx-with-nonce",
        "A TDX receipt with the nonce we asked for.",
        nonce,
        expected_nonce_hex="deadbeefcafebabe",
    )
    short = measured(pcr0=b"\xaa" * 32)
    yield claim_fault(
        "v1-bad-measurement-length", "pcr0 has 32 bytes, not 48.", short, "MEAS", "BAD_MEASUREMENT_LENGTH"
    )
    zero = changed(plain, model_hash=bytes(32))
    yield claim_fault(
        "v1-zero-model-hash", "model_hash is all zero.", zero, "MHASH_PRESENT", "ZERO_MODEL_HASH"
    )
    es256 = encode({1: -7, 3: 61})
    yield parse_fault(
        "v1-wrong-alg",
        "The protected header names ES256.",
        receipt(encode(plain), protected=es256),
        "ALG",
        "BAD_ALG",
    )
    yield vector(
        "v1-wrong-key",
        "Verified with the key of another signer.",
        data,
        (2, "SIG", "SIG_FAILED"),
        wrong_key=public(OTHER_SEED),
    )
    yield policy_fault(
        "v1-model-hash-mismatch",
        "We expect another model.",
        plain,
        "MHASH",
        "MODEL_HASH_MISMATCH",
        expected_model_hash_hex="ff" * 32,
    )
    yield policy_fault(
        "v1-nonce-mismatch",
        "We asked with another nonce.",
        nonce,
        "NONCE",
        "NONCE_MISMATCH",
        expected_nonce_hex="00" * 8,
    )
    yield policy_fault(
        "v1-platform-mismatch",
        "We expect a TDX worker.",
        plain,
        "PLATFORM",
        "PLATFORM_MISMATCH",
        expected_platform="tdx-mrtd-rtmr",
    )
    yield vector(
        "v1-stale-iat",
        "A year older than the hour that we allow.",
        data,
        (4, "FRESH", "TIMESTAMP_STALE"),
        policy={"max_age_secs": 3600},
        now=1_772_000_000,
    )


def sound_ones() -> Iterator[Vector]:
    """Receipts at the edge of what is allowed."""
    base = nitro()
    yield sound(
        "ok-everything-expected",
        "Every expectation is stated and met.",
        changed(base, eat_nonce=b"\x0f" * 8),
        expected_nonce_hex="0f" * 8,
        expected_model_hash_hex="aa" * 32,
        expected_model_id="minilm-l6-v2",
        expected_request_hash_hex="bb" * 32,
        expected_response_hash_hex="cc" * 32,
        expected_attestation_doc_hash_hex="dd" * 32,
        expected_platform="nitro-pcr",
        max_age_secs=200,
        security_modes=["production"],
    )
    yield sound(
        "ok-longest-texts",
        "Texts of 256 and 128 bytes, counted in UTF-8.",
        changed(
            base, iss="\u00e9" * 128, model_id="m" * 256, model_version="v" * 128, policy_version="p" * 256
        ),
    )
    yield sound("ok-nonce-64", "The longest nonce, 64 bytes.", changed(base, eat_nonce=bytes(range(64))))
    yield sound("ok-largest-uints", "Numbers of 64 bits.", changed(base, sequence_number=2**64 - 1))
    yield sound("ok-zero-uints", "Counters may be 0.", changed(base, sequence_number=0, execution_time_ms=0))
    yield sound(
        "ok-nitro-all-slots",
        "All six measurement slots of Nitro.",
        measured(pcr3=b"\x04" * 48, pcr4=b"\x05" * 48, pcr8=b"\x08" * 48),
    )
    yield sound(
        "ok-tdx-all-slots",
        "All five measurement slots of TDX.",
        changed(tdx(), enclave_measurements=measurements("tdx-mrtd-rtmr", 1, 2, 3, 4, 5)),
    )
    for scheme in ("sha256-single", "sha256-concat", "sha256-manifest"):
        yield sound(f"ok-{scheme}", f"model_hash_scheme {scheme}.", changed(base, model_hash_scheme=scheme))
    yield sound(
        "ok-evaluation-allowed",
        "An evaluation receipt where the policy names that mode.",
        changed(base, security_mode="evaluation"),
        security_modes=["production", "evaluation"],
    )
    edge = {"now": NOW, "policy": {"max_age_secs": 200, "clock_skew_secs": 0}}
    yield vector("ok-oldest", "Exactly as old as allowed.", receipt(encode(base)), **edge)  # type: ignore[arg-type]
    ahead = changed(base, iat=NOW + 300)
    yield vector("ok-skew", "Ahead by exactly the tolerated skew, 300 s.", receipt(encode(ahead)))


def envelope_faults() -> Iterator[Vector]:
    """Layer 1: what stands around the claims."""
    payload = encode(nitro())
    protected = encode(HEADER)
    data = receipt(payload)
    body = data[1:]
    shape = "COSE_DECODE_FAILED"
    yield parse_fault("env-empty", "No bytes at all.", b"", "COSE", shape)
    yield parse_fault("env-untagged", "Tag 18 is missing.", body, "COSE", shape)
    yield parse_fault("env-wrong-tag", "Tag 17 (COSE_Mac0).", b"\xd1" + body, "COSE", shape)
    yield parse_fault("env-cwt-tag", "The CWT tag 61 around tag 18.", b"\xd8\x3d" + data, "COSE", shape)
    yield parse_fault("env-truncated", "The last byte is missing.", data[:-1], "COSE", shape)
    yield parse_fault("env-trailing-byte", "One byte follows.", data + b"\x00", "COSE", "TRAILING_BYTES")
    three = encode(Tag(18, [protected, {}, payload]))
    yield parse_fault("env-three-parts", "The signature is missing.", three, "COSE", shape)
    five = encode(Tag(18, [protected, {}, payload, sign(payload), b""]))
    yield parse_fault("env-five-parts", "A fifth part.", five, "COSE", shape)
    listed = encode(Tag(18, [protected, [], payload, sign(payload)]))
    yield parse_fault("env-unprotected-array", "The unprotected header is an array.", listed, "COSE", shape)
    long_tag = b"\xd8\x12" + body
    yield parse_fault("env-long-tag", "Tag 18 in two bytes.", long_tag, "COSE", "NOT_DETERMINISTIC")
    endless = b"\xd2\x9f" + body[1:] + b"\xff"
    yield parse_fault("env-indefinite-array", "An indefinite array.", endless, "COSE", "NOT_DETERMINISTIC")
    split = b"\xd2\x84" + encode(protected) + b"\xa0\x5f" + encode(payload) + b"\xff" + encode(sign(payload))
    yield parse_fault("env-indefinite-payload", "The payload in chunks.", split, "COSE", "NOT_DETERMINISTIC")
    noisy = receipt(payload, unprotected={4: b"kid"})
    yield parse_fault(
        "env-unprotected-kid", "A kid outside the signature.", noisy, "UNPROTECTED", "NON_EMPTY_UNPROTECTED"
    )
    moved = receipt(payload, protected=encode({3: 61}), unprotected={1: -8})
    yield parse_fault(
        "env-unprotected-alg",
        "The algorithm outside the signature.",
        moved,
        "UNPROTECTED",
        "NON_EMPTY_UNPROTECTED",
    )
    twice = data.replace(encode(protected) + b"\xa0", encode(protected) + b"\xa2\x04\x40\x04\x40", 1)
    yield parse_fault("env-unprotected-duplicate", "A header label twice.", twice, "COSE", "DUPLICATE_KEY")
    big = receipt(encode(changed(nitro(), iss="x" * 65_536)))
    yield parse_fault("env-too-large", "More than 65,536 bytes.", big, "SIZE", "RECEIPT_TOO_LARGE")
    for name, text, sent in (
        ("detached", "The payload is detached.", None),
        ("empty", "The payload is empty.", b""),
    ):
        gone = encode(Tag(18, [protected, {}, sent, sign(b"")]))
        yield parse_fault(f"env-payload-{name}", text, gone, "PAYLOAD", "MISSING_PAYLOAD")


def header_faults() -> Iterator[Vector]:
    """Layer 1: the protected header is exactly {1: -8, 3: 61}."""
    payload = encode(nitro())

    def fault(name: str, description: str, protected: bytes, check: str, code: str) -> Vector:
        return parse_fault(f"hdr-{name}", description, receipt(payload, protected=protected), check, code)

    yield fault("empty", "No header at all.", b"", "ALG", "BAD_ALG")
    yield fault("no-alg", "No algorithm.", encode({3: 61}), "ALG", "BAD_ALG")
    yield fault("alg-float", "The algorithm as the float -8.0.", encode({1: -8.0, 3: 61}), "ALG", "BAD_ALG")
    yield fault(
        "alg-ed25519",
        "The algorithm -19, not the one that AIR v1 names.",
        encode({1: -19, 3: 61}),
        "ALG",
        "BAD_ALG",
    )
    yield fault("no-content-type", "No content type.", encode({1: -8}), "CTYPE", "BAD_CONTENT_TYPE")
    yield fault("other-content-type", "Content type 60.", encode({1: -8, 3: 60}), "CTYPE", "BAD_CONTENT_TYPE")
    named = encode({1: -8, 3: "application/cwt"})
    yield fault("content-type-text", "The content type as a text.", named, "CTYPE", "BAD_CONTENT_TYPE")
    extra = encode({1: -8, 3: 61, 4: b"kid"})
    yield fault("extra-kid", "A third header.", extra, "PROTECTED", "EXTRA_PROTECTED_HEADER")
    critical = encode({1: -8, 2: [3], 3: 61})
    yield fault("extra-crit", "A crit header.", critical, "PROTECTED", "EXTRA_PROTECTED_HEADER")
    yield fault(
        "unsorted", "Content type before alg.", b"\xa2\x03\x18\x3d\x01\x27", "PROTECTED", "NOT_DETERMINISTIC"
    )
    yield fault(
        "long-int",
        "The label 1 in two bytes.",
        b"\xa2\x18\x01\x27\x03\x18\x3d",
        "PROTECTED",
        "NOT_DETERMINISTIC",
    )
    yield fault("duplicate", "alg twice.", b"\xa3\x01\x27\x01\x27\x03\x18\x3d", "PROTECTED", "DUPLICATE_KEY")
    yield fault(
        "trailing", "A byte after the header map.", encode(HEADER) + b"\x00", "PROTECTED", "TRAILING_BYTES"
    )
    yield fault("not-map", "The header is an array.", encode([1, -8]), "PROTECTED", "COSE_DECODE_FAILED")


def payload_faults() -> Iterator[Vector]:
    """Layer 1: the payload is one deterministic map of the profile."""
    good = encode(nitro())
    first = good[1:16]  # key 1 and its value, "cyntrisec.com"

    def fault(name: str, description: str, payload: bytes, code: str, check: str = "PAYLOAD") -> Vector:
        return parse_fault(f"pay-{name}", description, receipt(payload), check, code)

    yield fault("array", "The payload is an array.", encode([1, 2]), "PAYLOAD_NOT_MAP")
    yield fault("garbage", "The payload is no CBOR.", b"\xff\xff", "COSE_DECODE_FAILED")
    yield fault("trailing", "A byte after the claims map.", good + b"\x00", "TRAILING_BYTES")
    yield fault("duplicate-claim", "iss twice.", b"\xb1" + first + first + good[16:], "DUPLICATE_KEY")
    unsorted = b"\xb0" + good[16:22] + first + good[22:]
    yield fault("unsorted", "iat before iss.", unsorted, "NOT_DETERMINISTIC")
    yield fault("indefinite-map", "An indefinite map.", b"\xbf" + good[1:] + b"\xff", "NOT_DETERMINISTIC")
    yield fault("long-map", "The map's size in two bytes.", b"\xb8\x10" + good[1:], "NOT_DETERMINISTIC")
    long_iat = good.replace(b"\x06\x1a\x67\xbd\xec\x20", b"\x06\x1b\x00\x00\x00\x00\x67\xbd\xec\x20", 1)
    yield fault("long-int", "iat in eight bytes.", long_iat, "NOT_DETERMINISTIC")
    half = good.replace(b"\x18\x2a", b"\xfb\x40\x45\x00\x00\x00\x00\x00\x00", 1)
    yield fault("long-float", "42.0 as a double.", half, "NOT_DETERMINISTIC")
    pcr0, pcr1 = (encode(f"pcr{i}") + encode(bytes([i + 1]) * 48) for i in (0, 1))
    swapped = good.replace(pcr0 + pcr1, pcr1 + pcr0, 1)
    yield fault("unsorted-measurements", "pcr1 before pcr0.", swapped, "NOT_DETERMINISTIC")
    again = good.replace(b"\xa4" + pcr0, b"\xa5" + pcr0 + pcr0, 1)
    yield fault("duplicate-measurement", "pcr0 twice.", again, "DUPLICATE_KEY")
    tagged = encode(changed(nitro(), iat=Tag(1, 1_740_500_000)))
    yield fault("tagged-iat", "iat with the date tag 1.", tagged, "COSE_DECODE_FAILED")
    bad_text = good.replace(b"cyntrisec.com", b"cyntrisec.\xc3\x28m", 1)
    yield fault("bad-utf8", "iss is not UTF-8.", bad_text, "COSE_DECODE_FAILED")
    other = encode(changed(nitro(), eat_profile="https://spec.cyntrisec.com/air/v2"))
    yield fault("other-profile", "Another profile.", other, "WRONG_PROFILE", "PROFILE")
    none = encode(changed(nitro(), eat_profile=None))
    yield fault("no-profile", "No profile.", none, "WRONG_PROFILE", "PROFILE")


def signature_faults() -> Iterator[Vector]:
    """Layer 2: strict Ed25519."""
    payload = encode(nitro())
    good = sign(payload)
    point, scalar = good[:32], int.from_bytes(good[32:], "little")
    identity = b"\x01" + bytes(31)

    def fault(
        name: str, description: str, signature: bytes, code: str, wrong_key: bytes | None = None
    ) -> Vector:
        data = receipt(payload, signature=signature)
        return vector(f"sig-{name}", description, data, (2, "SIG", code), wrong_key=wrong_key)

    yield fault("flipped", "One bit of the signature differs.", bytes([good[0] ^ 1]) + good[1:], "SIG_FAILED")
    malleable = point + (scalar + ORDER).to_bytes(32, "little")
    yield fault("s-plus-l", "S + L instead of S.", malleable, "SIG_FAILED")
    yield fault("short", "63 bytes.", good[:-1], "BAD_SIG_LENGTH")
    yield fault("long", "65 bytes.", good + b"\x00", "BAD_SIG_LENGTH")
    yield fault("empty", "No bytes.", b"", "BAD_SIG_LENGTH")
    forged = identity + bytes(32)
    yield fault(
        "small-order-key",
        "R = A = identity, S = 0: valid for any message in lax verifiers.",
        forged,
        "SIG_FAILED",
        identity,
    )
    high = (2**255 - 19 + 1).to_bytes(32, "little")
    yield fault("non-canonical-key", "The identity encoded as p + 1.", forged, "SIG_FAILED", high)
    yield fault("non-canonical-r", "R encoded as p + 1.", high + bytes(32), "SIG_FAILED")
    yield fault("short-key", "A public key of 31 bytes.", good, "SIG_FAILED", public()[:-1])
    other = key().sign(encode(["Signature1", encode(HEADER), b"aad", payload]))
    yield fault("external-aad", "Signed with external data.", other, "SIG_FAILED")
    yield fault("bare-payload", "Signed without the Sig_structure.", key().sign(payload), "SIG_FAILED")
    swapped = receipt(encode(changed(nitro(), iat=1_740_500_001)), signature=good)
    yield vector("sig-other-claims", "Another receipt's signature.", swapped, (2, "SIG", "SIG_FAILED"))


def claim_faults() -> Iterator[Vector]:
    """Layer 3: one rule each."""
    base = nitro()
    checks = {
        "iss": "ISS",
        "iat": "IAT",
        "cti": "CTI",
        "eat_nonce": "NONCE_FORM",
        "model_id": "MODEL_ID",
        "model_version": "MODEL_VERSION",
        "model_hash": "MHASH_PRESENT",
        "request_hash": "REQUEST_HASH",
        "response_hash": "RESPONSE_HASH",
        "attestation_doc_hash": "ATTESTATION_DOC_HASH",
        "enclave_measurements": "MEAS",
        "policy_version": "POLICY_VERSION",
        "sequence_number": "SEQUENCE",
        "execution_time_ms": "EXECUTION_TIME",
        "memory_peak_mb": "MEMORY_PEAK",
        "security_mode": "MODE_FORM",
        "model_hash_scheme": "MHASH_SCHEME",
    }

    def with_value(rule: str, name: str, code: str, value: object, description: str) -> Vector:
        return claim_fault(
            f"claim-{rule}-{name}", description, changed(base, **{name: value}), checks[name], code
        )

    for name, check in checks.items():
        if name not in ("eat_nonce", "model_hash_scheme"):
            yield claim_fault(
                f"claim-missing-{name}",
                f"{name} is missing.",
                changed(base, **{name: None}),
                check,
                "MISSING_CLAIM",
            )
        wrong: object = [] if isinstance(base.get(KEY[name], b""), bytes) else b"\x01"
        yield with_value("type", name, "WRONG_TYPE", wrong, f"{name} has another type.")
    for name, limit in (("iss", 256), ("model_id", 256), ("model_version", 128), ("policy_version", 256)):
        yield with_value("empty", name, "TEXT_LENGTH", "", f"{name} is empty.")
        yield with_value(
            "long", name, "TEXT_LENGTH", "\u00e9" * (limit // 2) + "x", f"{name} has {limit + 1} bytes."
        )
    for name in ("model_hash", "request_hash", "response_hash", "attestation_doc_hash"):
        yield with_value("short", name, "BAD_HASH_LENGTH", b"\x01" * 31, f"{name} has 31 bytes.")
        yield with_value("long", name, "BAD_HASH_LENGTH", b"\x01" * 33, f"{name} has 33 bytes.")
    for name in ("iat", "sequence_number", "execution_time_ms", "memory_peak_mb"):
        yield with_value("negative", name, "WRONG_TYPE", -1, f"{name} is negative.")
        yield with_value("bool", name, "WRONG_TYPE", True, f"{name} is true.")
        yield with_value("float", name, "WRONG_TYPE", 1.5, f"{name} is a float.")
    yield with_value("zero", "iat", "ZERO_IAT", 0, "iat is 0.")
    yield with_value("short", "cti", "BAD_CTI_LENGTH", b"\x01" * 15, "cti has 15 bytes.")
    yield with_value("long", "cti", "BAD_CTI_LENGTH", b"\x01" * 17, "cti has 17 bytes.")
    yield with_value("zero", "cti", "ZERO_CTI", bytes(16), "cti is all zero.")
    yield with_value("short", "eat_nonce", "BAD_NONCE_LENGTH", b"\x01" * 7, "eat_nonce has 7 bytes.")
    yield with_value("long", "eat_nonce", "BAD_NONCE_LENGTH", b"\x01" * 65, "eat_nonce has 65 bytes.")
    yield with_value("unknown", "security_mode", "UNKNOWN_SECURITY_MODE", "Production", "A word of its own.")
    yield with_value(
        "unknown", "model_hash_scheme", "UNKNOWN_MODEL_HASH_SCHEME", "sha512", "A scheme of its own."
    )


def closed_map_faults() -> Iterator[Vector]:
    """Layer 3: no claim and no measurement that AIR v1 does not name."""
    base = nitro()

    def fault(name: str, description: str, claims: Map, code: str, check: str = "CLOSED") -> Vector:
        return claim_fault(f"closed-{name}", description, claims, check, code)

    yield fault("unknown-claim", "The private claim -65550.", {**base, -65550: 1}, "UNKNOWN_CLAIM")
    yield fault("unknown-exp", "The CWT claim exp.", {**base, 4: 1_740_600_000}, "UNKNOWN_CLAIM")
    yield fault("text-key", "A claim with a text for its key.", {**base, "iss": "x"}, "BAD_CLAIM_KEY")
    yield fault("bytes-key", "A claim with bytes for its key.", {**base, b"\x01": "x"}, "BAD_CLAIM_KEY")
    yield fault("unknown-slot", "The slot pcr5.", measured(pcr5=b"\x05" * 48), "UNKNOWN_MEASUREMENT", "MEAS")
    slots: Map = {**measurements("nitro-pcr", 0x01, 0x02, 0x03), 0: b"\x01" * 48}
    numbered = changed(base, enclave_measurements=slots)
    yield fault("number-slot", "A slot with a number for its key.", numbered, "UNKNOWN_MEASUREMENT", "MEAS")
    for slot in ("pcr0", "pcr1", "pcr2", "measurement_type"):
        yield fault(f"no-{slot}", f"{slot} is missing.", measured(**{slot: None}), "MISSING_CLAIM", "MEAS")
    for slot in ("pcr1", "pcr2", "pcr3", "pcr4", "pcr8"):
        wide = measured(**{slot: b"\x01" * 49})
        yield fault(f"long-{slot}", f"{slot} has 49 bytes.", wide, "BAD_MEASUREMENT_LENGTH", "MEAS")
    text = measured(pcr0="01" * 24)
    yield fault("text-slot", "pcr0 is a text of 48 letters.", text, "WRONG_TYPE", "MEAS")
    other = measured(measurement_type="sev-snp")
    yield fault("unknown-type", "An unknown measurement_type.", other, "UNKNOWN_MTYPE", "MEAS")
    yield fault(
        "type-bytes",
        "measurement_type is bytes.",
        measured(measurement_type=b"nitro-pcr"),
        "WRONG_TYPE",
        "MEAS",
    )
    slots = {**measurements("tdx-mrtd-rtmr", 1, 2, 3), "pcr8": b"\x08" * 48}
    with_pcr8 = changed(tdx(), enclave_measurements=slots)
    yield fault("tdx-pcr8", "TDX has no pcr8.", with_pcr8, "PCR8_FORBIDDEN", "MEAS")


def policy_faults() -> Iterator[Vector]:
    """Layer 4: sound receipts that are not the wanted ones."""
    base = nitro()
    other = "ee" * 32
    rows: tuple[tuple[str, str, str, str, Vector], ...] = (
        ("model-id", "Another model id.", "MODEL_ID", "MODEL_ID_MISMATCH", {"expected_model_id": "llama-7b"}),
        (
            "request",
            "Another request.",
            "REQUEST",
            "REQUEST_HASH_MISMATCH",
            {"expected_request_hash_hex": other},
        ),
        (
            "response",
            "Another response.",
            "RESPONSE",
            "RESPONSE_HASH_MISMATCH",
            {"expected_response_hash_hex": other},
        ),
        (
            "attestation-doc",
            "Another attestation document.",
            "ATTESTATION_DOC",
            "ATTESTATION_DOC_HASH_MISMATCH",
            {"expected_attestation_doc_hash_hex": other},
        ),
        (
            "no-nonce",
            "A nonce was asked for, none came.",
            "NONCE",
            "NONCE_MISSING",
            {"expected_nonce_hex": "00" * 8},
        ),
        (
            "only-evaluation",
            "Only evaluation is accepted.",
            "SECURITY_MODE",
            "SECURITY_MODE_MISMATCH",
            {"security_modes": ["evaluation"]},
        ),
        ("too-old", "A second too old.", "FRESH", "TIMESTAMP_STALE", {"max_age_secs": 199}),
    )
    for name, description, check, code, policy in rows:
        yield policy_fault(f"pol-{name}", description, base, check, code, **policy)
    evaluation = changed(base, security_mode="evaluation")
    yield policy_fault(
        "pol-evaluation",
        "An evaluation receipt under the default policy.",
        evaluation,
        "SECURITY_MODE",
        "EVALUATION_MODE_REJECTED",
    )
    ahead = changed(base, iat=NOW + 301)
    yield policy_fault(
        "pol-future", "A second beyond the tolerated skew.", ahead, "FUTURE", "TIMESTAMP_FUTURE"
    )
    far = changed(base, iat=2**64 - 1)
    yield policy_fault("pol-far-future", "The largest iat there is.", far, "FUTURE", "TIMESTAMP_FUTURE")
    clock = (4, "FUTURE", "CLOCK_ERROR")
    yield vector("pol-clock", "The verifier's clock stands at 0.", receipt(encode(base)), clock, now=0)


GROUPS: Final[tuple[Callable[[], Iterator[Vector]], ...]] = (
    golden,
    sound_ones,
    envelope_faults,
    header_faults,
    payload_faults,
    signature_faults,
    claim_faults,
    closed_map_faults,
    policy_faults,
)


def files() -> dict[str, str]:
    """Every vector file's text by its name."""
    vectors = [made for group in GROUPS for made in group()]
    result = {f"{made['name']}.json": json.dumps(made, indent=2) + "\n" for made in vectors}
    if len(result) != len(vectors):
        raise AssertionError("two vectors have one name")
    return result


def main() -> None:
    """Write the vectors, and remove what is none of them."""
    made = files()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
