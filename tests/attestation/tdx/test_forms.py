"""Readers of TDX formats: what no careful writer makes is refused."""

from __future__ import annotations

import base64
from importlib import import_module

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from ephemeralml.attestation.nitro import NitroEndorsements
from ephemeralml.attestation.nitro.parse import parse as parse_nitro
from ephemeralml.attestation.tdx.certificates import read_certificate, read_list
from ephemeralml.attestation.tdx.details import TdxDetails
from ephemeralml.attestation.tdx.parse import parse
from ephemeralml.attestation.tdx.pck import read_platform
from ephemeralml.attestation.tdx.pem import MAX_CERTIFICATE_BYTES, read_pem_chain, write_pem_chain
from ephemeralml.attestation.tdx.signed import split_body
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.attestation.verify import Endorsements, verify_evidence
from ephemeralml.wire.errors import Error, MalformedError, VerificationError

from ..nitro import forge as nitro
from .forge import DAY, FMSPC, NOW, Forge, at, attribute, der, integer, key_of, name_of, pck_extension

SIGNED_BYTES = 48 + 584
HEAD = b"-----BEGIN CERTIFICATE-----\n"
TAIL = b"\n-----END CERTIFICATE-----\n"
GOOD = HEAD + base64.b64encode(b"certificate") + TAIL


def lengthened(quote: bytes, *, inner: bool) -> bytes:
    """Return a quote with two bytes more behind its certification data (or inside it), lengths and all."""
    end = SIGNED_BYTES + 4 + int.from_bytes(quote[SIGNED_BYTES : SIGNED_BYTES + 4], "little")
    data = bytearray(quote[:end] + b"\0\0")
    places = [SIGNED_BYTES, SIGNED_BYTES + 4 + 128 + 2] if inner else [SIGNED_BYTES]
    for place in places:
        data[place : place + 4] = (int.from_bytes(data[place : place + 4], "little") + 2).to_bytes(
            4, "little"
        )
    return bytes(data)


@pytest.mark.parametrize("inner", [False, True])
def test_nothing_follows_inside_a_quote(inner: bool) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(lengthened(Forge().quote(), inner=inner))
    assert caught.value.code == "BAD_QUOTE"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\0", b""])
def test_chains_are_read_with_every_ending_in_use(ending: bytes) -> None:
    text = (GOOD + GOOD).rstrip(b"\n") + ending
    assert read_pem_chain(text, length=2) == (b"certificate", b"certificate")
    assert read_pem_chain(text.replace(b"-\n", b"-\r\n"), length=2) == (b"certificate", b"certificate")


def test_chains_come_back_as_they_were_written() -> None:
    chain = (b"a" * 100, b"b" * 1_000, b"c")
    assert read_pem_chain(write_pem_chain(chain).encode(), length=3) == chain


@pytest.mark.parametrize(
    "text",
    [
        b"",
        GOOD,
        GOOD * 3,
        GOOD + b"words\n" + GOOD,
        b" " + GOOD + GOOD,
        GOOD + GOOD + b"\0\0",
        GOOD + GOOD.replace(b"CERTIFICATE", b"CERTIFICATES"),
        GOOD + HEAD + b"====" + TAIL,
        GOOD + HEAD + b"YWJj=" + TAIL,
        GOOD + HEAD + b"YWL=" + TAIL,
        GOOD + HEAD + base64.b64encode(bytes(MAX_CERTIFICATE_BYTES + 1)) + TAIL,
        (GOOD + GOOD).ljust(16_385, b"\n"),
    ],
)
def test_other_texts_are_no_chain_of_two(text: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        read_pem_chain(text, length=2)
    assert caught.value.code == "BAD_CERTIFICATE"


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"certificate", Forge().certificate("root")[:-1]])
def test_bytes_that_are_no_certificate_or_list(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        read_certificate(data)
    assert caught.value.code == "BAD_CERTIFICATE"
    with pytest.raises(MalformedError) as caught:
        read_list(data)
    assert caught.value.code == "BAD_CRL"


@pytest.mark.parametrize(
    ("digest", "critical", "good"),
    [(SHA256(), False, True), (SHA384(), False, False), (SHA256(), True, False)],
)
def test_lists_keep_to_the_profile(digest: HashAlgorithm, critical: bool, good: bool) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of("Intel SGX Root CA"))
        .last_update(at(NOW))
        .next_update(at(NOW + DAY))
        .add_extension(unknown, critical=critical)
    )
    data = builder.sign(key_of("root"), digest).public_bytes(Encoding.DER)  # type: ignore[arg-type]
    if good:
        assert read_list(data).next_update == NOW + DAY
        return
    with pytest.raises(MalformedError) as caught:
        read_list(data)
    assert caught.value.code == "BAD_CRL"


EXTENSIONS = {
    "a pair without value": der(0x30, der(0x30, der(0x06, b"\x2a"))),
    "a pair that is no sequence": der(0x30, der(0x31, b"")),
    "an identifier of another tree": der(0x30, attribute((1,), integer(1)).replace(b"\x2a\x86", b"\x2b\x86")),
    "a TCB that is an integer": pck_extension(without=2, more=attribute((2,), integer(1))),
    "an FMSPC that is an integer": pck_extension(without=4, more=attribute((4,), integer(1))),
    "an SVN in two octets": pck_extension().replace(integer(11), b"\x02\x02\x00\x0b"),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_extensions_of_other_forms_are_refused(name: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_platform(Forge(extension=EXTENSIONS[name]).certificate("pck"))
    assert caught.value.code == "BAD_PCK_EXTENSION"


def test_the_order_of_the_extensions_pairs_means_nothing() -> None:
    swapped = pck_extension(without=4, more=attribute((4,), der(0x04, FMSPC)))
    assert read_platform(Forge(extension=swapped).certificate("pck")).fmspc == FMSPC


TEXT = b'{"id":"x"}'
SIGNATURE = b'"signature":"' + b"00" * 64 + b'"'


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + TEXT + b"}",
        b"{" + SIGNATURE + b',"a":' + TEXT + b"}",
        b'{"a":' + TEXT + b"," + SIGNATURE + b',"b":1}',
        b'{"a":' + TEXT + b',"b":{},' + SIGNATURE + b"}",
        b'{"a":[],' + SIGNATURE + b"}",
        b'{"a":' + TEXT + b"," + SIGNATURE.replace(b"00", b"0g", 1) + b"}",
        b'{"a":' + TEXT + b"," + SIGNATURE.replace(b"00", b"", 1) + b"}",
        b'{"\\u0061":' + TEXT + b"," + SIGNATURE + b"}",
    ],
)
def test_bodies_of_other_forms_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedError):
        split_body(body, "a", ())


@pytest.mark.parametrize("space", [b"", b" ", b"\n\t"])
def test_the_signed_text_is_taken_byte_for_byte(space: bytes) -> None:
    text = b'{ "id" :\n"x"}'
    body = space.join([b"{", b'"a"', b":", text, b",", SIGNATURE, b"}", b""])
    assert split_body(body, "a", ()).text == text


def test_a_second_parser_that_fails_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> object:
        raise RuntimeError("broken")

    forge = Forge()
    monkeypatch.setattr(import_module("dcap_qvl"), "parse_quote", broken)
    with pytest.raises(VerificationError) as caught:
        verify(forge.quote(), forge.endorsements(), NOW)
    assert caught.value.code == "PARSERS_DISAGREE"


def test_details_are_of_quotes_only() -> None:
    made = nitro.make_chain()
    document = nitro.make_document(made)
    now = parse_nitro(document).timestamp_ms // 1000
    found = verify_evidence("nitro", document, Endorsements(nitro=NitroEndorsements(made.roots)), now)
    with pytest.raises(Error) as caught:
        TdxDetails.of(found)
    assert caught.value.code == "WRONG_PLATFORM"
