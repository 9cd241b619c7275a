"""COSE_Sign1 and strict Ed25519: held against pycose, Wycheproof, COSE WG examples and curve arithmetic."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.wire import cose
from ephemeralml.wire.cose import (
    Sign1,
    decode_sign1,
    sig_structure,
    sign1,
    sign1_with_library,
    verify_ed25519,
    verify_sign1,
    verify_with_library,
)
from ephemeralml.wire.encoding import Tag, encode
from ephemeralml.wire.errors import MalformedError, VerificationError

from ..corpus import corpus
from . import curve
from .strategies import mutations, raises, refuses

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PROTECTED: dict[int, object] = {1: -8, 3: "application/cwt"}
MESSAGE = sign1(b"payload", KEY, protected=PROTECTED)


def fails(public: bytes, message: bytes, signature: bytes, code: str = "SIG_FAILED") -> None:
    raises(VerificationError, code, verify_ed25519, public, message, signature)


# ---------------------------------------------------------------- Ed25519


def test_small_order_constants_are_all_and_only_the_small_order_points() -> None:
    points = curve.small_order_points()
    assert len(points) == 8
    assert all(curve.times(8, point) == curve.IDENTITY for point in points)
    assert {y for _, y in points} == cose._SMALL_ORDER_Y
    assert (cose._L, cose._P) == (curve.L, curve.P)
    assert curve.times(curve.L, curve.BASE) == curve.IDENTITY


def test_no_small_order_point_is_a_key_or_a_commitment() -> None:
    for point in curve.small_order_points():
        for sign in (0, 1):
            raw = bytearray(curve.encoded(point))
            raw[31] = raw[31] & 0x7F | sign << 7
            # S = 0, R = A = small order satisfies the cofactored equation for many messages.
            fails(bytes(raw), b"any", bytes(raw) + bytes(32))
            fails(PUBLIC, b"any", bytes(raw) + bytes(32))


def test_points_that_are_not_canonical_are_refused() -> None:
    signature = KEY.sign(b"m")
    for y in range(19):
        for sign in (0, 1):
            raw = (y + curve.P | sign << 255).to_bytes(32, "little")
            fails(raw, b"m", signature)
            fails(PUBLIC, b"m", raw + signature[32:])


def test_a_signature_under_a_key_with_torsion_is_judged_as_the_library_does() -> None:
    """A mixed-order key passes the checks above; the cofactorless equation then decides."""
    torsion = next(p for p in curve.small_order_points() if curve.times(4, p) != curve.IDENTITY)
    secret = 12345
    public = curve.encoded(curve.add(curve.times(secret, curve.BASE), torsion))
    commitment = curve.encoded(curve.times(6789, curve.BASE))
    outcomes = set()
    for number in range(24):
        message = bytes([number])
        digest = hashlib.sha512(commitment + public + message).digest()
        k = int.from_bytes(digest, "little") % curve.L
        signature = commitment + ((6789 + k * secret) % curve.L).to_bytes(32, "little")
        accepted = library_accepts(public, message, signature)
        outcomes.add(accepted)
        if accepted:
            verify_ed25519(public, message, signature)
        else:
            fails(public, message, signature)
    assert False in outcomes


def library_accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_what_the_library_alone_would_accept_is_refused() -> None:
    """Signatures that satisfy the equation with a commitment or key of small order, canonical or not."""
    secret = 12345
    public, identity = curve.encoded(curve.times(secret, curve.BASE)), curve.encoded(curve.IDENTITY)
    digest = hashlib.sha512(identity + public + b"m").digest()
    s = int.from_bytes(digest, "little") * secret % curve.L
    forgeries = [(public, identity + s.to_bytes(32, "little"))]
    for key in (identity, (curve.P + 1).to_bytes(32, "little")):
        # Under the identity as key, R = S * B holds for every message.
        forgeries.append((key, curve.encoded(curve.times(7, curve.BASE)) + (7).to_bytes(32, "little")))
    for key, signature in forgeries:
        assert library_accepts(key, b"m", signature)
        fails(key, b"m", signature)


def test_s_that_is_not_reduced_is_refused() -> None:
    signature = KEY.sign(b"m")
    s = int.from_bytes(signature[32:], "little")
    for more in range(1, 16):
        if s + more * curve.L < 1 << 256:
            fails(PUBLIC, b"m", signature[:32] + (s + more * curve.L).to_bytes(32, "little"))


def test_lengths() -> None:
    signature = KEY.sign(b"m")
    for wrong in (b"", signature[:-1], signature + b"\0"):
        fails(PUBLIC, b"m", wrong, "BAD_SIG_LENGTH")
    for wrong in (b"", PUBLIC[:-1], PUBLIC + b"\0"):
        fails(wrong, b"m", signature)


def test_every_flipped_bit_is_refused() -> None:
    signature = KEY.sign(b"m")
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        fails(PUBLIC, b"m", bytes(changed))
    for bit in range(0, 256, 3):
        changed = bytearray(PUBLIC)
        changed[bit // 8] ^= 1 << bit % 8
        fails(bytes(changed), b"m", signature)


def test_wycheproof() -> None:
    vectors = json.loads(corpus("vectors/wycheproof/ed25519_test.json").read_text())
    small = {y.to_bytes(32, "little") for y in cose._SMALL_ORDER_Y}
    accepted = refused = 0
    for group in vectors["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for test in group["tests"]:
            message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
            points = {public, signature[:32]}
            is_small = any(p[:-1] + bytes([p[-1] & 0x7F]) in small for p in points if len(p) == 32)
            if test["result"] == "valid" and not is_small:
                verify_ed25519(public, message, signature)
                accepted += 1
            else:
                with pytest.raises(VerificationError):
                    verify_ed25519(public, message, signature)
                refused += 1
    assert accepted + refused == vectors["numberOfTests"]
    assert accepted >= 80
    assert refused >= 60


@given(st.binary(max_size=100), st.binary(min_size=32, max_size=32))
@settings(max_examples=50)
def test_whatever_the_library_signs_is_accepted(message: bytes, seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    verify_ed25519(key.public_key().public_bytes_raw(), message, key.sign(message))


@given(st.binary(max_size=66), st.binary(max_size=66))
def test_any_bytes_only_fail(public: bytes, signature: bytes) -> None:
    with pytest.raises(VerificationError):
        verify_ed25519(public, b"m", signature)


# ---------------------------------------------------------------- COSE_Sign1


@given(st.binary(max_size=200), st.text(min_size=1, max_size=20) | st.integers(0, 65535) | st.none())
@settings(max_examples=60)
def test_equal_to_pycose_both_ways(payload: bytes, content_type: str | int | None) -> None:
    protected: dict[int, object] = {1: -8}
    if content_type is not None:
        protected[3] = content_type
    ours = sign1(payload, KEY, protected=protected)
    assert ours == sign1_with_library(payload, KEY, protected)
    assert verify_with_library(ours, PUBLIC)
    assert not verify_with_library(ours, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    verify_sign1(decode_sign1(ours), PUBLIC)


def test_pycose_and_we_refuse_the_same_flips() -> None:
    parsed = decode_sign1(MESSAGE)
    for place in range(len(MESSAGE) - 64, len(MESSAGE), 5):
        changed = MESSAGE[:place] + bytes([MESSAGE[place] ^ 1]) + MESSAGE[place + 1 :]
        assert not verify_with_library(changed, PUBLIC)
        raises(VerificationError, "SIG_FAILED", verify_sign1, decode_sign1(changed), PUBLIC)
    assert parsed.payload == b"payload"


def test_round_trip_and_parts() -> None:
    parsed = decode_sign1(MESSAGE)
    assert parsed == Sign1(PROTECTED, encode(PROTECTED), {}, b"payload", MESSAGE[-64:])  # type: ignore[arg-type]
    verify_sign1(parsed, PUBLIC)
    raises(VerificationError, "SIG_FAILED", verify_sign1, parsed, PUBLIC, b"other aad")
    with_aad = sign1(b"payload", KEY, protected=PROTECTED, external_aad=b"aad")
    verify_sign1(decode_sign1(with_aad), PUBLIC, b"aad")
    raises(VerificationError, "SIG_FAILED", verify_sign1, decode_sign1(with_aad), PUBLIC)


def test_untagged_is_made_on_request_and_never_read() -> None:
    untagged = sign1(b"payload", KEY, protected=PROTECTED, tagged=False)
    assert b"\xd2" + untagged == MESSAGE
    refuses("COSE_SHAPE", decode_sign1, untagged)


def test_other_algorithms_are_refused() -> None:
    for algorithm in (-7, -35, 8, None, "EdDSA"):
        refuses("BAD_ALG", sign1, b"", KEY, protected={1: algorithm})
        refuses("BAD_ALG", sign1_with_library, b"", KEY, {1: algorithm})
        data = encode(Tag(18, [encode({1: algorithm}), {}, b"", bytes(64)]))
        raises(VerificationError, "BAD_ALG", verify_sign1, decode_sign1(data), PUBLIC)
    refuses("BAD_ALG", sign1, b"", KEY, protected={})
    # An algorithm in the unprotected header is none.
    data = encode(Tag(18, [b"", {1: -8}, b"", bytes(64)]))
    raises(VerificationError, "BAD_ALG", verify_sign1, decode_sign1(data), PUBLIC)


def test_signature_lengths_have_their_own_code() -> None:
    for size in (0, 63, 65):
        data = encode(Tag(18, [encode({1: -8}), {}, b"", bytes(size)]))
        raises(VerificationError, "BAD_SIG_LENGTH", verify_sign1, decode_sign1(data), PUBLIC)


def test_size_is_bounded() -> None:
    large = sign1(bytes(65_536), KEY, protected=PROTECTED)
    refuses("CBOR_TOO_LARGE", decode_sign1, large)
    assert decode_sign1(large, max_bytes=1 << 17).payload == bytes(65_536)


def test_mutations_never_verify_as_something_else() -> None:
    original = decode_sign1(MESSAGE)
    for changed in mutations(MESSAGE, 1500):
        try:
            parsed = decode_sign1(changed)
            verify_sign1(parsed, PUBLIC)
        except (MalformedError, VerificationError):
            continue
        # Only what is not signed (the unprotected header) may differ and still verify.
        assert (parsed.payload, parsed.protected_bytes) == (original.payload, original.protected_bytes)


def test_cose_wg_eddsa_example_is_ours_byte_for_byte() -> None:
    example: dict[str, Any] = json.loads(
        corpus("vectors/cose-wg/eddsa-examples/eddsa-sig-01.json").read_text()
    )
    key = example["input"]["sign0"]["key"]
    parsed = decode_sign1(bytes.fromhex(example["output"]["cbor"]))
    expected = bytes.fromhex(example["intermediates"]["ToBeSign_hex"])
    assert sig_structure(parsed.protected_bytes, parsed.payload) == expected
    verify_sign1(parsed, bytes.fromhex(key["x_hex"]))
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["d_hex"]))
    ours = decode_sign1(sign1(parsed.payload, private, protected={1: -8, 3: 0}))
    assert (ours.signature, ours.protected_bytes) == (parsed.signature, parsed.protected_bytes)


def test_cose_wg_ed448_example_is_refused() -> None:
    example = json.loads(corpus("vectors/cose-wg/eddsa-examples/eddsa-sig-02.json").read_text())
    parsed = decode_sign1(bytes.fromhex(example["output"]["cbor"]))
    with pytest.raises(VerificationError):
        verify_sign1(parsed, PUBLIC)


def test_cose_wg_sign1_examples_have_our_structure_and_are_refused_as_es256() -> None:
    folder = corpus("vectors/cose-wg/sign1-tests")
    codes: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        example = json.loads(path.read_text())
        data = bytes.fromhex(example["output"]["cbor"])
        try:
            parsed = decode_sign1(data)
        except MalformedError as error:
            codes[path.stem] = error.code
            continue
        if not example.get("fail") and parsed.protected:
            aad = bytes.fromhex(example["input"]["sign0"].get("external", ""))
            expected = bytes.fromhex(example["intermediates"]["ToBeSign_hex"])
            assert sig_structure(parsed.protected_bytes, parsed.payload, aad) == expected
        with pytest.raises(VerificationError) as caught:
            verify_sign1(parsed, PUBLIC)
        codes[path.stem] = caught.value.code
    # pass-01 has an empty protected map (a0, signed as no bytes; never with us). pass-03 is untagged.
    assert codes["sign-pass-02"] == "BAD_ALG"
    assert codes["sign-pass-03"] == "COSE_SHAPE"
    assert codes["sign-fail-01"] == "CBOR_UNEXPECTED_TAG"
    assert set(codes.values()) <= {"BAD_ALG", "COSE_SHAPE", "CBOR_UNEXPECTED_TAG"}
