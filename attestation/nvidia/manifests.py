"""Finds the manifests of a device among the endorsements, and verifies each once."""

from __future__ import annotations

from ...wire.errors import EndorsementsError
from .endorsements import NvidiaEndorsements
from .identity import Identity
from .opaque import OpaqueData
from .rim import Manifest, verify_manifest


class Manifests:
    """The manifests of one verification.

    :param now: Unix seconds.
    """

    def __init__(self, endorsements: NvidiaEndorsements, now: int) -> None:
        self._endorsements = endorsements
        self._now = now
        self._verified: dict[str, Manifest] = {}

    def find(self, name: str, version: str, chip: str) -> Manifest | None:
        """Return the manifest of this name, verified; None where it is not at hand.

        :param version: :param chip: that the signed manifest itself must name: file names prove nothing.
        :raises EndorsementsError: ``COLLATERAL_MISMATCH``. :raises Error: as :func:`.rim.verify_manifest`.
        """
        data = self._endorsements.rims.get(name)
        if data is None:
            return None
        if name not in self._verified:
            self._verified[name] = verify_manifest(data, self._endorsements.rim_roots, self._now)
        found = self._verified[name]
        if (found.version, found.product) != (version, chip):
            raise EndorsementsError(
                "COLLATERAL_MISMATCH", "a manifest is of another version or chip than its name"
            )
        return found


def manifest_names(opaque: OpaqueData, identity: Identity, architecture: str) -> tuple[tuple[str, str], ...]:
    """Return names and versions of the manifests that a device needs; none where it does not say enough.

    Names: NVIDIA RIM Service API, "RIM ID Naming Convention", and NVIDIA's own verifier for what that
    leaves open. :param identity: :param architecture: both verified.
    """
    driver, vbios, board = opaque.driver, opaque.vbios, opaque.board
    if vbios is None:
        return ()
    if architecture == "LS10":
        return ((f"NV_SWITCH_BIOS_5612_0002_890_{vbios.replace('.', '')}", vbios),)
    if driver is None or board is None:
        return ()
    kind = "NV_GPU_DRIVER_GH100" if architecture == "HOPPER" else f"NV_GPU_CC_DRIVER_{driver_chip(opaque)}"
    return (
        (f"{kind}_{driver}", driver),
        (f"NV_GPU_VBIOS_{'_'.join(board)}_{vbios.replace('.', '')}".upper(), vbios),
    )


def driver_chip(opaque: OpaqueData) -> str:
    """Return the chip in the name of a Blackwell driver's manifest; early firmware states none."""
    return opaque.chip or "GB100"
