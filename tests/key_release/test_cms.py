"""CMS EnvelopedData: round trips, BER, an independent reader, and everything that must be refused."""

from __future__ import annotations

import base64

import pytest
from asn1crypto import cms as asn1_cms  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.key_release import ber, cms
from ephemeralml.attestation.key_release.cms import make_enveloped, open_enveloped
from ephemeralml.wire.errors import KeyReleaseError, MalformedError

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECRET = bytes(range(32))

# The fixed beginning of AWS's own answers (as in its public examples): BER, indefinite lengths,
# version 2, one recipient of 363 bytes named by a 32-byte subject key identifier.
AWS_BEGINNING = base64.b64decode("MIAGCSqGSIb3DQEHA6CAMIACAQIxggFrMIIBZwIBAoAg")


def test_round_trip() -> None:
    assert open_enveloped(make_enveloped(SECRET, KEY.public_key()), KEY) == SECRET


def test_begins_as_awss_answers_do() -> None:
    assert make_enveloped(SECRET, KEY.public_key()).startswith(AWS_BEGINNING)


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=2048))
def test_round_trip_of_any_plaintext(plaintext: bytes) -> None:
    assert open_enveloped(make_enveloped(plaintext, KEY.public_key()), KEY) == plaintext


def _parts(plaintext: bytes = SECRET) -> tuple[bytes, bytes, bytes]:
    """Return (wrapped content key, IV, ciphertext), made here and not by the module under test."""
    content_key, iv = b"k" * 32, b"i" * 16
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    pad = 16 - len(plaintext) % 16
    encryptor = Cipher(algorithms.AES256(content_key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(plaintext + bytes((pad,)) * pad) + encryptor.finalize()
    return KEY.public_key().encrypt(content_key, oaep), iv, ciphertext


@pytest.mark.parametrize("outer", [ber.der, ber.indefinite])
@pytest.mark.parametrize("piece", [1, 7, 16, 48])
def test_definite_and_indefinite_lengths_in_pieces(outer: object, piece: int) -> None:
    wrapped, iv, ciphertext = _parts()
    pieces = tuple(ciphertext[at : at + piece] for at in range(0, len(ciphertext), piece))
    made = cms.assemble(b"r" * 32, wrapped, iv, pieces, outer=outer)  # type: ignore[arg-type]
    assert open_enveloped(made, KEY) == SECRET


def test_an_independent_reader_agrees() -> None:
    content = asn1_cms.ContentInfo.load(make_enveloped(SECRET, KEY.public_key()), strict=True)
    assert content["content_type"].native == "enveloped_data"
    enveloped = content["content"]
    recipient = enveloped["recipient_infos"][0].chosen
    algorithm = recipient["key_encryption_algorithm"]
    assert algorithm["algorithm"].native == "rsaes_oaep"
    assert algorithm["parameters"]["hash_algorithm"]["algorithm"].native == "sha256"
    assert algorithm["parameters"]["mask_gen_algorithm"]["parameters"]["algorithm"].native == "sha256"
    assert (
        enveloped["encrypted_content_info"]["content_encryption_algorithm"]["algorithm"].native
        == "aes256_cbc"
    )


def test_opens_what_an_independent_writer_made() -> None:
    wrapped, iv, ciphertext = _parts()
    sha256 = {"algorithm": "sha256"}
    made = asn1_cms.ContentInfo(
        {
            "content_type": "enveloped_data",
            "content": {
                "version": "v2",
                "recipient_infos": [
                    asn1_cms.RecipientInfo(
                        name="ktri",
                        value={
                            "version": "v2",
                            "rid": asn1_cms.RecipientIdentifier("subject_key_identifier", b"r" * 32),
                            "key_encryption_algorithm": {
                                "algorithm": "rsaes_oaep",
                                "parameters": {
                                    "hash_algorithm": sha256,
                                    "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": sha256},
                                },
                            },
                            "encrypted_key": wrapped,
                        },
                    )
                ],
                "encrypted_content_info": {
                    "content_type": "data",
                    "content_encryption_algorithm": {"algorithm": "aes256_cbc", "parameters": iv},
                    "encrypted_content": ciphertext,
                },
            },
        }
    ).dump()
    assert open_enveloped(made, KEY) == SECRET


def _code(data: bytes, key: rsa.RSAPrivateKey = KEY) -> str:
    with pytest.raises(KeyReleaseError) as caught:
        open_enveloped(data, key)
    assert caught.value.__cause__ is None
    return caught.value.code


def test_failures_of_the_key_look_alike() -> None:
    good = make_enveloped(SECRET, KEY.public_key())
    wrapped, iv, ciphertext = _parts()
    bad_padding = bytes((ciphertext[0] ^ 1,)) + ciphertext[1:-16] + bytes(16)
    messages = set()
    for data, key in (
        (good, OTHER),
        (cms.assemble(b"r", wrapped[:-1] + b"\0", iv, (ciphertext,)), KEY),
        (cms.assemble(b"r", wrapped[1:], iv, (ciphertext,)), KEY),
        (cms.assemble(b"r", wrapped, iv, (bad_padding,)), KEY),
        (cms.assemble(b"r", wrapped, iv, (ciphertext[:-1],)), KEY),
        (cms.assemble(b"r", wrapped, iv, (b"",)), KEY),
    ):
        with pytest.raises(KeyReleaseError) as caught:
            open_enveloped(data, key)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert messages.pop().startswith("CMS_NOT_OPENED")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (cms.OID_OAEP, bytes.fromhex("2a864886f70d010101")),  # RSAES-PKCS1-v1_5
        (cms.OID_SHA256, bytes.fromhex("608648016503040203")),  # SHA-512
        (cms.OID_AES256_CBC, bytes.fromhex("608648016503040102")),  # AES-128-CBC
        (cms.OID_ENVELOPED_DATA, bytes.fromhex("2a864886f70d010702")),  # SignedData
        (cms.OID_MGF1, cms.OID_PSPECIFIED),
        (cms.OID_DATA, bytes.fromhex("2a864886f70d010705")),
    ],
)
def test_other_algorithms_are_refused(old: bytes, new: bytes) -> None:
    assert _code(make_enveloped(SECRET, KEY.public_key()).replace(old, new)) == "CMS_UNSUPPORTED"


@pytest.mark.parametrize("which", [0, 1])
def test_each_of_the_two_hashes_must_be_sha256(which: int) -> None:
    before, between, after = make_enveloped(SECRET, KEY.public_key()).split(cms.OID_SHA256)
    hashes_ = [cms.OID_SHA256, cms.OID_SHA256]
    hashes_[which] = bytes.fromhex("608648016503040203")
    data = before + hashes_[0] + between + hashes_[1] + after
    assert _code(data) == "CMS_UNSUPPORTED"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x80",
        b"\x30\x80\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x85\x00\x00\x00\x00\x01",
        b"\x30\x80" * 3000,
        b"\x30\x82\x10\x00" + b"\x04\x00" * 2048,
        b"\x00" * 64,
        b"\x1f\x81" * 8,
        b"\x04\x80\x00\x00",
        bytes(cms.MAX_CMS_BYTES + 1),
        make_enveloped(SECRET, KEY.public_key()) + b"\x00",
        make_enveloped(SECRET, KEY.public_key())[:-2],
    ],
)
def test_malformed(data: bytes) -> None:
    assert _code(data) == "CMS_MALFORMED"


def test_every_flipped_byte_is_refused_or_changes_nothing() -> None:
    good = make_enveloped(SECRET, KEY.public_key())
    for at in range(len(good)):
        flipped = good[:at] + bytes((good[at] ^ 0x04,)) + good[at + 1 :]
        try:
            plaintext = open_enveloped(flipped, KEY)
        except KeyReleaseError:
            continue
        # The recipient's name and version numbers carry no key; CBC lets some bits of the text change.
        assert len(plaintext) <= 48


@given(st.binary(max_size=256))
def test_any_bytes_end_in_our_error(data: bytes) -> None:
    with pytest.raises(KeyReleaseError):
        open_enveloped(data, KEY)


@given(st.binary(max_size=128))
def test_ber_reader_raises_only_malformed(data: bytes) -> None:
    try:
        element = ber.read(data, max_bytes=128)
    except MalformedError:
        return
    if not element.tag & ber.CONSTRUCTED and len(element.content) < 128:
        assert ber.read(ber.der(element.tag, element.content), max_bytes=256) == element
