"""Reads what the service says of one device, and objects to whatever is not as it must be.

Claims: NVIDIA, "GPU Claims" (docs.nvidia.com/attestation), versions 2.0, 3.0 and 4.0. A claim that must be
there and is not counts as an objection, and so does every claim of a check (a ``x-nvidia-gpu-…`` with a
truth value) that reads false: checks that are added later are heeded without being known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from .details import NvidiaDevice
from .opaque import Mode

_GPU: Final = "x-nvidia-gpu-"
# In every version of the claims.
_REQUIRED: Final = (
    "arch-check",
    "attestation-report-parsed",
    "attestation-report-nonce-match",
    "attestation-report-signature-verified",
    "driver-rim-fetched",
    "driver-rim-signature-verified",
    "driver-rim-measurements-available",
    "vbios-rim-fetched",
    "vbios-rim-signature-verified",
    "vbios-rim-measurements-available",
    "vbios-index-no-conflict",
)
# Version 2.0 says of each chain that it is good; later ones say how, in an object of its own.
_CHAINS: Final = (
    ("attestation-report-cert-chain", "attestation-report-cert-chain-validated"),
    ("driver-rim-cert-chain", "driver-rim-cert-validated"),
    ("vbios-rim-cert-chain", "vbios-rim-cert-validated"),
)
_FWID: Final = "attestation-report-cert-chain-fwid-match"
_CHIP: Final = re.compile(r"(GH1[0-9]{2}|GB[0-9]{3})\b.*")
_VERSION: Final = re.compile(r"[0-9A-F]{1,4}(\.[0-9A-F]{1,4}){1,4}")
_MODES: Final[dict[object, Mode]] = {"spt": "spt", "mpt": "mpt", "ppcie": "ppcie"}
_SERIAL: Final = re.compile(r"[0-9A-Za-z]{1,80}")


def read_device(claims: Mapping[str, object], *, bound: bool) -> NvidiaDevice:
    """Return a device as the service describes it.

    :param claims: of a token whose signature was checked. :param bound: whether its nonce is the overall one.
    """
    chip = _chip(claims)
    return NvidiaDevice(
        chip=chip,
        architecture={"GH": "HOPPER", "GB": "BLACKWELL"}.get(chip[:2], ""),
        serial=_text(claims, "ueid", _SERIAL) or "",
        driver=_text(claims, f"{_GPU}driver-version", _VERSION),
        vbios=_text(claims, f"{_GPU}vbios-version", _VERSION),
        mode=_mode(claims),
        # The service compares, and does not say how many.
        compared=0 if claims.get("measres") == "success" else None,
        revocation_checked=all(
            _chain_is(claims, name, "x-nvidia-cert-ocsp-status", "good") for name, _ in _CHAINS
        ),
        firmware_bound=claims.get(_GPU + _FWID) is True,
        objections=tuple(_objections(claims, bound)),
    )


def is_debugged(claims: Mapping[str, object]) -> bool:
    """Return whether the service says that debugging is on, or something that is not known."""
    return claims.get("dbgstat", "disabled") not in ("disabled", None)


def _objections(claims: Mapping[str, object], bound: bool) -> Iterator[str]:
    if not bound:
        yield "eat_nonce"
    for name, wanted in (("measres", "success"), ("secboot", True), ("dbgstat", "disabled")):
        if claims.get(name) != wanted:
            yield name
    for name in _REQUIRED:
        if claims.get(_GPU + name) is not True:
            yield _GPU + name
    for name, older in _CHAINS:
        if claims.get(_GPU + older) is not True and not _chain_is(
            claims, name, "x-nvidia-cert-status", "valid"
        ):
            yield _GPU + name
    for name, value in claims.items():
        if name.startswith(_GPU) and value is False and name.removeprefix(_GPU) not in _REQUIRED:
            yield name[:80]
    if claims.get("x-nvidia-error-details") is not None:
        yield "x-nvidia-error-details"


def _chain_is(claims: Mapping[str, object], name: str, field: str, wanted: str) -> bool:
    chain = claims.get(_GPU + name)
    return isinstance(chain, dict) and chain.get(field) == wanted


def _chip(claims: Mapping[str, object]) -> str:
    value = claims.get("hwmodel")
    found = _CHIP.fullmatch(value) if isinstance(value, str) else None
    return "" if found is None else found[1]


def _mode(claims: Mapping[str, object]) -> Mode | None:
    value = claims.get(f"{_GPU}mode")
    return _MODES.get(value) if isinstance(value, str) else None


def _text(claims: Mapping[str, object], name: str, form: re.Pattern[str]) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and form.fullmatch(value) else None
