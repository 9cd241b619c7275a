"""Makes TDX quotes and their collateral under a root of our own, right or wrong in one named way.

The genuine ones pass both verifiers; everything about them can be changed by :func:`dataclasses.replace`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ephemeralml.attestation.tdx.endorsements import TdxEndorsements
from ephemeralml.attestation.tdx.pem import write_pem_chain
from ephemeralml.wire.encoding import sha256

NOW: Final = 1_800_000_000
DAY: Final = 86_400
FMSPC: Final = bytes.fromhex("30606a000000")
QE_SIGNER: Final = sha256(b"the signer of the quoting enclave")
COMPONENTS: Final = (5, 5, 2, 2, 3, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0)
NAMES: Final = {
    "root": "Intel SGX Root CA",
    "platform": "Intel SGX PCK Platform CA",
    "pck": "Intel SGX PCK Certificate",
    "signer": "Intel SGX TCB Signing",
}
ISSUERS: Final = {"root": "root", "platform": "root", "pck": "platform", "signer": "root"}
SERIALS: Final = {"root": 11, "platform": 12, "pck": 13, "signer": 14}
USES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
OID_PREFIX: Final = bytes.fromhex("2a864886f84d010d01")
Json = dict[str, Any]


def unchanged(value: Json) -> None:
    """Change nothing."""


@dataclass(frozen=True, kw_only=True)
class Forge:
    """A quote and its collateral.

    :param report: fields of the TD report by name. :param qe: those of the enclave's report.
    :param certificates: what differs in a certificate, by its name in :data:`NAMES`.
    :param lists: what differs in the revocation lists ``"pck"`` and ``"root"``.
    :param info: :param identity: change the JSON before it is signed.
    :param signers: who signs what: ``"quote"``, ``"qe"``, ``"tcb_info"``, ``"qe_identity"``.
    """

    version: int = 4
    newer: bool = False
    report: Mapping[str, bytes] = field(default_factory=dict)
    qe: Mapping[str, bytes] = field(default_factory=dict)
    header: Mapping[int, bytes] = field(default_factory=dict)
    auth_data: bytes = bytes(range(32))
    kinds: tuple[int, int] = (6, 5)
    chain: tuple[str, ...] = ("pck", "platform", "root")
    components: tuple[int, ...] = COMPONENTS
    pce_svn: int = 11
    pce_id: bytes = bytes(2)
    fmspc: bytes = FMSPC
    extension: bytes | None = None
    certificates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    info: Callable[[Json], None] = unchanged
    identity: Callable[[Json], None] = unchanged
    signers: Mapping[str, str] = field(default_factory=dict)
    signing_chain: tuple[str, ...] = ("signer", "root")
    trailing: bytes = b""

    # ------------------------------------------------------------ the quote

    def quote(self) -> bytes:
        """Return the quote."""
        body = self.td_report()
        kind = 3 if self.newer else 2
        descriptor = b"" if self.version == 4 else number(kind, 2) + number(len(body), 4)
        signed = self.quote_header() + descriptor + body
        signature = sign(key_of(self.signers.get("quote", "attestation")), signed)
        key = raw_public("attestation")
        enclave = self.qe_report(key)
        chain = write_pem_chain(tuple(self.certificate(name) for name in self.chain)).encode() + b"\0"
        certification = (
            enclave
            + sign(key_of(self.signers.get("qe", "pck")), enclave)
            + number(len(self.auth_data), 2)
            + self.auth_data
            + number(self.kinds[1], 2)
            + number(len(chain), 4)
            + chain
        )
        data = signature + key + number(self.kinds[0], 2) + number(len(certification), 4) + certification
        return signed + number(len(data), 4) + data + self.trailing

    def quote_header(self) -> bytes:
        """Return the 48 bytes; ``header`` writes over them by offset."""
        vendor = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
        data = bytearray(
            number(self.version, 2) + number(2, 2) + number(0x81, 4) + bytes(4) + vendor + bytes(20)
        )
        for offset, value in self.header.items():
            data[offset : offset + len(value)] = value
        return bytes(data)

    def td_report(self) -> bytes:
        """Return the body."""
        sizes: dict[str, bytes] = {
            "tee_tcb_svn": bytes([5, 1, 2]) + bytes(13),
            "mrseam": bytes([0x5E]) * 48,
            "mrsignerseam": bytes(48),
            "seam_attributes": bytes(8),
            "attributes": bytes.fromhex("0000001000000000"),
            "xfam": bytes.fromhex("e702060000000000"),
            "mrtd": bytes([0xD0]) * 48,
            "mrconfigid": bytes(48),
            "mrowner": bytes(48),
            "mrownerconfig": bytes(48),
            **{f"rtmr{index}": bytes([index + 1]) * 48 for index in range(4)},
            "report_data": bytes(range(64)),
        }
        if self.newer:
            sizes |= {"tee_tcb_svn2": bytes([5, 1, 2]) + bytes(13), "mrservicetd": bytes(48)}
        assert set(self.report) <= set(sizes)
        return b"".join(self.report.get(name, value) for name, value in sizes.items())

    def qe_report(self, key: bytes) -> bytes:
        """Return the 384 bytes of the quoting enclave."""
        bound = sha256(key + self.auth_data) + bytes(32)
        fields = {
            "cpu_svn": bytes(self.components),
            "miscselect": bytes(4),
            "reserved1": bytes(28),
            "attributes": bytes.fromhex("11000000000000000700000000000000"),
            "mrenclave": bytes([0xEE]) * 32,
            "reserved2": bytes(32),
            "mrsigner": QE_SIGNER,
            "reserved3": bytes(96),
            "isv_prod_id": number(2, 2),
            "isv_svn": number(4, 2),
            "reserved4": bytes(60),
            "report_data": bound,
        }
        assert set(self.qe) <= set(fields)
        return b"".join(self.qe.get(name, value) for name, value in fields.items())

    # ----------------------------------------------------- the certificates

    def certificate(self, name: str) -> bytes:
        """Return a certificate, DER."""
        changes = dict(self.certificates.get(name, {}))
        if name == "pck":
            changes.setdefault("extension", self.pck_extension())
        return make_certificate(name, tuple(sorted(changes.items(), key=lambda item: item[0])))

    def pck_extension(self) -> bytes:
        """Return Intel's extension."""
        if self.extension is not None:
            return self.extension
        svn = bytes(self.components)
        return pck_extension(self.components, self.pce_svn, self.pce_id, self.fmspc, cpu_svn=svn)

    def revocation_list(self, name: str) -> bytes:
        """Return a revocation list, DER: ``"pck"`` of the platform CA, ``"root"`` of the root."""
        changes = dict(self.lists.get(name, {}))
        issuer = {"pck": "platform", "root": "root"}[name]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name_of(changes.get("issuer", NAMES[issuer])))
            .last_update(at(changes.get("issued_at", NOW - 5 * DAY)))
            .next_update(at(changes.get("next_update", NOW + 20 * DAY)))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key_of(issuer).public_key()),
                critical=False,
            )
        )
        for serial in changes.get("serials", ()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at(NOW - 6 * DAY))
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(key_of(changes.get("signer", issuer)), SHA256())
        return crl.public_bytes(Encoding.DER)

    # ------------------------------------------------------- the collateral

    def files(self) -> dict[str, bytes]:
        """Return the collateral as separate files."""
        return {
            "tcb_info.json": self.signed_body("tcb_info"),
            "qe_identity.json": self.signed_body("qe_identity"),
            "tcb_signing_chain.pem": self.signing_pem().encode(),
            "pck_crl.der": self.revocation_list("pck"),
            "root_ca_crl.der": self.revocation_list("root"),
        }

    def collateral(self) -> bytes:
        """Return the collateral as one file."""
        values = {
            "pck_crl_issuer_chain": write_pem_chain((self.certificate("platform"), self.certificate("root"))),
            "root_ca_crl": self.revocation_list("root").hex(),
            "pck_crl": self.revocation_list("pck").hex(),
        }
        for name in ("tcb_info", "qe_identity"):
            text, signature = self.signed_text(name)
            values |= {
                name: text.decode(),
                f"{name}_signature": signature.hex(),
                f"{name}_issuer_chain": self.signing_pem(),
            }
        return json.dumps(values).encode()

    def signing_pem(self) -> str:
        """Return the chain of the TCB signer."""
        return write_pem_chain(tuple(self.certificate(name) for name in self.signing_chain))

    def signed_text(self, name: str) -> tuple[bytes, bytes]:
        """Return the signed JSON text ``"tcb_info"`` or ``"qe_identity"``, and its signature."""
        value = tcb_info(self.fmspc) if name == "tcb_info" else qe_identity()
        (self.info if name == "tcb_info" else self.identity)(value)
        text = json.dumps(value, separators=(",", ":")).encode()
        return text, sign(key_of(self.signers.get(name, "signer")), text)

    def signed_body(self, name: str) -> bytes:
        """Return it in the form of a PCS answer."""
        text, signature = self.signed_text(name)
        inner = {"tcb_info": b"tcbInfo", "qe_identity": b"enclaveIdentity"}[name]
        return b'{"%s":%s,"signature":"%s"}' % (inner, text, signature.hex().encode())

    def endorsements(self) -> TdxEndorsements:
        """Return what judges the quote: our root and the collateral."""
        return trusting().with_files(self.files())


def trusting() -> TdxEndorsements:
    """Return the root of the genuine, without collateral."""
    return TdxEndorsements(roots=(sha256(Forge().certificate("root")),))


def pair(version: int = 4) -> tuple[bytes, TdxEndorsements]:
    """Return a genuine quote and what judges it at :data:`NOW`, e.g. to measure with."""
    forge = Forge(version=version, newer=version == 5)
    return forge.quote(), forge.endorsements()


@cache
def key_of(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of a name, made when it is first asked for."""
    return ec.generate_private_key(ec.SECP384R1() if name == "p384" else ec.SECP256R1())


def raw_public(name: str) -> bytes:
    """Return x ‖ y."""
    numbers = key_of(name).public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return r ‖ s."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@cache
def make_certificate(name: str, changed: tuple[tuple[str, Any], ...]) -> bytes:
    """Return a certificate, DER, the same for the same arguments."""
    changes = dict(changed)
    is_ca = changes.get("ca", name in ("root", "platform"))
    issuer = changes.get("issuer", ISSUERS[name])
    uses = changes.get("usage", ("key_cert_sign", "crl_sign") if is_ca else ("digital_signature",))
    usage = dict.fromkeys(USES, False) | dict.fromkeys(uses, True)
    length = changes.get("path_length", {"root": 1, "platform": 0}.get(name)) if is_ca else None
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(changes.get("subject", NAMES[name])))
        .issuer_name(name_of(changes.get("issuer_name", NAMES[issuer])))
        .serial_number(changes.get("serial", SERIALS[name]))
        .not_valid_before(at(changes.get("not_before", NOW - 100 * DAY)))
        .not_valid_after(at(changes.get("not_after", NOW + 100 * DAY)))
        .public_key(key_of(changes.get("key", name)).public_key())
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=length), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key_of(issuer).public_key()), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key_of(changes.get("key", name)).public_key()),
            critical=False,
        )
    )
    if changes.get("extension"):
        oid = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, changes["extension"]), critical=False)
    if changes.get("unknown"):
        oid = x509.ObjectIdentifier("1.2.3.4")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x05\x00"), critical=True)
    digest = SHA384() if changes.get("sha384") else SHA256()
    return builder.sign(key_of(changes.get("signer", issuer)), digest).public_bytes(Encoding.DER)


# ------------------------------------------------------------------ the parts


def pck_extension(
    components: tuple[int, ...] = COMPONENTS,
    pce_svn: int = 11,
    pce_id: bytes = bytes(2),
    fmspc: bytes = FMSPC,
    *,
    cpu_svn: bytes = bytes(COMPONENTS),
    more: bytes = b"",
    without: int = 0,
) -> bytes:
    """Return the extension, DER. :param more: further pairs. :param without: the pair to leave out."""
    tcb = [attribute((2, index + 1), integer(svn)) for index, svn in enumerate(components)]
    tcb += [attribute((2, 17), integer(pce_svn)), attribute((2, 18), der(0x04, cpu_svn))]
    pairs = {
        1: attribute((1,), der(0x04, bytes([0xAB]) * 16)),
        2: attribute((2,), der(0x30, b"".join(tcb))),
        3: attribute((3,), der(0x04, pce_id)),
        4: attribute((4,), der(0x04, fmspc)),
        5: attribute((5,), der(0x0A, b"\1")),
    }
    return der(0x30, b"".join(value for arc, value in pairs.items() if arc != without) + more)


def attribute(arcs: tuple[int, ...], value: bytes) -> bytes:
    """Return a pair of identifier and value."""
    return der(0x30, der(0x06, OID_PREFIX + bytes(arcs)) + value)


def integer(value: int) -> bytes:
    """Return an INTEGER."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der(tag: int, value: bytes) -> bytes:
    """Return an element of at most 65,535 bytes."""
    size = len(value)
    length = (
        bytes([size])
        if size < 0x80
        else bytes([0x81, size])
        if size < 0x100
        else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([tag]) + length + value


def tcb_info(fmspc: bytes = FMSPC) -> Json:
    """Return a TCB info with three levels and two modules."""

    def level(sgx: tuple[int, ...], tdx: tuple[int, ...], status: str, *advisories: str) -> Json:
        return {
            "tcb": {
                "sgxtcbcomponents": [{"svn": svn} for svn in sgx],
                "tdxtcbcomponents": [{"svn": svn} for svn in (*tdx, *bytes(16 - len(tdx)))],
                "pcesvn": 11,
            },
            "tcbDate": iso(NOW - 200 * DAY),
            "tcbStatus": status,
            "advisoryIDs": list(advisories),
        }

    older = (4, *COMPONENTS[1:])
    oldest = (3, *COMPONENTS[1:])
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": iso(NOW - 3 * DAY),
        "nextUpdate": iso(NOW + 27 * DAY),
        "fmspc": fmspc.hex(),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 18,
        "tdxModule": module(),
        "tdxModuleIdentities": [
            {
                "id": "TDX_01",
                **module(),
                "tcbLevels": [svn_level(5, "UpToDate"), svn_level(3, "OutOfDate", "INTEL-SA-00003")],
            },
            {"id": "TDX_03", **module(), "tcbLevels": [svn_level(3, "UpToDate")]},
        ],
        "tcbLevels": [
            level(COMPONENTS, (5, 0, 2), "UpToDate"),
            level(older, (5, 0, 2), "SWHardeningNeeded", "INTEL-SA-00001"),
            level(oldest, (3, 0, 1), "OutOfDate", "INTEL-SA-00002", "INTEL-SA-00001"),
        ],
    }


def module() -> Json:
    """Return the identity of a TDX module."""
    return {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}


def svn_level(svn: int, status: str, *advisories: str) -> Json:
    """Return a level of a module or enclave."""
    value: Json = {"tcb": {"isvsvn": svn}, "tcbDate": iso(NOW - 200 * DAY), "tcbStatus": status}
    return value | ({"advisoryIDs": list(advisories)} if advisories else {})


def qe_identity() -> Json:
    """Return the identity of the quoting enclave."""
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": iso(NOW - 2 * DAY),
        "nextUpdate": iso(NOW + 28 * DAY),
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_SIGNER.hex().upper(),
        "isvprodid": 2,
        "tcbLevels": [svn_level(4, "UpToDate"), svn_level(2, "OutOfDate", "INTEL-SA-00004")],
    }


def number(value: int, size: int) -> bytes:
    """Return a number, little-endian."""
    return value.to_bytes(size, "little")


def at(seconds: int) -> datetime:
    """Return Unix seconds as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def iso(seconds: int) -> str:
    """Return Unix seconds as Intel writes them."""
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def name_of(common_name: str) -> x509.Name:
    """Return a name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
        ]
    )
