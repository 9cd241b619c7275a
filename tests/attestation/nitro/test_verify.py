"""Synthetic documents with exactly one thing wrong; each is refused with its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nitro import MAX_DOCUMENT_BYTES, NitroDetails, NitroEndorsements
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.wire.encoding import Tag, encode
from ephemeralml.wire.errors import ConfigurationError, EndorsementsError, Error

from .forge import (
    DAY,
    NOW,
    Chain,
    Link,
    chain_links,
    ed25519_leaf,
    make_chain,
    make_document,
    make_payload,
)

P = 48
ORDER_P384 = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)


@cache
def good() -> Chain:
    return make_chain()


def check(document: bytes, chain: Chain | None = None, now: int = NOW) -> VerifiedEvidence:
    return verify(document, NitroEndorsements((chain or good()).roots), now)


def refused(document: bytes, chain: Chain | None = None, now: int = NOW) -> str:
    with pytest.raises(Error) as caught:
        check(document, chain, now)
    return caught.value.code


def test_a_good_document_verifies() -> None:
    verified = check(make_document(good()))
    assert NitroDetails.of(verified).public_key == b"k" * 32
    assert NitroDetails.of(verified).user_data == b"u" * 32
    assert NitroDetails.of(verified).nonce is None
    assert verified.issued_at == NOW
    assert (verified.not_before, verified.not_after) == (NOW - 3, NOW + 3 * 3600)
    assert verified.measurements is not None
    assert verified.measurements.kind == "nitro-pcr"
    assert set(verified.measurements.values) == {"pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8"}
    assert NitroDetails.of(verified).registers[15] == bytes([16]) * 48
    assert not verified.debug


def test_a_parsed_document_is_verified_from_its_bytes() -> None:
    document = make_document(good())
    parsed = parse(document)
    assert check(document).evidence_hash == verify(parsed, NitroEndorsements(good().roots), NOW).evidence_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": b""},
        {"user_data": b"", "public_key": None},
        {"public_key": b"p" * 1024, "user_data": b"u" * 1024, "nonce": b"n" * 1024},
        {"public_key": ..., "user_data": ..., "nonce": ...},
        {"pcrs": {index: bytes([7]) * 48 for index in range(32)}},
        {"pcrs": {0: b"a" * 32, 1: b"b" * 48, 2: b"c" * 64}},
        {"module_id": "m" * 256},
        {"timestamp": (NOW - 3) * 1000},
    ],
)
def test_the_edges_of_the_bounds_are_accepted(changes: dict[str, object]) -> None:
    check(make_document(good(), make_payload(good(), **changes)))


PCRS: dict[object, object] = {index: bytes([1]) * 48 for index in range(16)}

FIELDS: list[tuple[str, dict[str, object], str]] = [
    ("no module id", {"module_id": ...}, "MISSING_FIELD"),
    ("empty module id", {"module_id": ""}, "OUT_OF_BOUNDS"),
    ("long module id", {"module_id": "m" * 257}, "OUT_OF_BOUNDS"),
    ("module id as bytes", {"module_id": b"m"}, "WRONG_TYPE"),
    ("null module id", {"module_id": None}, "WRONG_TYPE"),
    ("no digest", {"digest": ...}, "MISSING_FIELD"),
    ("another digest", {"digest": "SHA256"}, "BAD_DIGEST"),
    ("digest in lower case", {"digest": "sha384"}, "BAD_DIGEST"),
    ("no timestamp", {"timestamp": ...}, "MISSING_FIELD"),
    ("timestamp zero", {"timestamp": 0}, "OUT_OF_BOUNDS"),
    ("timestamp negative", {"timestamp": -1}, "OUT_OF_BOUNDS"),
    ("timestamp beyond year 9999", {"timestamp": 253_402_300_800_000}, "OUT_OF_BOUNDS"),
    ("timestamp as float", {"timestamp": 1.5}, "WRONG_TYPE"),
    ("timestamp true", {"timestamp": True}, "WRONG_TYPE"),
    ("timestamp in seconds", {"timestamp": NOW}, "TIMESTAMP_OUTSIDE"),
    ("timestamp before the leaf", {"timestamp": (NOW - 4) * 1000}, "TIMESTAMP_OUTSIDE"),
    ("timestamp after the leaf", {"timestamp": (NOW + 3 * 3600 + 1) * 1000}, "TIMESTAMP_OUTSIDE"),
    ("no pcrs", {"pcrs": ...}, "MISSING_FIELD"),
    ("empty pcrs", {"pcrs": {}}, "BAD_PCR"),
    ("pcrs as array", {"pcrs": [b"a" * P] * 3}, "WRONG_TYPE"),
    ("pcr0 missing", {"pcrs": dict.fromkeys(range(1, 16), b"a" * P)}, "BAD_PCR"),
    ("pcr2 missing", {"pcrs": {0: b"a" * P, 1: b"a" * P}}, "BAD_PCR"),
    ("pcr32", {"pcrs": PCRS | {32: b"a" * P}}, "BAD_PCR"),
    ("pcr -1", {"pcrs": PCRS | {-1: b"a" * P}}, "BAD_PCR"),
    ("pcr by text", {"pcrs": {**PCRS, "3": b"a" * P}}, "BAD_PCR"),
    ("pcr of 0 bytes", {"pcrs": PCRS | {3: b""}}, "BAD_PCR"),
    ("pcr of 47 bytes", {"pcrs": PCRS | {3: b"a" * 47}}, "BAD_PCR"),
    ("pcr of 65 bytes", {"pcrs": PCRS | {3: b"a" * 65}}, "BAD_PCR"),
    ("pcr as text", {"pcrs": PCRS | {3: "a" * 48}}, "BAD_PCR"),
    ("no certificate", {"certificate": ...}, "MISSING_FIELD"),
    ("empty certificate", {"certificate": b""}, "OUT_OF_BOUNDS"),
    ("long certificate", {"certificate": b"c" * 1025}, "OUT_OF_BOUNDS"),
    ("certificate that is none", {"certificate": b"c" * 600}, "BAD_CERTIFICATE"),
    ("no cabundle", {"cabundle": ...}, "MISSING_FIELD"),
    ("null cabundle", {"cabundle": None}, "WRONG_TYPE"),
    ("empty cabundle", {"cabundle": []}, "OUT_OF_BOUNDS"),
    ("nine in the cabundle", {"cabundle": [b"c"] * 9}, "OUT_OF_BOUNDS"),
    ("empty one in the cabundle", {"cabundle": [b""]}, "OUT_OF_BOUNDS"),
    ("long one in the cabundle", {"cabundle": [b"c" * 1025]}, "OUT_OF_BOUNDS"),
    ("text in the cabundle", {"cabundle": ["c"]}, "OUT_OF_BOUNDS"),
    ("long public key", {"public_key": b"p" * 1025}, "OUT_OF_BOUNDS"),
    ("long user data", {"user_data": b"u" * 1025}, "OUT_OF_BOUNDS"),
    ("long nonce", {"nonce": b"n" * 1025}, "OUT_OF_BOUNDS"),
    ("public key as text", {"public_key": "p"}, "WRONG_TYPE"),
    ("an unknown field", {"extra": 1}, "UNKNOWN_FIELD"),
    ("a NitroTPM's registers", {"pcrs": ..., "nitrotpm_pcrs": PCRS}, "UNKNOWN_FIELD"),
    ("both kinds of registers", {"nitrotpm_pcrs": PCRS}, "UNKNOWN_FIELD"),
]


@pytest.mark.parametrize(("changes", "code"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_a_field_out_of_bounds_is_refused(changes: dict[str, object], code: str) -> None:
    assert refused(make_document(good(), make_payload(good(), **changes))) == code


def _raw(document: bytes, edit: Callable[[list[object]], object]) -> bytes:
    parsed = parse(document)
    return encode(edit([parsed.protected_bytes, {}, parsed.payload, parsed.signature]))


def _duplicate_key() -> bytes:
    body = encode(make_payload(good()))
    assert body[0] == 0xA9
    return make_document(good(), body=b"\xaa" + body[1:] + encode("digest") + encode("SHA384"))


def _indefinite_payload() -> bytes:
    body = encode(make_payload(good()))
    return make_document(good(), body=b"\xbf" + body[1:] + b"\xff")


def _high_s() -> bytes:
    """The same signature with a zero r, out of range."""
    return _raw(make_document(good()), lambda parts: [*parts[:3], bytes(96)])


ENVELOPES: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "CBOR_TRUNCATED"),
    ("tag 18", lambda: _raw(make_document(good()), lambda parts: Tag(18, parts)), "CBOR_UNEXPECTED_TAG"),
    ("trailing byte", lambda: make_document(good()) + b"\0", "CBOR_TRAILING_BYTES"),
    ("truncated", lambda: make_document(good())[:-1], "CBOR_TRUNCATED"),
    ("three parts", lambda: _raw(make_document(good()), lambda parts: parts[:3]), "COSE_SHAPE"),
    ("five parts", lambda: _raw(make_document(good()), lambda parts: [*parts, b""]), "COSE_SHAPE"),
    ("a map", lambda: encode({}), "COSE_SHAPE"),
    (
        "detached payload",
        lambda: _raw(make_document(good()), lambda p: [p[0], p[1], None, p[3]]),
        "COSE_SHAPE",
    ),
    ("unprotected header", lambda: make_document(good(), unprotected={4: b"kid"}), "COSE_SHAPE"),
    ("ES256", lambda: make_document(good(), protected=encode({1: -7})), "BAD_ALG"),
    ("ES512", lambda: make_document(good(), protected=encode({1: -36})), "BAD_ALG"),
    ("EdDSA", lambda: make_document(good(), protected=encode({1: -8})), "BAD_ALG"),
    ("no algorithm", lambda: make_document(good(), protected=encode({})), "BAD_ALG"),
    ("more headers", lambda: make_document(good(), protected=encode({1: -35, 3: 61})), "BAD_ALG"),
    ("header is empty bytes", lambda: make_document(good(), protected=b""), "CBOR_TRUNCATED"),
    ("short signature", lambda: _raw(make_document(good()), lambda p: [*p[:3], b"s" * 95]), "BAD_SIG_LENGTH"),
    ("DER signature", lambda: _raw(make_document(good()), lambda p: [*p[:3], b"s" * 103]), "BAD_SIG_LENGTH"),
    ("zero signature", _high_s, "SIG_FAILED"),
    (
        "signature beyond the order",
        lambda: _raw(
            make_document(good()), lambda p: [*p[:3], ORDER_P384.to_bytes(48, "big") + bytes(47) + b"\1"]
        ),
        "SIG_FAILED",
    ),
    (
        "another signer",
        lambda: make_document(good(), key=ec.generate_private_key(ec.SECP384R1())),
        "SIG_FAILED",
    ),
    ("payload is no map", lambda: make_document(good(), [1, 2]), "NOT_A_MAP"),
    ("payload key twice", _duplicate_key, "CBOR_DUPLICATE_KEY"),
    (
        "payload trails",
        lambda: make_document(good(), body=encode(make_payload(good())) + b"\0"),
        "CBOR_TRAILING_BYTES",
    ),
    (
        "payload nests",
        lambda: make_document(good(), make_payload(good(), nonce=[[[[[1]]]]])),
        "CBOR_TOO_DEEP",
    ),
    ("too large", lambda: b"\x84" + bytes(MAX_DOCUMENT_BYTES), "CBOR_TOO_LARGE"),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in ENVELOPES], ids=[row[0] for row in ENVELOPES])
def test_a_bad_envelope_is_refused(make: Callable[[], bytes], code: str) -> None:
    assert refused(make()) == code


def test_an_indefinite_payload_is_read_as_hardware_writes_it() -> None:
    assert NitroDetails.of(check(_indefinite_payload())).module_id.startswith("i-")


@dataclass
class Case:
    """A chain with one thing wrong."""

    name: str
    code: str
    edit: Callable[[list[Link]], None]


def _set(position: int, **changes: object) -> Callable[[list[Link]], None]:
    def edit(links: list[Link]) -> None:
        for field, value in changes.items():
            setattr(links[position], field, value)

    return edit


def _critical(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.add_extension(x509.NameConstraints([x509.DNSName("example.org")], None), critical=True)


def _not_critical(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )


CHAINS = [
    Case("root expired", "CERTIFICATE_EXPIRED", _set(0, window=(NOW - DAY, NOW - 1))),
    Case("zone expired", "CERTIFICATE_EXPIRED", _set(2, window=(NOW - DAY, NOW - 1))),
    Case("leaf expired", "CERTIFICATE_EXPIRED", _set(4, window=(NOW - DAY, NOW - 1))),
    Case("region of tomorrow", "CERTIFICATE_NOT_YET_VALID", _set(1, window=(NOW + 1, NOW + DAY))),
    Case("leaf of tomorrow", "CERTIFICATE_NOT_YET_VALID", _set(4, window=(NOW + 1, NOW + DAY))),
    Case("root path length", "PATH_LENGTH", _set(0, path_length=2)),
    Case("region path length", "PATH_LENGTH", _set(1, path_length=1)),
    Case("zone path length", "PATH_LENGTH", _set(2, path_length=0)),
    Case("zone is no CA", "NOT_A_CA", _set(2, authority=False, path_length=None, signs_certificates=True)),
    Case("instance may not certify", "KEY_USAGE", _set(3, signs_certificates=False)),
    Case("instance without key usage", "KEY_USAGE", _set(3, key_usage=False)),
    Case("leaf is a CA", "KEY_USAGE", _set(4, authority=True, signs_data=True)),
    Case("leaf may not sign", "KEY_USAGE", _set(4, signs_data=False)),
    Case("leaf without key usage", "KEY_USAGE", _set(4, key_usage=False)),
    Case("another issuer's name", "CHAIN_BROKEN", _set(3, issuer_name="somebody")),
    Case("P-256 zone", "CERTIFICATE_PROFILE", _set(2, curve=ec.SECP256R1())),
    Case("P-521 leaf", "CERTIFICATE_PROFILE", _set(4, curve=ec.SECP521R1())),
    Case("SHA-256 in the chain", "CERTIFICATE_PROFILE", _set(3, digest=hashes.SHA256())),
    Case("critical name constraints", "CERTIFICATE_PROFILE", _set(1, edit=_critical)),
]


@pytest.mark.parametrize("case", CHAINS, ids=lambda case: case.name)
def test_a_bad_chain_is_refused(case: Case) -> None:
    links = chain_links()
    case.edit(links)
    chain = make_chain(links)
    key = chain.key if chain.key.curve.name == "secp384r1" else good().key
    assert refused(make_document(chain, key=key), chain) == case.code


def test_a_noncritical_extension_is_let_through() -> None:
    links = chain_links()
    links[1].edit = _not_critical
    chain = make_chain(links)
    check(make_document(chain), chain)


def test_a_leaf_under_the_root_alone_is_a_chain() -> None:
    links = chain_links()
    chain = make_chain([links[0], links[4]])
    check(make_document(chain), chain)


def test_a_wrong_root_is_refused() -> None:
    other = make_chain()
    assert refused(make_document(good()), other) == "UNKNOWN_ROOT"


def test_the_root_must_stand_first() -> None:
    payload = make_payload(good(), cabundle=good().certificates[-2::-1])
    assert refused(make_document(good(), payload)) == "UNKNOWN_ROOT"


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [0, 1, 3], [0, 1, 1, 2, 3], [0]])
def test_a_chain_out_of_order_is_refused(order: list[int]) -> None:
    payload = make_payload(good(), cabundle=[good().certificates[index] for index in order])
    assert refused(make_document(good(), payload)) in {"CHAIN_BROKEN", "PATH_LENGTH"}


def test_a_pinned_root_does_not_lend_its_name_to_a_foreign_chain() -> None:
    other = make_chain()
    bundle = [good().certificates[0], *other.certificates[1:4]]
    payload = make_payload(other, cabundle=bundle)
    assert refused(make_document(other, payload)) == "CHAIN_BROKEN"


def test_an_ed25519_leaf_is_refused() -> None:
    payload = make_payload(good(), certificate=ed25519_leaf(good()))
    assert refused(make_document(good(), payload)) == "CERTIFICATE_PROFILE"


def test_no_roots_means_could_not_judge() -> None:
    with pytest.raises(EndorsementsError, match="NO_ROOTS"):
        verify(make_document(good()), NitroEndorsements(()), NOW)


@pytest.mark.parametrize("root", [b"", b"f" * 31, "f" * 32])
def test_a_root_is_a_sha256_fingerprint(root: bytes) -> None:
    with pytest.raises(ConfigurationError, match="BAD_FINGERPRINT"):
        NitroEndorsements((root,))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_zero_register_means_debug(index: int) -> None:
    pcrs = {**PCRS, index: bytes(48)}
    assert check(make_document(good(), make_payload(good(), pcrs=pcrs))).debug


def test_verified_evidence_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        VerifiedEvidence(  # type: ignore[call-arg]
            platform="nitro",
            evidence_hash=bytes(32),
            measurements=check(make_document(good())).measurements,
            issued_at=0,
            not_before=0,
            not_after=0,
            root_fingerprint=bytes(32),
            debug=False,
            simulated=False,
            details=check(make_document(good())).details,
        )


@cache
def _document() -> bytes:
    return make_document(good())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_refused_by_one_of_our_errors(data: st.DataObject) -> None:
    mutated = bytearray(_document())
    position = data.draw(st.integers(0, len(mutated) - 1))
    mutated[position] ^= data.draw(st.integers(1, 255))
    refused(bytes(mutated))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_certificate_that_the_leaf_signed_is_refused(data: st.DataObject) -> None:
    """Bytes that reach the X.509 parser through a valid signature of nobody."""
    certificates = [bytearray(der) for der in good().certificates]
    which = data.draw(st.integers(1, 4))
    position = data.draw(st.integers(0, len(certificates[which]) - 1))
    certificates[which][position] ^= data.draw(st.integers(1, 255))
    *bundle, leaf = (bytes(der) for der in certificates)
    refused(make_document(good(), make_payload(good(), certificate=leaf, cabundle=bundle)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused_by_one_of_our_errors(noise: bytes) -> None:
    refused(noise)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_serial_number_that_is_not_positive_is_refused() -> None:
    leaf = good().certificates[-1]
    number = x509.load_der_x509_certificate(leaf).serial_number
    size = (number.bit_length() + 8) // 8
    encoded = b"\x02" + bytes([size]) + number.to_bytes(size, "big")
    negative = leaf.replace(encoded, encoded[:2] + b"\xff" + encoded[3:], 1)
    assert negative != leaf
    assert refused(make_document(good(), make_payload(good(), certificate=negative))) == "BAD_CERTIFICATE"
