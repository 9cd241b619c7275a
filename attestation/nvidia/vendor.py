"""Takes evidence in the vendor's own forms, and returns it in the form that travels.

* the list that NVIDIA's tools write: ``[{"arch", "nonce", "evidence", "certificate"}, …]``;
* the request that NRAS takes: ``{"arch", "nonce", "evidence_list": [{"evidence", "certificate"}, …]}``;
* the answer that NRAS gives: ``[["JWT", …], {"GPU-0": …}]``;
* a report in hexadecimal and its chain in PEM, in one file after each other, or in two.

Nothing is verified here, and nothing is repaired: what the forms say is what is verified.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ...wire.errors import MalformedError, VerificationError
from ..strict_json import read_json
from .identity import CHIPS, read_identity
from .parse import ARCHITECTURES, MAX_CERTIFICATES, Architecture, Kind, encode_answer, encode_devices
from .spdm import MAX_REPORT_BYTES, read_report

MAX_VENDOR_BYTES: Final = 524_288
_HEX_MARK: Final = b"11e0"
_PEM_MARK: Final = b"-----BEGIN CERTIFICATE-----"
_MAX_PEM_BYTES: Final = 32_768


def evidence_from(data: bytes) -> bytes:
    """Return evidence in the form that travels, from any form; what is in it already comes back as it is.

    :raises MalformedError: ``BAD_EVIDENCE``, ``BAD_JSON``, ``BAD_CERTIFICATE`` or as :func:`.parse.parse`.
    """
    start = data[:64].lstrip()[:4]
    if start == _HEX_MARK and _PEM_MARK in data:
        report, mark, chain = data.partition(_PEM_MARK)
        return evidence_of_report(report, mark + chain)
    if start[:1] not in (b"[", b"{"):
        return data
    match read_json(data, max_bytes=MAX_VENDOR_BYTES):
        case [["JWT", str()], dict()]:
            return encode_answer(data)
        case [dict() as first, *_] as entries:
            return _devices(_text(first, "arch"), _text(first, "nonce"), entries)
        case {"arch": str() as arch, "nonce": str() as nonce, "evidence_list": list() as entries}:
            return _devices(arch, nonce, entries)
    raise _bad("of no form that is known")


def evidence_of_report(report: bytes, chain: bytes) -> bytes:
    """Return evidence of one device in the form that travels; its certificate says of which architecture.

    :param report: request and response, or the same in hexadecimal. :param chain: PEM, leaf first.
    :raises MalformedError: as :func:`evidence_from`.
    """
    octets = report
    if report[:1] != b"\x11":
        try:
            octets = bytes.fromhex(report[: 2 * MAX_REPORT_BYTES + 64].decode("ascii").strip())
        except ValueError:
            raise _bad("not a report in hexadecimal") from None
    certificates = read_pem_chain(chain)
    kind, architecture = _kind(certificates)
    return encode_devices(kind, architecture, read_report(octets).nonce, [(octets, certificates)])


def read_pem_chain(data: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file, DER, in its order.

    :raises MalformedError: ``BAD_CERTIFICATE``.
    """
    count = data.count(_PEM_MARK)
    if len(data) > _MAX_PEM_BYTES or not 1 <= count <= MAX_CERTIFICATES:
        raise MalformedError("BAD_CERTIFICATE", "a chain is not a few certificates in PEM")
    try:
        found = tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(data))
        if len(found) != count:  # the library skips one that is cut short
            raise ValueError("cut short")
        return found
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None


def _kind(chain: tuple[bytes, ...]) -> tuple[Kind, Architecture]:
    try:
        chip = read_identity(chain[0], chain[min(1, len(chain) - 1)]).chip
    except VerificationError:
        chip = ""
    for kind, architectures in ARCHITECTURES.items():
        for architecture in architectures:
            if CHIPS[architecture].fullmatch(chip):
                return kind, architecture
    raise _bad("of an architecture that is not known")


def _devices(arch: str, nonce: str, entries: Sequence[object]) -> bytes:
    for kind, architectures in ARCHITECTURES.items():
        for architecture in architectures:
            if arch == architecture:
                found = [_entry(entry, arch, nonce) for entry in entries]
                return encode_devices(kind, architecture, _hex(nonce), found)
    raise _bad("of an architecture that is not known")


def _entry(entry: object, arch: str, nonce: str) -> tuple[bytes, tuple[bytes, ...]]:
    if not isinstance(entry, dict):
        raise _bad("a list of something else")
    if entry.get("arch", arch) != arch or entry.get("nonce", nonce) != nonce:
        raise _bad("of devices that differ in architecture or nonce")
    return _base64(_text(entry, "evidence")), read_pem_chain(_base64(_text(entry, "certificate")))


def _text(entry: dict[str, object], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise _bad("without one of its fields")
    return value


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _bad("without a nonce in hexadecimal") from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("not in base64") from None


def _bad(what: str) -> MalformedError:
    return MalformedError("BAD_EVIDENCE", f"the evidence is {what}")
