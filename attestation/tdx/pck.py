"""Reads Intel's extension of PCK certificates: which platform the certificate is for.

Format: Intel, "SGX PCK Certificate and CRL Profile Specification", section 1.3.5, "Intel SGX Specific
Extensions": object identifier 1.2.840.113741.1.13.1, a sequence of pairs of identifier and value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography import x509

from ...wire.errors import MalformedError
from ..der import SEQUENCE, read_elements, read_one
from .certificates import MAX_REMEMBERED, read_certificate

_OID: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_PREFIX: Final = bytes.fromhex("2a864886f84d010d01")  # the same, as DER writes it
_OBJECT, _OCTETS, _INTEGER = 0x06, 0x04, 0x02
COMPONENTS: Final = 16
_PPID, _TCB, _PCEID, _FMSPC = 1, 2, 3, 4
_KNOWN: Final = range(1, 8)  # with SGX type, platform instance and configuration


@dataclass(frozen=True, slots=True)
class PckPlatform:
    """What a PCK certificate says of its platform.

    :param components: SVNs of the 16 TCB components, 0 to 255 each. :param cpu_svn: 16 bytes.
    :param pce_svn: 0 to 65,535. :param pce_id: 2 bytes. :param fmspc: 6 bytes.
    """

    components: tuple[int, ...]
    cpu_svn: bytes
    pce_svn: int
    pce_id: bytes
    fmspc: bytes
    ppid: bytes = field(repr=False)


@lru_cache(MAX_REMEMBERED)
def read_platform(der: bytes) -> PckPlatform:
    """Read the extension of a PCK certificate.

    :param der: the certificate.
    :raises MalformedError: ``BAD_PCK_EXTENSION`` or ``BAD_CERTIFICATE``.
    """
    try:
        extension = read_certificate(der).x509.extensions.get_extension_for_oid(_OID).value
    except x509.ExtensionNotFound:
        raise _bad() from None
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise _bad()
    try:
        return _platform(extension.value)
    except MalformedError:
        raise _bad() from None


def _platform(data: bytes) -> PckPlatform:
    fields = _pairs(read_one(data, SEQUENCE), _PREFIX)
    if not set(fields) <= set(_KNOWN):
        raise _bad()
    tcb = _pairs(_value(fields, _TCB, SEQUENCE), _PREFIX + bytes([_TCB]))
    if set(tcb) != set(range(1, COMPONENTS + 3)):
        raise _bad()
    return PckPlatform(
        components=tuple(_number(tcb, number, 0xFF) for number in range(1, COMPONENTS + 1)),
        pce_svn=_number(tcb, COMPONENTS + 1, 0xFFFF),
        cpu_svn=_octets(tcb, COMPONENTS + 2, 16),
        pce_id=_octets(fields, _PCEID, 2),
        fmspc=_octets(fields, _FMSPC, 6),
        ppid=_octets(fields, _PPID, 16),
    )


def _pairs(data: bytes, prefix: bytes) -> Mapping[int, tuple[int, bytes]]:
    """Return tag and value by the last arc of their identifiers; none may stand twice."""
    found: dict[int, tuple[int, bytes]] = {}
    for pair in read_elements(data):
        match read_elements(pair.value):
            case [name, value] if pair.tag == SEQUENCE and name.tag == _OBJECT:
                arc = name.value[-1] if name.value[:-1] == prefix else 0
                if arc == 0 or arc > 0x7F or arc in found:
                    raise _bad()
                found[arc] = (value.tag, value.value)
            case _:
                raise _bad()
    return found


def _value(fields: Mapping[int, tuple[int, bytes]], arc: int, tag: int) -> bytes:
    found = fields.get(arc)
    if found is None or found[0] != tag:
        raise _bad()
    return found[1]


def _octets(fields: Mapping[int, tuple[int, bytes]], arc: int, size: int) -> bytes:
    value = _value(fields, arc, _OCTETS)
    if len(value) != size:
        raise _bad()
    return value


def _number(fields: Mapping[int, tuple[int, bytes]], arc: int, most: int) -> int:
    value = _value(fields, arc, _INTEGER)
    number = int.from_bytes(value, "big", signed=True)
    shortest = number.bit_length() // 8 + 1
    if len(value) != shortest or not 0 <= number <= most:
        raise _bad()
    return number


def _bad() -> MalformedError:
    return MalformedError("BAD_PCK_EXTENSION", "a PCK certificate does not say which platform it is for")
