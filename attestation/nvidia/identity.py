"""What a device's certificates say of it: which chip it is, and which firmware its key belongs to.

The leaf's key is made by the device's boot ROM for one firmware; the certificate says
for which, in one of two forms (DICE Attestation Architecture 1.1, section 6.1):

* ``2.23.133.5.4.1``, as Hopper and the NVSwitch write it: ``SEQUENCE { INTEGER,
  SubjectPublicKeyInfo, FWID }``, after an early draft of the same group;
* ``2.23.133.5.4.1.1``, as Blackwell writes it: a ``DiceTcbInfo``, whose field ``[6]``
  lists one FWID or more.

The device's name is in the subject alternative name, as DMTF's device information
(DSP0274, section 10.6.1.2, OID 1.3.6.1.4.1.412.274.1): ``NVIDIA:<chip>:<serial>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ...wire.encoding import sha256
from ...wire.errors import MalformedError, VerificationError
from ..der import SEQUENCE, Element, read_elements, read_one
from .parse import Architecture

COMPOSITE_DEVICE: Final = "2.23.133.5.4.1"
TCB_INFO: Final = "2.23.133.5.4.1.1"
DEVICE_INFORMATION: Final = "1.3.6.1.4.1.412.274.1"
FWID_BYTES: Final = 48
MAX_FWIDS: Final = 8
CHIPS: Final[dict[Architecture, re.Pattern[str]]] = {
    "HOPPER": re.compile(r"GH1[0-9]{2}"),
    "BLACKWELL": re.compile(r"GB[0-9]{3}"),
    "LS10": re.compile(r"LS_10"),
}
_UTF8_STRING: Final = 0x0C
_FWIDS: Final = 0xA6
_SHA384: Final = bytes.fromhex("608648016503040202")  # 2.16.840.1.101.3.4.2.2
_NAME: Final = re.compile(r"NVIDIA:([A-Z0-9_]{1,16}):([0-9A-F]{8,32})")


@dataclass(frozen=True, slots=True)
class Identity:
    """A device, by its certificates.

    :param chip: e.g. ``"GH100"``. :param serial: hexadecimal, as the certificate writes it.
    :param device_id: SHA-256 of the boot ROM's public key, which the device keeps for life; a leaf's
        key changes with the firmware.
    :param fwids: SHA-384 of the firmware that the leaf's key belongs to; none where it is not stated.
    """

    chip: str
    serial: str
    device_id: bytes = field(repr=False)
    fwids: tuple[bytes, ...] = field(repr=False)


def read_identity(leaf: bytes, issuer: bytes) -> Identity:
    """Read who a device is.

    :param leaf: :param issuer: DER of certificates whose chain was verified.
    :raises MalformedError: ``BAD_CERTIFICATE`` or ``BAD_DER``.
    :raises VerificationError: ``CERTIFICATE_PROFILE``: it names no device.
    """
    try:
        certificate = x509.load_der_x509_certificate(leaf)
        extensions = certificate.extensions
        above = x509.load_der_x509_certificate(issuer).public_key()
        key = above.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None
    chip, serial = _name(extensions)
    return Identity(chip, serial, sha256(key), _fwids(extensions))


def _name(extensions: x509.Extensions) -> tuple[str, str]:
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            for other in extension.value.get_values_for_type(x509.OtherName):
                if other.type_id.dotted_string == DEVICE_INFORMATION:
                    found = _NAME.fullmatch(read_one(other.value, _UTF8_STRING).decode("ascii", "replace"))
                    if found is not None:
                        return found[1], found[2]
    raise VerificationError("CERTIFICATE_PROFILE", "a device's certificate does not name the device")


def _fwids(extensions: x509.Extensions) -> tuple[bytes, ...]:
    for extension in extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            if extension.oid.dotted_string == COMPOSITE_DEVICE:
                return (_composite(extension.value.value),)
            if extension.oid.dotted_string == TCB_INFO:
                return _tcb_info(extension.value.value)
    return ()


def _composite(data: bytes) -> bytes:
    match read_elements(read_one(data, SEQUENCE)):
        case [Element(tag=0x02), Element(tag=0x30), Element(tag=0x30, value=fwid)]:
            return _fwid(fwid)
    raise MalformedError("BAD_DER", "a device's composite identity is not of its form")


def _tcb_info(data: bytes) -> tuple[bytes, ...]:
    elements = read_elements(read_one(data, SEQUENCE))
    tags = [element.tag for element in elements]
    # Fields [0] to [11] in ascending order, each at most once.
    if sorted(set(tags), key=_number) != tags or any(not 0x80 <= tag < 0xC0 for tag in tags):
        raise MalformedError("BAD_DER", "a device's TCB information is not of its form")
    for element in elements:
        if element.tag == _FWIDS:
            fwids = read_elements(element.value)
            if not 1 <= len(fwids) <= MAX_FWIDS or any(fwid.tag != SEQUENCE for fwid in fwids):
                break
            return tuple(_fwid(fwid.value) for fwid in fwids)
    raise MalformedError("BAD_DER", "a device's TCB information lists no firmware")


def _number(tag: int) -> int:
    return tag & 0x1F


def _fwid(data: bytes) -> bytes:
    match read_elements(data):
        case [Element(tag=0x06, value=algorithm), Element(tag=0x04, value=digest)] if (
            algorithm == _SHA384 and len(digest) == FWID_BYTES
        ):
            return digest
    raise MalformedError("BAD_DER", "a firmware's identity is no SHA-384 digest")
