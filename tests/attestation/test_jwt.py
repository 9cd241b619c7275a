"""Strict tokens and JSON, apart from any platform."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.attestation.jwt import check_signature, read_base64url, read_jwt
from ephemeralml.attestation.strict_json import read_json, read_json_object
from ephemeralml.wire.errors import Error

P384 = ec.generate_private_key(ec.SECP384R1())
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
CLAIMS = {"iss": "somebody", "list": [1, {"a": None}]}


def made(key: Any, algorithm: str) -> bytes:
    return pyjwt.encode(CLAIMS, key, algorithm=algorithm).encode()


def test_tokens_of_another_library_verify() -> None:
    for token, key, algorithm in ((made(RSA, "RS256"), RSA, "RS256"), (made(P384, "ES384"), P384, "ES384")):
        read = read_jwt(token)
        assert read.claims == CLAIMS
        check_signature(read, key.public_key(), "RS256" if algorithm == "RS256" else "ES384")


@pytest.mark.parametrize(
    ("token", "key", "algorithm", "code"),
    [
        (made(RSA, "RS256"), P384, "ES384", "BAD_ALG"),
        (made(P384, "ES384"), P384, "RS256", "BAD_ALG"),
        (made(RSA, "PS256"), RSA, "RS256", "BAD_ALG"),
        (made(b"k" * 64, "HS256"), RSA, "RS256", "BAD_ALG"),
        (made(P256, "ES256"), P256, "ES384", "BAD_ALG"),
        (made(RSA, "RS256"), P384, "RS256", "BAD_KEY"),
        (made(P384, "ES384"), P256, "ES384", "BAD_KEY"),
        (
            made(RSA, "RS256"),
            rsa.generate_private_key(public_exponent=65_537, key_size=1_024),  # noqa: S505
            "RS256",
            "BAD_KEY",
        ),
        (made(P384, "ES384"), RSA, "ES384", "BAD_KEY"),
        (made(P384, "ES384"), ed25519.Ed25519PrivateKey.generate(), "ES384", "BAD_KEY"),
        (made(P384, "ES384"), ec.generate_private_key(ec.SECP384R1()), "ES384", "SIG_FAILED"),
        (made(P384, "ES384")[:-4], P384, "ES384", "SIG_FAILED"),
        (made(P384, "ES384") + b"AAAA", P384, "ES384", "SIG_FAILED"),
    ],
)
def test_one_algorithm_and_its_keys_only(token: bytes, key: Any, algorithm: Any, code: str) -> None:
    with pytest.raises(Error) as caught:
        check_signature(read_jwt(token), key.public_key(), algorithm)
    assert caught.value.code == code


def test_a_signature_in_der_is_not_one() -> None:
    head = made(P384, "ES384").rsplit(b".", 1)[0]
    from cryptography.hazmat.primitives.hashes import SHA384

    der = base64.urlsafe_b64encode(P384.sign(head, ec.ECDSA(SHA384()))).rstrip(b"=")
    with pytest.raises(Error, match="SIG_FAILED"):
        check_signature(read_jwt(head + b"." + der), P384.public_key(), "ES384")


def test_a_token_over_the_bound_is_not_read() -> None:
    with pytest.raises(Error, match="TOO_LARGE"):
        read_jwt(made(RSA, "RS256"), max_bytes=100)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text("abc", max_size=3), below, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_json_says_is_read(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read_json(text, max_bytes=1 << 20, max_depth=20) == value


@given(st.binary(max_size=60))
def test_nothing_but_our_errors_leaves_the_readers(data: bytes) -> None:
    readers: list[Callable[[bytes], object]] = [partial(read_json, max_bytes=50), read_jwt, read_base64url]
    for read in readers:
        with suppress(Error):
            read(data)


@pytest.mark.parametrize("depth", range(5))
def test_depth_is_counted_in_brackets(depth: int) -> None:
    text = b"[" * depth + b"]" * depth if depth else b"1"
    assert read_json(text, max_bytes=100, max_depth=depth) is not None
    if depth:
        with pytest.raises(Error, match="TOO_DEEP"):
            read_json(text, max_bytes=100, max_depth=depth - 1)


@given(st.binary(max_size=40))
def test_each_octet_string_has_one_spelling(data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).rstrip(b"=")
    assert read_base64url(text) == data
    for other in (text + b"=", text + b"\n", b" " + text):
        with pytest.raises(Error, match="BAD_BASE64"):
            read_base64url(other)


def test_an_object_is_asked_for_by_name() -> None:
    assert read_json_object(b'{"a":1}', max_bytes=10) == {"a": 1}
    with pytest.raises(Error, match="BAD_JSON"):
        read_json_object(b"[1]", max_bytes=10)
