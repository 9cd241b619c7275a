"""Takes genuine documents apart and puts them together with one thing wrong; also signs as a stranger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.wire.encoding import Tag, decode_tolerant, encode

from .forge import Chain, chain_links, make_chain, make_document

ORDER_P384 = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
Payload = dict[object, object]


@dataclass(frozen=True)
class Parts:
    """A document in four parts."""

    protected: bytes
    unprotected: object
    payload: bytes
    signature: bytes

    @classmethod
    def of(cls, document: bytes) -> Parts:
        """Take a document apart."""
        parsed = parse(document)
        return cls(parsed.protected_bytes, {}, parsed.payload, parsed.signature)

    def whole(self) -> list[object]:
        """Return the array that a document is."""
        return [self.protected, self.unprotected, self.payload, self.signature]

    def document(self) -> bytes:
        """Return the document."""
        return encode(self.whole())

    def fields(self) -> Payload:
        """Return the payload's fields."""
        fields = decode_tolerant(self.payload)
        assert isinstance(fields, dict)
        return fields

    def with_fields(self, **changes: object) -> bytes:
        """Return the document with other fields (``...`` removes one) under the same signature."""
        fields = self.fields() | changes
        kept = {name: value for name, value in fields.items() if value is not ...}
        return replace(self, payload=encode(kept)).document()


def flip(value: object, position: int) -> bytes:
    """Return bytes with one bit changed."""
    assert isinstance(value, bytes)
    changed = bytearray(value)
    changed[position] ^= 1
    return bytes(changed)


@cache
def stranger() -> Chain:
    """A whole chain of somebody else, valid for a century."""
    links = [replace(link, window=(1_000_000_000, 4_000_000_000)) for link in chain_links()]
    return make_chain(links)


def _certificates(parts: Parts) -> list[bytes]:
    bundle = parts.fields()["cabundle"]
    assert isinstance(bundle, list)
    return bundle


def _leaf(parts: Parts) -> bytes:
    leaf = parts.fields()["certificate"]
    assert isinstance(leaf, bytes)
    return leaf


def _look_alike(parts: Parts) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """Return a leaf with the genuine one's names and times, issued by nobody that counts."""
    genuine = x509.load_der_x509_certificate(_leaf(parts))
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(genuine.subject)
        .issuer_name(genuine.issuer)
        .public_key(key.public_key())
        .serial_number(genuine.serial_number)
        .not_valid_before(genuine.not_valid_before_utc)
        .not_valid_after(genuine.not_valid_after_utc)
    )
    for extension in genuine.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(stranger().key, hashes.SHA384())
    return made.public_bytes(serialization.Encoding.DER), key


def _resigned(parts: Parts, key: ec.EllipticCurvePrivateKey, **changes: object) -> bytes:
    return make_document(stranger(), parts.fields() | changes, key=key)


def _by_a_look_alike(parts: Parts) -> bytes:
    leaf, key = _look_alike(parts)
    return _resigned(parts, key, certificate=leaf)


def _by_a_stranger(parts: Parts, *, root: bytes | None = None) -> bytes:
    chain = stranger()
    bundle = [root or chain.certificates[0], *chain.certificates[1:-1]]
    return _resigned(parts, chain.key, cabundle=bundle, certificate=chain.certificates[-1])


def _below_the_genuine_leaf(parts: Parts) -> bytes:
    """A leaf that signs below itself: the bundle is longer than its CAs allow."""
    chain = stranger()
    return _resigned(
        parts, chain.key, cabundle=[*_certificates(parts), _leaf(parts)], certificate=chain.certificates[-1]
    )


def _bundle(parts: Parts, *order: int) -> bytes:
    certificates = _certificates(parts)
    return parts.with_fields(cabundle=[certificates[index] for index in order])


def _flip_in_bundle(parts: Parts, index: int, position: int) -> bytes:
    certificates = list(_certificates(parts))
    certificates[index] = flip(certificates[index], position)
    return parts.with_fields(cabundle=certificates)


def _flip_pcr(parts: Parts, index: int) -> bytes:
    pcrs = parts.fields()["pcrs"]
    assert isinstance(pcrs, dict)
    return parts.with_fields(pcrs=pcrs | {index: flip(pcrs[index], index)})


def _swap_pcrs(parts: Parts) -> bytes:
    pcrs = parts.fields()["pcrs"]
    assert isinstance(pcrs, dict)
    return parts.with_fields(pcrs=pcrs | {0: b"0" * 48, 1: b"1" * 48})


def _more_pcrs(parts: Parts) -> bytes:
    pcrs = parts.fields()["pcrs"]
    assert isinstance(pcrs, dict)
    return parts.with_fields(pcrs=pcrs | {31: b"z" * 48})


def _timestamp(parts: Parts, by_ms: int) -> bytes:
    timestamp = parts.fields()["timestamp"]
    assert isinstance(timestamp, int)
    return parts.with_fields(timestamp=timestamp + by_ms)


def _signature(parts: Parts, r: int | None = None, s: int | None = None) -> bytes:
    old_r, old_s = parts.signature[:48], parts.signature[48:]
    new_r = old_r if r is None else r.to_bytes(48, "big")
    new_s = old_s if s is None else s.to_bytes(48, "big")
    return replace(parts, signature=new_r + new_s).document()


Operation = Callable[[Parts], bytes]

OPERATIONS: dict[str, tuple[Operation, str]] = {
    "module id": (lambda p: p.with_fields(module_id="i-0-enc0"), "SIG_FAILED"),
    "a millisecond later": (lambda p: _timestamp(p, 1), "SIG_FAILED"),
    "a day later": (lambda p: _timestamp(p, 86_400_000), "SIG_FAILED"),
    "PCR0": (lambda p: _flip_pcr(p, 0), "SIG_FAILED"),
    "PCR8": (lambda p: _flip_pcr(p, 8), "SIG_FAILED"),
    "PCR0 and PCR1": (_swap_pcrs, "SIG_FAILED"),
    "one PCR more": (_more_pcrs, "SIG_FAILED"),
    "public key": (lambda p: p.with_fields(public_key=b"attacker" * 4), "SIG_FAILED"),
    "user data": (lambda p: p.with_fields(user_data=b"attacker" * 4), "SIG_FAILED"),
    "nonce": (lambda p: p.with_fields(nonce=b"replayed"), "SIG_FAILED"),
    "no optional fields": (lambda p: p.with_fields(public_key=..., user_data=..., nonce=...), "SIG_FAILED"),
    "digest": (lambda p: p.with_fields(digest="SHA256"), "BAD_DIGEST"),
    "no leaf": (lambda p: p.with_fields(certificate=...), "MISSING_FIELD"),
    "no bundle": (lambda p: p.with_fields(cabundle=...), "MISSING_FIELD"),
    "empty bundle": (lambda p: p.with_fields(cabundle=[]), "OUT_OF_BOUNDS"),
    "a field more": (lambda p: p.with_fields(debug=False), "UNKNOWN_FIELD"),
    "bundle reversed": (lambda p: _bundle(p, 3, 2, 1, 0), "UNKNOWN_ROOT"),
    "bundle without root": (lambda p: _bundle(p, 1, 2, 3), "UNKNOWN_ROOT"),
    "bundle without region": (lambda p: _bundle(p, 0, 2, 3), "CHAIN_BROKEN"),
    "bundle without instance": (lambda p: _bundle(p, 0, 1, 2), "CHAIN_BROKEN"),
    "root alone": (lambda p: _bundle(p, 0), "CHAIN_BROKEN"),
    # The root did sign itself; the document was not made so.
    "root twice": (lambda p: _bundle(p, 0, 0, 1, 2, 3), "SIG_FAILED"),
    "zone twice": (lambda p: _bundle(p, 0, 1, 2, 2, 3), "PATH_LENGTH"),
    "zone and instance swapped": (lambda p: _bundle(p, 0, 1, 3, 2), "PATH_LENGTH"),
    "instance as leaf": (lambda p: p.with_fields(certificate=_certificates(p)[3]), "KEY_USAGE"),
    "root bit": (lambda p: _flip_in_bundle(p, 0, 40), "UNKNOWN_ROOT"),
    "region signature bit": (lambda p: _flip_in_bundle(p, 1, -1), "CHAIN_BROKEN"),
    "zone signature bit": (lambda p: _flip_in_bundle(p, 2, -1), "CHAIN_BROKEN"),
    "instance signature bit": (lambda p: _flip_in_bundle(p, 3, -1), "CHAIN_BROKEN"),
    "leaf signature bit": (lambda p: p.with_fields(certificate=flip(_leaf(p), -1)), "CHAIN_BROKEN"),
    "leaf cut": (lambda p: p.with_fields(certificate=_leaf(p)[:-1]), "BAD_CERTIFICATE"),
    "leaf with a byte more": (lambda p: p.with_fields(certificate=_leaf(p) + b"\0"), "BAD_CERTIFICATE"),
    "signature bit": (lambda p: replace(p, signature=flip(p.signature, -1)).document(), "SIG_FAILED"),
    "r zero": (lambda p: _signature(p, r=0), "SIG_FAILED"),
    "s zero": (lambda p: _signature(p, s=0), "SIG_FAILED"),
    "r of the order": (lambda p: _signature(p, r=ORDER_P384), "SIG_FAILED"),
    "s beyond the order": (lambda p: _signature(p, s=ORDER_P384 + 1), "SIG_FAILED"),
    "r and s swapped": (
        lambda p: replace(p, signature=p.signature[48:] + p.signature[:48]).document(),
        "SIG_FAILED",
    ),
    "signature cut": (lambda p: replace(p, signature=p.signature[:-1]).document(), "BAD_SIG_LENGTH"),
    "signature of a stranger": (lambda p: _resigned(p, stranger().key), "SIG_FAILED"),
    "a look-alike leaf": (_by_a_look_alike, "CHAIN_BROKEN"),
    "a stranger's chain": (_by_a_stranger, "UNKNOWN_ROOT"),
    "a stranger's chain below the root": (
        lambda p: _by_a_stranger(p, root=_certificates(p)[0]),
        "CHAIN_BROKEN",
    ),
    "a leaf below the leaf": (_below_the_genuine_leaf, "PATH_LENGTH"),
    "algorithm ES256": (lambda p: replace(p, protected=encode({1: -7})).document(), "BAD_ALG"),
    "algorithm twice": (lambda p: replace(p, unprotected={1: -35}).document(), "COSE_SHAPE"),
    "a key id": (lambda p: replace(p, unprotected={4: b"k"}).document(), "COSE_SHAPE"),
    "tagged": (lambda p: encode(Tag(18, p.whole())), "CBOR_UNEXPECTED_TAG"),
    "tagged as CWT": (lambda p: encode(Tag(61, Tag(18, p.whole()))), "CBOR_UNEXPECTED_TAG"),
    "wrapped in an array": (lambda p: encode([p.whole()]), "COSE_SHAPE"),
    "payload detached": (lambda p: encode([p.protected, {}, None, p.signature]), "COSE_SHAPE"),
    "payload cut": (lambda p: replace(p, payload=p.payload[:-1]).document(), "CBOR_TRUNCATED"),
    "payload with a byte more": (
        lambda p: replace(p, payload=p.payload + b"\0").document(),
        "CBOR_TRAILING_BYTES",
    ),
    "cut in the middle": (lambda p: p.document()[: len(p.document()) // 2], "CBOR_TRUNCATED"),
    "last byte missing": (lambda p: p.document()[:-1], "CBOR_TRUNCATED"),
    "a byte more": (lambda p: p.document() + b"\0", "CBOR_TRAILING_BYTES"),
    "twice": (lambda p: p.document() * 2, "CBOR_TRAILING_BYTES"),
}

SWAPS = ("signature", "payload", "cabundle", "certificate", "pcrs", "public_key")


def swap(mine: Parts, theirs: Parts, what: str) -> bytes:
    """Return my document with one part of theirs."""
    if what == "signature":
        return replace(mine, signature=theirs.signature).document()
    if what == "payload":
        return replace(mine, payload=theirs.payload).document()
    return mine.with_fields(**{what: theirs.fields().get(what)})
