"""Reads NVIDIA evidence in the form that travels (spec/nvidia.md); says nothing about whether it is genuine.

Deterministic CBOR around the vendor's own bytes: reports of up to eight devices with their
certificate chains, or the answer of NVIDIA's Remote Attestation Service (NRAS).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ...wire.encoding import decode, encode
from ...wire.errors import MalformedError
from .answer import Answer, read_answer
from .spdm import NONCE_BYTES, Report, read_report

Kind = Literal["gpu", "switch"]
Architecture = Literal["HOPPER", "BLACKWELL", "LS10"]

VERSION: Final = 1
MAX_EVIDENCE_BYTES: Final = 262_144
MAX_DEVICES: Final = 8
MIN_CERTIFICATES, MAX_CERTIFICATES = 3, 8
MAX_CERTIFICATE_BYTES: Final = 2_048
ARCHITECTURES: Final[dict[Kind, tuple[Architecture, ...]]] = {
    "gpu": ("HOPPER", "BLACKWELL"),
    "switch": ("LS10",),
}


@dataclass(frozen=True, slots=True)
class Device:
    """One device's report and chain.

    :param report_bytes: request and response as the device signed them.
    :param chain: DER, leaf first, as the driver gives it.
    """

    report: Report
    report_bytes: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """Reports of one machine's devices, all of one kind and architecture.

    :param nonce: that all of them are said to answer, 32 bytes.
    """

    kind: Kind
    architecture: Architecture
    nonce: bytes = field(repr=False)
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class ServiceEvidence:
    """What NRAS answered."""

    answer: Answer


NvidiaEvidence = DeviceEvidence | ServiceEvidence


def parse(data: bytes) -> NvidiaEvidence:
    """Read evidence.

    :param data: at most 262,144 bytes.
    :raises MalformedError: the CBOR codes of :func:`~ephemeralml.wire.encoding.decode`,
        ``UNKNOWN_VERSION``, ``BAD_EVIDENCE``, ``OUT_OF_BOUNDS``, ``BAD_REPORT``, ``BAD_OPAQUE_DATA``, or as
        :func:`.answer.read_answer`.
    """
    value = decode(data, max_bytes=MAX_EVIDENCE_BYTES, max_depth=6)
    if not isinstance(value, dict) or type(value.get(1)) is not int:  # true is no version, though it equals 1
        raise MalformedError("BAD_EVIDENCE", "the evidence is of no form that is known")
    match value:
        case {1: int() as version} if version != VERSION:
            raise MalformedError("UNKNOWN_VERSION", "the evidence is of a version that is not known")
        case {1: 1, 2: "nras", 3: str() as answer, **rest} if not rest:
            return ServiceEvidence(read_answer(answer.encode()))
        case {
            1: 1,
            2: ("gpu" | "switch") as kind,
            3: ("HOPPER" | "BLACKWELL" | "LS10") as architecture,
            4: bytes() as nonce,
            5: list() as devices,
            **rest,
        } if not rest and architecture in ARCHITECTURES[kind]:
            if len(nonce) != NONCE_BYTES or not 1 <= len(devices) <= MAX_DEVICES:
                raise MalformedError("OUT_OF_BOUNDS", "a nonce has 32 bytes, and there are 1 to 8 devices")
            return DeviceEvidence(kind, architecture, nonce, tuple(map(_device, devices)))
    raise MalformedError("BAD_EVIDENCE", "the evidence is of no form that is known")


def stated_time(data: bytes) -> int | None:
    """Return the time (Unix seconds) that evidence states; reports state none, the service's answers do.

    :raises MalformedError: as :func:`parse`.
    """
    evidence = parse(data)
    return None if isinstance(evidence, DeviceEvidence) else evidence.answer.overall.issued_at


def _device(value: object) -> Device:
    match value:
        case [bytes() as report, list() as chain]:
            return Device(read_report(report), report, check_chain(chain))
    raise MalformedError("BAD_EVIDENCE", "a device's entry is not a report and a chain")


def check_chain(chain: list[object]) -> tuple[bytes, ...]:
    """Return a chain that keeps to the bounds.

    :raises MalformedError: ``OUT_OF_BOUNDS``.
    """
    certificates = tuple(
        one for one in chain if isinstance(one, bytes) and 1 <= len(one) <= MAX_CERTIFICATE_BYTES
    )
    if len(certificates) != len(chain) or not MIN_CERTIFICATES <= len(chain) <= MAX_CERTIFICATES:
        raise MalformedError("OUT_OF_BOUNDS", "a chain has 3 to 8 certificates of at most 2,048 bytes")
    return certificates


def encode_devices(
    kind: Kind, architecture: Architecture, nonce: bytes, devices: list[tuple[bytes, tuple[bytes, ...]]]
) -> bytes:
    """Return evidence in the form that travels.

    :param devices: report and chain (DER, leaf first) of each.
    :raises MalformedError: as :func:`parse`.
    """
    data = encode(
        {
            1: VERSION,
            2: kind,
            3: architecture,
            4: nonce,
            5: [[report, list(chain)] for report, chain in devices],
        }
    )
    parse(data)
    return data


def encode_answer(answer: bytes) -> bytes:
    """Return an NRAS answer in the form that travels.

    :raises MalformedError: as :func:`parse`, or ``BAD_EVIDENCE``: not UTF-8.
    """
    try:
        text = answer.decode()
    except UnicodeDecodeError:
        raise MalformedError("BAD_EVIDENCE", "the answer is not UTF-8") from None
    data = encode({1: VERSION, 2: "nras", 3: text})
    parse(data)
    return data
