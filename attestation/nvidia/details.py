"""What verified NVIDIA evidence says, beyond what all platforms share."""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Literal

from ...wire.errors import VerificationError
from ..evidence import VerifiedEvidence
from .opaque import Mode

Way = Literal["local", "nras"]


@dataclass(frozen=True, slots=True)
class NvidiaDevice:
    """One device, after verification.

    :param architecture: ``"HOPPER"``, ``"BLACKWELL"`` or ``"LS10"``; ``""`` where NRAS names no known one.
    :param serial: as the certificate writes it, or NRAS's ``ueid``.
    :param mode: ``"spt"``, ``"mpt"`` or ``"ppcie"``; None where it is not stated.
    :param compared: how many measurements were held against manifests; None where none was.
    :param differing: indices of measurements that the manifests do not allow.
    :param revocation_checked: whether every certificate in question is known to be good.
    :param firmware_bound: whether the report's firmware is the one that the signing key belongs to.
    :param objections: claims of NRAS that are missing or not as they must be.
    """

    chip: str
    architecture: str
    serial: str = field(repr=False)
    driver: str | None
    vbios: str | None
    mode: Mode | None
    compared: int | None
    differing: tuple[int, ...] = ()
    revocation_checked: bool = False
    firmware_bound: bool = False
    objections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NvidiaDetails:
    """Which devices, judged in which way.

    :param way: ``"local"``: reports, verified here; ``"nras"``: what the vendor's service says of them.
    :param kind: ``"gpu"`` or ``"switch"``.
    :param nonce: that the devices answered, 32 bytes: the SHA-256 of the CPU's evidence.
    :param result: the service's overall word; None for reports.
    """

    way: Way
    kind: str
    nonce: bytes = field(repr=False)
    devices: tuple[NvidiaDevice, ...]
    result: bool | None = None

    @classmethod
    def of(cls, verified: VerifiedEvidence) -> NvidiaDetails:
        """Return the details of NVIDIA evidence.

        :raises VerificationError: ``WRONG_PLATFORM``: the evidence is of another format.
        """
        if not isinstance(verified.details, cls):
            raise VerificationError("WRONG_PLATFORM", "the evidence is not NVIDIA's")
        return verified.details

    def binds_key(self, receipt_key: bytes) -> bool:
        """Return False: a GPU vouches for no key of a worker's."""
        return False

    def binds_announcement(self, digest: bytes) -> bool:
        """Return False: a GPU vouches for no announcement."""
        return False

    def binds_nonce(self, nonce: bytes) -> bool:
        """Return whether the devices answered this nonce."""
        return compare_digest(self.nonce, nonce)
