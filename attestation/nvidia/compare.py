"""Compares a report's measurements with the manifests of its driver and VBIOS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from ...wire.errors import EndorsementsError
from .identity import Identity
from .manifests import Manifests, manifest_names
from .rim import Manifest
from .spdm import Report

# The video decoder's; a GPU whose decoder is off measures nothing there (NVIDIA's verifier, "MSR 35").
NVDEC0_INDEX: Final = 35


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it.

    :param count: how many measurements were compared; None: not all manifests are at hand.
    :param differing: indices that no alternative of the manifests matches, or that the report lacks; less
        the video decoder's where it is off.
    """

    manifests: tuple[Manifest, ...] = ()
    count: int | None = None
    differing: tuple[int, ...] = ()


def compare_measurements(
    report: Report, identity: Identity, architecture: str, manifests: Manifests
) -> Comparison:
    """Compare every active measurement of every manifest that the device needs.

    :raises EndorsementsError: ``COLLATERAL_MISMATCH``: the manifests contradict each other.
    :raises Error: as :meth:`.manifests.Manifests.find`.
    """
    names = manifest_names(report.opaque, identity, architecture)
    chip = identity.chip.replace("_", "")  # a switch's certificate writes LS_10, its manifests LS10
    found = [manifests.find(name, version, chip) for name, version in names]
    at_hand = tuple(one for one in found if one is not None)
    if not names or len(at_hand) != len(names):
        return Comparison(at_hand)
    wanted = _merged(at_hand)
    differing = [index for index in sorted(wanted) if not _matches(report.measurements, index, wanted[index])]
    if report.opaque.nvdec0 is False and NVDEC0_INDEX in differing:
        differing.remove(NVDEC0_INDEX)
    return Comparison(at_hand, len(wanted), tuple(differing))


def _merged(manifests: tuple[Manifest, ...]) -> dict[int, tuple[bytes, ...]]:
    merged: dict[int, tuple[bytes, ...]] = {}
    for manifest in manifests:
        if merged.keys() & manifest.measurements.keys():
            raise EndorsementsError("COLLATERAL_MISMATCH", "two manifests claim one measurement")
        merged |= manifest.measurements
    return merged


def _matches(measured: Mapping[int, bytes], index: int, allowed: tuple[bytes, ...]) -> bool:
    found = measured.get(index, b"")
    return any(compare_digest(found, one) for one in allowed)
