"""Seeds, public keys and key ids, against the published vectors of X-Wing, RFC 9180 and COSE-HPKE."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.wire.encoding import Tag, decode, encode
from ephemeralml.wire.errors import MalformedError, SealingError
from ephemeralml.wire.keys import SUITES, PublicKey, SuiteName, suite_named
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealer, to_cose_encrypt

from ..corpus import corpus
from .strategies import private_key, raises, refuses
from .strategies import values as any_values


def xwing_vectors() -> list[dict[str, Any]]:
    vectors = json.loads(corpus("vectors/hpke-pq/test-vectors.json").read_text())
    return [vector for vector in vectors if vector["kem_id"] == 0x647A]


def test_xwing_seeds_expand_as_published() -> None:
    vectors = xwing_vectors()
    assert vectors
    for vector in vectors:
        key = PrivateKey.from_seed("xwing", bytes.fromhex(vector["skRm"]))
        assert key.public_key.raw.hex() == vector["pkRm"]


def test_xwing_decapsulates_the_published_ciphertext() -> None:
    """The suite of ours is the draft's (HKDF-SHA256, ChaCha20-Poly1305) with AES-256-GCM in its place, so
    the check opens the draft's own first message with the draft's AEAD under our expanded key."""
    from cryptography.hazmat.primitives import hpke

    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
    opened = 0
    for vector in xwing_vectors():
        if (vector["kdf_id"], vector["aead_id"]) != (1, 3):
            continue
        key = PrivateKey.from_seed("xwing", bytes.fromhex(vector["skRm"]))
        first = vector["encryptions"][0]
        if first["aad"]:
            # The library seals without additional data: compare the encapsulation alone.
            assert len(vector["enc"]) == 2 * SUITES["xwing"].encapsulated_bytes
            opened += _decapsulates(vector, key)
            continue
        sealed = bytes.fromhex(vector["enc"] + first["ct"])
        assert suite.decrypt(sealed, key.hpke_key, info=bytes.fromhex(vector["info"])).hex() == first["pt"]
        opened += 1
    assert opened


def _decapsulates(vector: dict[str, Any], key: PrivateKey) -> bool:
    """X-Wing combiner (draft-connolly-cfrg-xwing-kem, section 5.3) over the keys that our seed expands to."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    expanded = hashlib.shake_256(bytes.fromhex(vector["skRm"])).digest(96)
    encapsulated = bytes.fromhex(vector["enc"])
    post_quantum = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(encapsulated[:1088])
    theirs = X25519PublicKey.from_public_bytes(encapsulated[1088:])
    classical = X25519PrivateKey.from_private_bytes(expanded[64:]).exchange(theirs)
    own = key.public_key.raw[1184:]
    label = bytes.fromhex("5c2e2f2f5e5c")
    shared = hashlib.sha3_256(post_quantum + classical + encapsulated[1088:] + own + label).hexdigest()
    assert shared == vector["shared_secret"]
    return True


def test_x25519_seeds_expand_as_rfc9180_says() -> None:
    with gzip.open(corpus("vectors/hpke_rfc9180.json.gz")) as file:
        vectors = [vector for vector in json.load(file) if vector["kem_id"] == 0x20]
    assert len(vectors) >= 32
    for vector in vectors:
        for seed, public, private in (("ikmR", "pkRm", "skRm"), ("ikmE", "pkEm", "skEm")):
            key = PrivateKey.from_seed("x25519", bytes.fromhex(vector[seed]))
            assert key.public_key.raw.hex() == vector[public]
            assert isinstance(key.hpke_key, X25519PrivateKey)
            assert key.hpke_key.private_bytes_raw().hex() == vector[private]


def test_cose_hpke_example_has_the_shape_of_ours() -> None:
    """Example 1 of draft-ietf-cose-hpke: its key is not published, its structure must be ours."""
    text = re.sub(r"/[^/]*/", "", corpus("vectors/cose-hpke/cose_encrypt_ex1.txt").read_text())
    content, iv, ciphertext, protected, encapsulated, wrapped = (
        bytes.fromhex(part) for part in re.findall(r"h'([0-9A-Fa-f]+)'", text)
    )
    example = encode(Tag(96, [content, {5: iv}, ciphertext, [[protected, {-4: encapsulated}, wrapped]]]))
    theirs = shape(decode(example, tags=(96,)))
    sealed = Sealer(private_key("x25519").public_key, "job", monotonic=lambda: 0.0).seal(b"\xa0", b"text")
    assert shape(decode(to_cose_encrypt(sealed), tags=(96,))) == theirs
    assert decode(protected) == {1: 35, 4: b"alice"}
    assert wrapped[:0] == b""
    assert len(wrapped) == 16 + 16  # AES-128 key and tag; ours is 32 + 16


def shape(value: object) -> object:
    """Return types and keys of a structure, protected headers opened."""
    if isinstance(value, Tag):
        return value.tag, shape(value.value)
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, bytes) and value[:1] in (b"\xa1", b"\xa2"):
        try:
            return "protected", shape(decode(value))
        except MalformedError:
            return "bytes"
    return type(value).__name__


def test_key_ids_are_thumbprints_of_required_parameters_only() -> None:
    classical = private_key("x25519").public_key
    okp = b"\xa3\x01\x01\x20\x04\x21\x58\x20" + classical.raw
    assert classical.key_id == hashlib.sha256(okp).digest()
    hybrid = private_key("xwing").public_key
    akp = b"\xa3\x01\x07\x03\x3a\x00\x01\x11\x70\x20\x59\x04\xc0" + hybrid.raw
    assert hybrid.key_id == hashlib.sha256(akp).digest()


def test_suites_are_as_the_specification_names_them() -> None:
    assert {name: suite.algorithm for name, suite in SUITES.items()} == {"xwing": -70_001, "x25519": 50}
    assert all(suite_named(name).name == name for name in SUITES)
    refuses("UNKNOWN_SUITE", suite_named, "p256")


@pytest.mark.parametrize("suite", SUITES)
def test_seeds_of_other_lengths_are_refused(suite: SuiteName) -> None:
    for size in (0, 31, 33, 64):
        raises(SealingError, "SEALING_FAILED", PrivateKey.from_seed, suite, bytes(size))


@pytest.mark.parametrize("suite", SUITES)
def test_public_keys_of_other_lengths_are_refused(suite: SuiteName) -> None:
    raw = private_key(suite).public_key.raw
    for wrong in (b"", raw[:-1], raw + b"\0"):
        refuses("BAD_PUBLIC_KEY", PublicKey, suite, wrong)
        refuses("OUT_OF_BOUNDS", PublicKey.from_map, {1: suite, 2: wrong})
    refuses("UNKNOWN_SUITE", PublicKey, "p256", raw)


def test_mlkem_keys_with_coefficients_out_of_range_are_refused() -> None:
    """FIPS 203, section 7.2: the modulus check of the encapsulation key."""
    raw = private_key("xwing").public_key.raw
    refuses("BAD_PUBLIC_KEY", PublicKey, "xwing", b"\xff\xff" + raw[2:])


def test_a_key_of_small_order_cannot_be_sealed_to() -> None:
    for raw in (bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")):
        raises(SealingError, "SEALING_FAILED", Sealer, PublicKey("x25519", raw), "job", monotonic=lambda: 0.0)


@given(st.sampled_from(["xwing", "x25519"]), st.binary(min_size=32, max_size=32))
@settings(max_examples=25)
def test_round_trip_of_public_keys(suite: SuiteName, seed: bytes) -> None:
    key = PrivateKey.from_seed(suite, seed).public_key
    again = PublicKey.from_map(decode(encode(key.to_map())))
    assert again == key
    assert again.key_id == key.key_id
    assert PublicKey.from_map(key.to_map()) is again


@given(any_values)
def test_no_other_value_is_a_public_key(value: object) -> None:
    with pytest.raises(MalformedError):
        PublicKey.from_map(value)


def test_a_private_key_does_not_show_itself() -> None:
    seed = bytes(range(32))
    for suite in ("xwing", "x25519"):
        key = PrivateKey.from_seed("xwing" if suite == "xwing" else "x25519", seed)
        assert seed.hex() not in repr(key)
        assert key.public_key.key_id.hex()[:16] in repr(key)
        assert not hasattr(key, "__dict__")


def test_generated_keys_differ() -> None:
    assert PrivateKey.generate().public_key != PrivateKey.generate().public_key
    assert PrivateKey.generate().public_key.suite == "xwing"
