"""What a PCK certificate says of its platform, in Intel's own extension.

Intel SGX PCK Certificate and Certificate Revocation List Profile Specification,
section 1.3.5: OID 1.2.840.113741.1.13.1, a sequence of (OID, value) pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from ...wire.errors import MalformedError
from ..der import SEQUENCE, read_elements, read_one
from .chain import Certificate

SGX_EXTENSION: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_PREFIX: Final = bytes.fromhex("2a864886f84d010d01")  # that OID's own encoding
_TCB, _PCE_ID, _FMSPC = b"\x02", b"\x03", b"\x04"
_OID, _INTEGER, _OCTETS = 0x06, 0x02, 0x04
COMPONENTS: Final = 16


@dataclass(frozen=True, slots=True)
class PckPlatform:
    """The platform that a PCK certificate was issued for.

    :param components: the 16 SVNs of the CPU's components. :param pce_svn: of the provisioning enclave.
    :param pce_id: 2 bytes. :param fmspc: 6 bytes: family, model, stepping, platform, custom SKU.
    """

    components: tuple[int, ...] = field(repr=False)
    pce_svn: int
    pce_id: bytes
    fmspc: bytes


def read_platform(certificate: Certificate) -> PckPlatform:
    """Read the extension of a PCK certificate.

    :raises MalformedError: ``BAD_PCK_EXTENSION`` or ``BAD_DER``.
    """
    try:
        extension = certificate.x509.extensions.get_extension_for_oid(SGX_EXTENSION).value
    except (x509.ExtensionNotFound, ValueError):
        raise _bad() from None
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise _bad()
    values = _pairs(read_one(extension.value, SEQUENCE), b"")
    tcb = _pairs(_value(values, _TCB, SEQUENCE), _TCB)
    components = tuple(_number(tcb, bytes([index]), 255) for index in range(1, COMPONENTS + 1))
    return PckPlatform(
        components=components,
        pce_svn=_number(tcb, bytes([COMPONENTS + 1]), 65_535),
        pce_id=_octets(values, _PCE_ID, 2),
        fmspc=_octets(values, _FMSPC, 6),
    )


def _pairs(data: bytes, below: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Return the pairs of a sequence by the last parts of their OIDs."""
    found: dict[bytes, tuple[int, bytes]] = {}
    prefix = _PREFIX + below
    for element in read_elements(data):
        pair = read_elements(element.value)
        if element.tag != SEQUENCE or len(pair) != 2 or pair[0].tag != _OID:
            raise _bad()
        name = pair[0].value
        if not name.startswith(prefix) or len(name) != len(prefix) + 1 or name[len(prefix) :] in found:
            raise _bad()
        found[name[len(prefix) :]] = (pair[1].tag, pair[1].value)
    return found


def _value(pairs: Mapping[bytes, tuple[int, bytes]], name: bytes, tag: int) -> bytes:
    if name not in pairs or pairs[name][0] != tag:
        raise _bad()
    return pairs[name][1]


def _number(pairs: Mapping[bytes, tuple[int, bytes]], name: bytes, maximum: int) -> int:
    octets = _value(pairs, name, _INTEGER)
    number = int.from_bytes(octets, "big", signed=True)
    if not octets or not 0 <= number <= maximum:
        raise _bad()
    return number


def _octets(pairs: Mapping[bytes, tuple[int, bytes]], name: bytes, size: int) -> bytes:
    octets = _value(pairs, name, _OCTETS)
    if len(octets) != size:
        raise _bad()
    return octets


def _bad() -> MalformedError:
    return MalformedError("BAD_PCK_EXTENSION", "the PCK certificate does not describe its platform")
