"""Reads the opaque data of a report: what the GPU's firmware says of itself beside its measurements.

Layout and field numbers: NVIDIA, "Opaque Data Format"
(docs.nvidia.com/attestation/specs/latest/opaque-data-format.html) and the GPU verifier that
NVIDIA publishes. Two layouts: entries of type (u16), size (u16) and value, all little-endian;
since the drivers of CUDA 13.5 the same behind a header ``NVDAOD``, profile and version, with a
value type (u16) after the type. Unknown types are signed and harmless, and are left aside; no
type stands twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ...wire.errors import MalformedError

Mode = Literal["spt", "mpt", "ppcie"]

MAX_FIELDS: Final = 128
_MAGIC: Final = b"NVDAOD"
_HEADER_BYTES: Final = 12
_MAJORS: Final = (1, 2)

_DRIVER, _VBIOS, _NVDEC0, _CHIP_SKU, _PROJECT, _PROJECT_SKU = 3, 6, 11, 15, 17, 18
_FWID, _PROTECTED_PCIE, _CHIP, _FEATURE = 20, 21, 35, 36
_ON, _OFF = 0xAA, 0x55
_MODES: Final[dict[int, Mode]] = {0: "spt", 1: "mpt", 2: "ppcie"}
_WORD: Final = re.compile(rb"[A-Za-z0-9]{1,16}")
_DRIVER_VERSION: Final = re.compile(rb"[0-9]{1,4}(\.[0-9]{1,4}){1,3}")
_SWITCH_BIOS: Final = re.compile(rb"[0-9A-F]{2}(\.[0-9A-F]{2}){4}")


@dataclass(frozen=True, slots=True)
class OpaqueData:
    """What the firmware says; None where it does not.

    :param driver: e.g. ``"550.90.07"``. :param vbios: five octets in hexadecimal, e.g. ``"96.00.9F.00.01"``.
    :param board: project, its SKU and the chip's SKU: they name the manifest of the VBIOS.
    :param nvdec0: whether measurement 35 means anything: the video decoder is enabled.
    :param fwid: SHA-384 of the firmware, which the leaf's certificate names too.
    :param mode: how the GPU is passed through: alone (``spt``), several with encrypted links (``mpt``),
        or behind protected PCIe with switches in the trust boundary (``ppcie``).
    """

    driver: str | None
    vbios: str | None
    board: tuple[str, str, str] | None
    chip: str | None
    nvdec0: bool | None
    fwid: bytes | None = field(repr=False)
    mode: Mode | None


def read_opaque(data: bytes) -> OpaqueData:
    """Read opaque data, in either layout.

    :raises MalformedError: ``BAD_OPAQUE_DATA``.
    """
    fields = _fields(data)
    board = tuple(_word(fields, number) for number in (_PROJECT, _PROJECT_SKU, _CHIP_SKU))
    project, project_sku, chip_sku = board
    whole = None if not (project and project_sku and chip_sku) else (project, project_sku, chip_sku)
    return OpaqueData(
        driver=_driver(fields),
        vbios=_vbios(fields),
        board=whole,
        chip=_word(fields, _CHIP),
        nvdec0=_flag(fields, _NVDEC0),
        fwid=_sized(fields, _FWID, 48),
        mode=_mode(fields),
    )


def _fields(data: bytes) -> Mapping[int, bytes]:
    position, has_value_type = 0, False
    if data[:6] == _MAGIC:
        if len(data) < _HEADER_BYTES or data[6:8] != b"\0\0" or data[8] not in _MAJORS:
            raise _bad("a header that is not known")
        position, has_value_type = _HEADER_BYTES, True
    found: dict[int, bytes] = {}
    while position < len(data):
        number = _u16(data, position)
        position += 4 if has_value_type else 2
        size = _u16(data, position)
        position += 2
        if position + size > len(data):
            raise _bad("an entry that ends outside")
        if number in found or len(found) == MAX_FIELDS:
            raise _bad("an entry twice, or too many")
        found[number] = data[position : position + size]
        position += size
    return found


def _u16(data: bytes, position: int) -> int:
    if position + 2 > len(data):
        raise _bad("an entry that ends outside")
    return int.from_bytes(data[position : position + 2], "little")


def _text(fields: Mapping[int, bytes], number: int, form: re.Pattern[bytes]) -> str | None:
    value = fields.get(number)
    if value is None:
        return None
    text = value.rstrip(b"\0")
    if not form.fullmatch(text):
        raise _bad(f"field {number} out of form")
    return text.decode("ascii")


def _word(fields: Mapping[int, bytes], number: int) -> str | None:
    return _text(fields, number, _WORD)


def _driver(fields: Mapping[int, bytes]) -> str | None:
    return _text(fields, _DRIVER, _DRIVER_VERSION)


def _vbios(fields: Mapping[int, bytes]) -> str | None:
    value = fields.get(_VBIOS)
    if value is None:
        return None
    if len(value) != 8:  # a switch writes its BIOS version as text
        return _text(fields, _VBIOS, _SWITCH_BIOS)
    # Little-endian; the upper half holds the OEM's octet, which is written last.
    low, oem = value[3::-1], value[4]
    if any(value[5:]):
        raise _bad(f"field {_VBIOS} out of form")
    return ".".join(f"{octet:02X}" for octet in (*low, oem))


def _sized(fields: Mapping[int, bytes], number: int, size: int) -> bytes | None:
    value = fields.get(number)
    if value is not None and len(value) != size:
        raise _bad(f"field {number} out of form")
    return value


def _flag(fields: Mapping[int, bytes], number: int) -> bool | None:
    value = _sized(fields, number, 1)
    if value is None:
        return None
    if value[0] not in (_ON, _OFF):
        raise _bad(f"field {number} out of form")
    return value[0] == _ON


def _mode(fields: Mapping[int, bytes]) -> Mode | None:
    """Return the feature flag; firmware that has none says at most that PCIe is protected."""
    value = fields.get(_FEATURE)
    protected = _flag(fields, _PROTECTED_PCIE)
    if value is None:
        return "ppcie" if protected else None
    mode = _MODES.get(int.from_bytes(value, "little")) if 1 <= len(value) <= 8 else None
    if mode is None or (protected is not None and protected != (mode == "ppcie")):
        raise _bad("a mode that is not known, or two that differ")
    return mode


def _bad(what: str) -> MalformedError:
    return MalformedError("BAD_OPAQUE_DATA", f"the report's opaque data has {what}")
