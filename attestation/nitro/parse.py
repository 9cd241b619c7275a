"""Reads a Nitro attestation document; says nothing about whether it is genuine.

Format and bounds: AWS Nitro Enclaves User Guide, "Verifying the root of trust",
attestation document specification. The document is an *untagged* COSE_Sign1
(RFC 9052, section 4.2) with the protected header ``{1: -35}`` (ES384). Real
documents are not deterministic CBOR, so the bounded tolerant decoder reads them.

``public_key``, ``user_data`` and ``nonce`` share one bound there, 0 to 1,024
bytes, and documents recorded on hardware use all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...wire.encoding import decode_tolerant
from ...wire.errors import MalformedError
from ...wire.fields import Fields

MAX_DOCUMENT_BYTES: Final = 16_384  # recorded documents: 4.4 to 7.5 KB
MAX_MODULE_ID_BYTES: Final = 256
MAX_CABUNDLE: Final = 8  # recorded documents: 4
MAX_CERTIFICATE_BYTES: Final = 1_024
MAX_BOUND_BYTES: Final = 1_024
MAX_TIMESTAMP_MS: Final = 253_402_300_799_999  # the end of year 9999
PCR_SIZES: Final = (32, 48, 64)
PCR_COUNT: Final = 32
SIGNATURE_BYTES: Final = 96

_PROTECTED: Final = {1: -35}
_OPTIONAL: Final = ("public_key", "user_data", "nonce")
_FIELDS: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", *_OPTIONAL)
_MAX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """A well-formed document whose signature has *not* been checked.

    :param raw: the bytes it was read from.
    :param timestamp_ms: Unix milliseconds, UTC.
    :param pcrs: by index, 0 to 31; 32, 48 or 64 bytes each; 0, 1 and 2 are always there.
    :param certificate: DER of the signing certificate.
    :param cabundle: DER certificates, the root first.
    :param signature: r ‖ s, 96 bytes (RFC 9053, section 2.1).
    """

    raw: bytes = field(repr=False)
    protected_bytes: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    module_id: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes] = field(repr=False)
    certificate: bytes = field(repr=False)
    cabundle: tuple[bytes, ...] = field(repr=False)
    public_key: bytes | None = field(repr=False)
    user_data: bytes | None = field(repr=False)
    nonce: bytes | None = field(repr=False)


def parse(data: bytes) -> NitroDocument:
    """Read a document and hold every field to the vendor's bounds.

    :raises MalformedError: the codes of :func:`~ephemeralml.wire.encoding.decode_tolerant` and
        :class:`~ephemeralml.wire.fields.Fields`, ``COSE_SHAPE``, ``BAD_ALG``, ``BAD_SIG_LENGTH``,
        ``BAD_DIGEST`` or ``BAD_PCR``.
    """
    outer = decode_tolerant(data, max_bytes=MAX_DOCUMENT_BYTES, max_depth=_MAX_DEPTH)
    match outer:
        case [bytes() as protected, dict() as unprotected, bytes() as payload, bytes() as signature]:
            pass
        case _:
            raise MalformedError("COSE_SHAPE", "the document is no untagged COSE_Sign1")
    _check_envelope(protected, unprotected, signature)
    fields = Fields(_without_nulls(_decode(payload)), "attestation document", _FIELDS)
    if fields.required("digest", str) != "SHA384":
        raise MalformedError("BAD_DIGEST", "the document's digest is not SHA384")
    return NitroDocument(
        raw=bytes(data),
        protected_bytes=protected,
        payload=payload,
        signature=signature,
        module_id=fields.text("module_id", 1, MAX_MODULE_ID_BYTES),
        timestamp_ms=fields.uint("timestamp", minimum=1, maximum=MAX_TIMESTAMP_MS),
        pcrs=_pcrs(fields.required("pcrs", dict)),
        certificate=fields.octets("certificate", 1, MAX_CERTIFICATE_BYTES),
        cabundle=_cabundle(fields.items("cabundle", 1, MAX_CABUNDLE)),
        public_key=_bound(fields, "public_key"),
        user_data=_bound(fields, "user_data"),
        nonce=_bound(fields, "nonce"),
    )


def _decode(data: bytes) -> object:
    return decode_tolerant(data, max_bytes=MAX_DOCUMENT_BYTES, max_depth=_MAX_DEPTH)


def _check_envelope(protected: bytes, unprotected: dict[object, object], signature: bytes) -> None:
    if _decode(protected) != _PROTECTED:
        raise MalformedError("BAD_ALG", "the protected header is not exactly ES384")
    if unprotected:
        raise MalformedError("COSE_SHAPE", "the unprotected header is not empty")
    if len(signature) != SIGNATURE_BYTES:
        raise MalformedError("BAD_SIG_LENGTH", "an ES384 signature has 96 bytes")


def _without_nulls(payload: object) -> object:
    """Drop optional fields that are null: the vendor writes them so when they are not set."""
    if not isinstance(payload, dict):
        return payload
    return {key: value for key, value in payload.items() if value is not None or key not in _OPTIONAL}


def _bound(fields: Fields, name: str) -> bytes | None:
    return fields.octets(name, 0, MAX_BOUND_BYTES) if name in fields else None


def _pcrs(table: Mapping[object, object]) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = {}
    for index, value in table.items():
        if type(index) is not int or not 0 <= index < PCR_COUNT:
            raise MalformedError("BAD_PCR", "a PCR index is not 0 to 31")
        if not isinstance(value, bytes) or len(value) not in PCR_SIZES:
            raise MalformedError("BAD_PCR", f"PCR{index} has not 32, 48 or 64 bytes")
        pcrs[index] = value
    if not pcrs.keys() >= {0, 1, 2}:
        raise MalformedError("BAD_PCR", "PCR0, PCR1 or PCR2 is missing")
    return pcrs


def _cabundle(items: list[object]) -> tuple[bytes, ...]:
    certificates: list[bytes] = []
    for item in items:
        if not isinstance(item, bytes) or not 1 <= len(item) <= MAX_CERTIFICATE_BYTES:
            raise MalformedError("OUT_OF_BOUNDS", "a certificate of the cabundle has not 1 to 1,024 bytes")
        certificates.append(item)
    return tuple(certificates)
