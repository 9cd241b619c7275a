"""Makes GPU evidence with any one thing wrong, under roots of the tests' own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ephemeralml.attestation.nvidia import NvidiaEndorsements
from ephemeralml.attestation.nvidia.parse import Architecture
from ephemeralml.wire.encoding import encode, sha256

NOW = 1_700_000_000
DAY = 86_400
NONCE = sha256(b"the CPU's evidence")
FWID = sha256(b"firmware") + b"f" * 16
DRIVER, VBIOS = "550.90.07", "96.00.9F.00.01"
DRIVER_RIM = f"NV_GPU_DRIVER_GH100_{DRIVER}"
VBIOS_RIM = "NV_GPU_VBIOS_1010_0200_882_96009F0001"
#: Which measurements the made manifests name; the last one is the video decoder's.
DRIVER_INDICES, VBIOS_INDICES = (9, 11, 20, 35), (0, 1, 2, 5)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Party:
    """Someone with a certificate and its key."""

    name: str
    certificate: bytes
    key: Key


@dataclass(frozen=True)
class Cert:
    """What a certificate says; the defaults keep to the profile."""

    name: str
    ca: bool = True
    path_length: int | None = None
    signs_certificates: bool | None = None
    signs_data: bool | None = None
    window: tuple[int, int] = (NOW - DAY, NOW + 400 * DAY)
    extensions: tuple[x509.ExtensionType, ...] = ()
    critical: bool = False
    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    rsa: bool = False
    digest: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)
    issuer_name: str | None = None


def name_of(text: str) -> x509.Name:
    """Return a name of one attribute."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def issue(says: Cert, issuer: Party | None = None, key: Key | None = None) -> Party:
    """Issue a certificate; without an issuer it signs itself."""
    own = key or (_rsa_key() if says.rsa else ec.generate_private_key(says.curve))
    signer, above = (own, says.name) if issuer is None else (issuer.key, issuer.name)
    signs_certificates = says.ca if says.signs_certificates is None else says.signs_certificates
    signs_data = not says.ca if says.signs_data is None else says.signs_data
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(says.name))
        .issuer_name(name_of(says.issuer_name or above))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(says.window[0], UTC))
        .not_valid_after(datetime.fromtimestamp(says.window[1], UTC))
    )
    if says.ca:
        builder = builder.add_extension(x509.BasicConstraints(True, says.path_length), critical=True)
    builder = builder.add_extension(_usage(signs_data, signs_certificates), critical=True)
    for extension in says.extensions:
        builder = builder.add_extension(extension, critical=says.critical)
    digest = hashes.SHA256() if isinstance(signer, rsa.RSAPrivateKey) else says.digest
    signed = builder.sign(signer, digest)
    return Party(says.name, signed.public_bytes(serialization.Encoding.DER), own)


def _usage(signs_data: bool, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs_data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


# ---------------------------------------------------------------- devices


def der(tag: int, *parts: bytes) -> bytes:
    """Return one DER element."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    octets = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + body


SHA384_OID = bytes.fromhex("0609608648016503040202")


def fwid_der(digest: bytes = FWID) -> bytes:
    """Return a firmware's identity."""
    return der(0x30, SHA384_OID, der(0x04, digest))


def composite(*fwids: bytes) -> x509.UnrecognizedExtension:
    """Return the extension as Hopper writes it."""
    spki = der(0x30, b"\x05\x00")
    value = der(0x30, b"\x02\x01\x01", spki, *(fwids or (fwid_der(),)))
    return x509.UnrecognizedExtension(ObjectIdentifier("2.23.133.5.4.1"), value)


def tcb_info(*fwids: bytes, fields: bytes = b"") -> x509.UnrecognizedExtension:
    """Return the extension as Blackwell writes it, with a second firmware that is not loaded."""
    listed = fwids or (fwid_der(), fwid_der(bytes(48)))
    value = der(
        0x30, fields or der(0x80, b"NVIDIA") + der(0x83, b"\x01"), der(0xA6, *listed), der(0x87, b"\0\0")
    )
    return x509.UnrecognizedExtension(ObjectIdentifier("2.23.133.5.4.1.1"), value)


def device_name(text: str = "NVIDIA:GH100:48B02D92494BADF4") -> x509.SubjectAlternativeName:
    """Return the name of a device."""
    value = der(0x0C, text.encode())
    return x509.SubjectAlternativeName([x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.412.274.1"), value)])


def device_certs() -> list[Cert]:
    """Root, identity, provisioner, boot ROM and leaf, as NVIDIA has them."""
    return [
        Cert("root"),
        Cert("identity"),
        Cert("provisioner"),
        Cert("boot rom"),
        Cert("leaf", ca=False, extensions=(device_name(), composite())),
    ]


def make_chain(certs: Sequence[Cert]) -> tuple[Party, ...]:
    """Issue a chain, root first."""
    parties: list[Party] = []
    for says in certs:
        parties.append(issue(says, parties[-1] if parties else None))
    return tuple(parties)


@cache
def device() -> tuple[Party, ...]:
    """The chain of a good device, root first."""
    return make_chain(device_certs())


@cache
def other_device() -> tuple[Party, ...]:
    """Another good device under the same provisioner."""
    above = device()[:3]
    boot = issue(Cert("boot rom 2"), above[-1])
    name = device_name("NVIDIA:GH100:48B02D92494BADF5")
    return (*above, boot, issue(Cert("leaf 2", ca=False, extensions=(name, composite())), boot))


@cache
def blackwell() -> tuple[Party, ...]:
    """A Blackwell GPU's chain, root first."""
    name = device_name("NVIDIA:GB100:48B02DD4C0CB1539")
    above = device()[:4]
    return (*above, issue(Cert("leaf 3", ca=False, extensions=(name, tcb_info())), above[-1]))


# ---------------------------------------------------------------- reports


def opaque_fields() -> dict[int, bytes]:
    """What a good Hopper GPU says of itself."""
    return {
        6: bytes.fromhex("009f009601000000"),
        14: b"\xb1\x03\0\0",
        15: b"882" + bytes(6),
        17: b"1010\0",
        18: b"0200\0",
        3: DRIVER.encode() + b"\0",
        11: b"\x55",
        20: FWID,
        21: b"\x55",
        34: b"\1\0",
        36: b"\0\0",
        77: b"unknown, and harmless",
    }


def opaque(fields: Mapping[int, bytes] | None = None, /, **changes: bytes | None) -> bytes:
    """Return opaque data; ``f6=None`` leaves a field out."""
    values: dict[int, bytes | None] = dict(opaque_fields() if fields is None else fields)
    values |= {int(name[1:]): value for name, value in changes.items()}
    return b"".join(
        struct.pack("<HH", number, len(value)) + value
        for number, value in values.items()
        if value is not None
    )


def versioned_opaque(**changes: bytes | None) -> bytes:
    """Return the same with the header and value types of newer drivers."""
    values: dict[int, bytes | None] = dict(opaque_fields())
    values |= {int(name[1:]): value for name, value in changes.items()}
    return b"NVDAOD\0\0\2\0\0\0" + b"".join(
        struct.pack("<HHH", number, 1, len(value)) + value
        for number, value in values.items()
        if value is not None
    )


def measured(index: int) -> bytes:
    """Return what a good device measures at an index, counted from 0."""
    return sha256(b"measurement %d" % index) + bytes((index % 256,)) * 16


def block(index: int, digest: bytes | None = None, *, kind: int = 1, spec: int = 1, size: int = 51) -> bytes:
    """Return a measurement block; the index is counted from 1."""
    value = measured(index - 1) if digest is None else digest
    return struct.pack("<BBHBH", index, spec, size, kind, len(value)) + value


@dataclass(frozen=True)
class ReportParts:
    """The parts of a report; every one can be replaced, and is then signed as it is."""

    request: bytes = b"\x11\xe0\x01\xff"
    nonce: bytes = NONCE
    slot: int = 0
    head: bytes = b"\x11\x60\0\0"
    blocks: bytes = b"".join(block(index) for index in range(1, 65))
    count: int = 64
    record_length: int | None = None
    opaque: bytes = field(default_factory=opaque)
    opaque_length: int | None = None
    tail: bytes = b""

    def signed(self) -> bytes:
        """Return request and response without the signature."""
        length = len(self.blocks) if self.record_length is None else self.record_length
        size = len(self.opaque) if self.opaque_length is None else self.opaque_length
        return (
            self.request
            + self.nonce
            + bytes((self.slot,))
            + self.head
            + bytes((self.count,))
            + length.to_bytes(3, "little")
            + self.blocks
            + b"r" * 32
            + size.to_bytes(2, "little")
            + self.opaque
            + self.tail
        )


def make_report(parts: ReportParts | None = None, key: Key | None = None) -> bytes:
    """Sign a report."""
    signed = (parts or ReportParts()).signed()
    signer = key or device()[-1].key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(signer.sign(signed, ec.ECDSA(hashes.SHA384())))
    return signed + r.to_bytes(48, "big") + s.to_bytes(48, "big")


def leaf_first(chain: Sequence[Party]) -> list[bytes]:
    """Return a chain's certificates as the driver gives them."""
    return [party.certificate for party in reversed(chain)]


def make_evidence(
    *devices: tuple[bytes, Sequence[bytes]],
    architecture: Architecture = "HOPPER",
    kind: str = "gpu",
    nonce: bytes = NONCE,
) -> bytes:
    """Return evidence in the form that travels; one good GPU where none is given."""
    given = devices or ((make_report(), leaf_first(device())),)
    return encode({1: 1, 2: kind, 3: architecture, 4: nonce, 5: [[one, list(chain)] for one, chain in given]})


# ---------------------------------------------------------------- manifests


@cache
def rim_signers() -> tuple[Party, ...]:
    """Root, two intermediates and signer of manifests, root first."""
    return make_chain(
        [
            Cert("rim root"),
            Cert("rim l2"),
            Cert("rim l3", path_length=0),
            Cert("rim signer", ca=False, window=(NOW - DAY, NOW + 30 * DAY)),
        ]
    )


def resource(at: int, /, *digests: bytes, active: str = "True", **changes: str) -> str:
    """Return one measurement of a manifest."""
    values = {
        "type": "Measurement",
        "index": str(at),
        "active": active,
        "alternatives": str(len(digests)),
        "name": f"Measurement_{at}",
        "size": "48",
    }
    values |= changes
    attributes = "".join(f' {name}="{value}"' for name, value in values.items() if value)
    hashed = "".join(f' ns2:Hash{place}="{digest.hex()}"' for place, digest in enumerate(digests))
    return f"<ns0:Resource{attributes}{hashed}/>"


def manifest_text(
    version: str = DRIVER,
    indices: Sequence[int] = DRIVER_INDICES,
    *,
    product: str = "GH100",
    resources: str | None = None,
    extra: str = "",
) -> str:
    """Return an unsigned manifest."""
    listed = resources
    if listed is None:
        inactive = [resource(index, bytes(48), active="False") for index in (60, 61)]
        active = [resource(index, b"x" * 48, measured(index)) for index in indices]
        listed = "\n".join([*active, *inactive])
    return (
        '<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"'
        ' xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"'
        f' xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" name="{product}" version="1.0">\n'
        f'<ns0:Meta colloquialVersion="{version}" product="{product}" edition="GPU"/>\n'
        f"<ns0:Payload>\n{listed}\n</ns0:Payload>{extra}</SoftwareIdentity>"
    )


def make_manifest(
    text: str | None = None,
    signers: Sequence[Party] | None = None,
    *,
    edit: Callable[[bytes], bytes] = bytes,
    listed: Sequence[bytes] | None = None,
) -> bytes:
    """Sign a manifest; ``edit`` changes it then, ``listed`` are the certificates beside the signature."""
    from lxml.etree import fromstring, tostring  # type: ignore[import-untyped]
    from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
    from signxml.signer import XMLSigner

    chain = rim_signers() if signers is None else signers
    signer = XMLSigner(
        signature_algorithm=SignatureMethod.ECDSA_SHA384,
        digest_algorithm=DigestAlgorithm.SHA384,
        c14n_algorithm=CanonicalizationMethod.CANONICAL_XML_1_1,
    )
    ders = leaf_first(chain) if listed is None else list(listed)
    certificates = [x509.load_der_x509_certificate(one) for one in ders]
    root = fromstring((text or manifest_text()).encode())
    signed = signer.sign(root, key=chain[-1].key, cert=certificates)
    return edit(bytes(tostring(signed)))


@cache
def driver_manifest() -> bytes:
    """The good driver's manifest."""
    return make_manifest()


@cache
def vbios_manifest() -> bytes:
    """The good VBIOS's manifest."""
    return make_manifest(manifest_text(VBIOS, VBIOS_INDICES))


# ---------------------------------------------------------------- revocation


@dataclass(frozen=True)
class OcspParts:
    """What an OCSP answer says; the defaults are those of a good one by the issuer itself."""

    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    reason: x509.ReasonFlags | None = None
    this_update: int = NOW - 3600
    next_update: int | None = NOW + DAY
    algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    responder: Party | None = None
    listed: tuple[Party, ...] = ()
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA1 = field(default_factory=hashes.SHA384)


def make_ocsp(subject: Party, issuer: Party, parts: OcspParts | None = None) -> bytes:
    """Sign an OCSP answer."""
    says = parts or OcspParts()
    signer = says.responder or issuer
    revoked = says.status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=x509.load_der_x509_certificate(subject.certificate),
            issuer=x509.load_der_x509_certificate(issuer.certificate),
            algorithm=says.algorithm,
            cert_status=says.status,
            this_update=datetime.fromtimestamp(says.this_update, UTC),
            next_update=None if says.next_update is None else datetime.fromtimestamp(says.next_update, UTC),
            revocation_time=datetime.fromtimestamp(NOW - 7200, UTC) if revoked else None,
            revocation_reason=says.reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, x509.load_der_x509_certificate(signer.certificate))
    )
    listed = says.listed or ((says.responder,) if says.responder else ())
    if listed:
        builder = builder.certificates([x509.load_der_x509_certificate(one.certificate) for one in listed])
    return builder.sign(signer.key, says.digest).public_bytes(serialization.Encoding.DER)


def responder(issuer: Party, says: Cert | None = None) -> Party:
    """Return a responder that an issuer appointed."""
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    return issue(says or Cert("responder", ca=False, extensions=(purpose,)), issuer)


def links(chain: Sequence[Party]) -> list[tuple[Party, Party]]:
    """Return every certificate of a chain (root first) with its issuer, less the root."""
    return [(chain[place + 1], chain[place]) for place in range(len(chain) - 1)]


@cache
def answers() -> tuple[bytes, ...]:
    """Good answers for everything that the good device and the good manifests need."""
    pairs = [*links(device()[:-1]), *links(rim_signers())]
    return tuple(make_ocsp(*pair) for pair in pairs)


# ---------------------------------------------------------------- together


def endorsements(**changes: object) -> NvidiaEndorsements:
    """Return everything that the good device needs, with some of it replaced."""
    whole = NvidiaEndorsements(
        device_roots=(sha256(device()[0].certificate),),
        rim_roots=(sha256(rim_signers()[0].certificate),),
        nras_issuers=(),
        rims={DRIVER_RIM: driver_manifest(), VBIOS_RIM: vbios_manifest()},
        ocsp=answers(),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]
