"""Reads TCB info and the identity of the quoting enclave.

Formats: Intel, "PCS API v4", "Get TDX TCB Info" (TCB info version 3) and "Get TD Quoting Enclave Identity"
(version 2). Fields that are not named here are left alone: Intel adds some from time to time, and none of
them changes what the named ones mean while ``version`` stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

from ..strict_json import read_json_object
from .pck import COMPONENTS
from .signed import MAX_JSON_BYTES, Fields, Signed, bad_collateral

TcbStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
]
STATUSES: Final[frozenset[str]] = frozenset(get_args(TcbStatus))
_WORD: Final = re.compile(r"[A-Za-z0-9_]{1,48}")


@dataclass(frozen=True, slots=True)
class Standing:
    """What Intel says of a level.

    :param date: since when, Unix seconds. :param advisory_ids: e.g. ``"INTEL-SA-00960"``.
    """

    status: TcbStatus
    date: int
    advisory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TcbLevel:
    """A level of the platform: it is reached by SVNs that are all as high.

    :param sgx: :param tdx: SVNs of 16 components each.
    """

    sgx: tuple[int, ...]
    tdx: tuple[int, ...]
    pce_svn: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class SvnLevel:
    """A level of a TDX module or of the quoting enclave: it is reached by an SVN that is as high."""

    isv_svn: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class ModuleIdentity:
    """A TDX module.

    :param id: e.g. ``"TDX_01"``; empty for the one that stands outside the list.
    :param mrsigner: 48 bytes. :param attributes: :param mask: 8 bytes.
    """

    id: str
    mrsigner: bytes
    attributes: bytes
    mask: bytes
    levels: tuple[SvnLevel, ...]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """The TCB levels of one kind of platform. :param fmspc: 6 bytes. :param pce_id: 2 bytes."""

    signed: Signed
    fmspc: bytes
    pce_id: bytes
    issued_at: int
    next_update: int
    evaluation_number: int
    module: ModuleIdentity
    modules: tuple[ModuleIdentity, ...] = field(repr=False)
    levels: tuple[TcbLevel, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """The quoting enclave for trust domains. Masks say which bits count."""

    signed: Signed
    issued_at: int
    next_update: int
    evaluation_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isv_prod_id: int
    levels: tuple[SvnLevel, ...] = field(repr=False)


def read_tcb_info(signed: Signed) -> TcbInfo:
    """Read a TCB info for TDX; its signature is not checked.

    :raises MalformedError: ``BAD_COLLATERAL``, or as :func:`~..strict_json.read_json`.
    """
    info = Fields(read_json_object(signed.text, max_bytes=MAX_JSON_BYTES))
    if info.text("id", _WORD) != "TDX" or info.number("version", 99) != 3 or info.number("tcbType", 99) != 0:
        raise bad_collateral()
    modules = info.several("tdxModuleIdentities") if info.has("tdxModuleIdentities") else ()
    return TcbInfo(
        signed=signed,
        fmspc=info.octets("fmspc", 6),
        pce_id=info.octets("pceId", 2),
        issued_at=info.time("issueDate"),
        next_update=info.time("nextUpdate"),
        evaluation_number=info.number("tcbEvaluationDataNumber", 2**31),
        module=_module(info.fields("tdxModule"), "", ()),
        modules=tuple(_module(one, one.text("id", _WORD), one.several("tcbLevels")) for one in modules),
        levels=tuple(map(_level, info.several("tcbLevels"))),
    )


def read_qe_identity(signed: Signed) -> QeIdentity:
    """Read the identity of the quoting enclave; its signature is not checked.

    :raises MalformedError: ``BAD_COLLATERAL``, or as :func:`~..strict_json.read_json`.
    """
    info = Fields(read_json_object(signed.text, max_bytes=MAX_JSON_BYTES))
    if info.text("id", _WORD) != "TD_QE" or info.number("version", 99) != 2:
        raise bad_collateral()
    return QeIdentity(
        signed=signed,
        issued_at=info.time("issueDate"),
        next_update=info.time("nextUpdate"),
        evaluation_number=info.number("tcbEvaluationDataNumber", 2**31),
        miscselect=info.octets("miscselect", 4),
        miscselect_mask=info.octets("miscselectMask", 4),
        attributes=info.octets("attributes", 16),
        attributes_mask=info.octets("attributesMask", 16),
        mrsigner=info.octets("mrsigner", 32),
        isv_prod_id=info.number("isvprodid", 0xFFFF),
        levels=tuple(map(_svn_level, info.several("tcbLevels"))),
    )


def _module(info: Fields, name: str, levels: tuple[Fields, ...]) -> ModuleIdentity:
    return ModuleIdentity(
        id=name,
        mrsigner=info.octets("mrsigner", 48),
        attributes=info.octets("attributes", 8),
        mask=info.octets("attributesMask", 8),
        levels=tuple(map(_svn_level, levels)),
    )


def _level(info: Fields) -> TcbLevel:
    tcb = info.fields("tcb")
    return TcbLevel(
        sgx=_components(tcb, "sgxtcbcomponents"),
        tdx=_components(tcb, "tdxtcbcomponents"),
        pce_svn=tcb.number("pcesvn", 0xFFFF),
        standing=_standing(info),
    )


def _svn_level(info: Fields) -> SvnLevel:
    return SvnLevel(info.fields("tcb").number("isvsvn", 0xFFFF), _standing(info))


def _components(tcb: Fields, name: str) -> tuple[int, ...]:
    found = tuple(one.number("svn", 0xFF) for one in tcb.several(name))
    if len(found) != COMPONENTS:
        raise bad_collateral()
    return found


def _standing(info: Fields) -> Standing:
    status = info.text("tcbStatus", _WORD)
    if status not in STATUSES:
        raise bad_collateral()
    return Standing(cast(TcbStatus, status), info.time("tcbDate"), info.advisories())
