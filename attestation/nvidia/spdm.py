"""Reads a GPU's report: an SPDM GET_MEASUREMENTS request and the response to it, one after the other.

Format: DMTF DSP0274 version 1.1, sections 10.11.1 and 10.11.2 (tables 44 to 50); what NVIDIA's
devices write in it was confirmed on recorded reports. The signature is over request and response
without it (section 10.11.3), because a request for all measurements with a signature begins and
ends the transcript.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...wire.errors import MalformedError
from .opaque import OpaqueData, read_opaque

MAX_REPORT_BYTES: Final = 8_192  # NVML_CC_GPU_ATTESTATION_REPORT_SIZE
NONCE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 96
DIGEST_BYTES: Final = 48
MAX_OPAQUE_BYTES: Final = 1_024  # DSP0274 1.1, table 45
_REQUEST_BYTES: Final = 37
_REQUEST_HEAD: Final = bytes.fromhex("11e001ff")  # version 1.1, GET_MEASUREMENTS, signed, all of them
_RESPONSE_HEAD: Final = bytes.fromhex("116000")  # version 1.1, MEASUREMENTS, Param1
_MAX_SLOT: Final = 7
_BLOCK_HEAD_BYTES: Final = 4
_DMTF: Final = 1
_VALUE_HEAD_BYTES: Final = 3
_RAW: Final = 0x80


@dataclass(frozen=True, slots=True)
class Report:
    """A well-formed report; whether it is genuine is not said.

    :param nonce: what the asker sent, 32 bytes.
    :param measurements: SHA-384 by index from 0; the report counts from 1, manifests from 0.
    :param signed: the bytes under the signature.
    """

    nonce: bytes = field(repr=False)
    measurements: Mapping[int, bytes] = field(repr=False)
    opaque: OpaqueData
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_report(data: bytes) -> Report:
    """Read request and response.

    :raises MalformedError: ``BAD_REPORT`` or ``BAD_OPAQUE_DATA``.
    """
    if not _REQUEST_BYTES < len(data) <= MAX_REPORT_BYTES:
        raise _bad("its length")
    slot = data[_REQUEST_BYTES - 1]
    if data[:4] != _REQUEST_HEAD or slot > _MAX_SLOT:
        raise _bad("its request")
    response = data[_REQUEST_BYTES:]
    if response[:3] != _RESPONSE_HEAD or len(response) < 8 or response[3] != slot:
        raise _bad("the head of its response")
    end = 8 + int.from_bytes(response[5:8], "little")
    measurements = _blocks(response[8:end], response[4])
    opaque_at = end + NONCE_BYTES + 2
    size = int.from_bytes(response[end + NONCE_BYTES : opaque_at], "little")
    if len(response) != opaque_at + size + SIGNATURE_BYTES or size > MAX_OPAQUE_BYTES:
        raise _bad("its length")
    return Report(
        nonce=data[4 : 4 + NONCE_BYTES],
        measurements=measurements,
        opaque=read_opaque(response[opaque_at : opaque_at + size]),
        signed=data[:-SIGNATURE_BYTES],
        signature=data[-SIGNATURE_BYTES:],
    )


def _blocks(data: bytes, count: int) -> dict[int, bytes]:
    """Read measurement blocks: all of one size, counted from 1 without a gap."""
    block = _BLOCK_HEAD_BYTES + _VALUE_HEAD_BYTES + DIGEST_BYTES
    if count == 0 or len(data) != count * block:
        raise _bad("its measurement record")
    found: dict[int, bytes] = {}
    for index in range(count):
        part = data[index * block : (index + 1) * block]
        sizes = int.from_bytes(part[2:4], "little"), int.from_bytes(part[5:7], "little")
        if part[:2] != bytes((index + 1, _DMTF)) or part[4] & _RAW:
            raise _bad("a measurement block")
        if sizes != (_VALUE_HEAD_BYTES + DIGEST_BYTES, DIGEST_BYTES):
            raise _bad("a measurement block")
        found[index] = part[_BLOCK_HEAD_BYTES + _VALUE_HEAD_BYTES :]
    return found


def _bad(what: str) -> MalformedError:
    return MalformedError("BAD_REPORT", f"the report is out of form in {what}")
