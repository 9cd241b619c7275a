"""What is wanted of GPUs: whole sets of versions, and which checks may not be missing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from ..closed import UNCHECKED, Closed, Name, Unchecked, unique_names
from .details import Way
from .opaque import Mode

DriverVersion = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,3}$")]
VbiosVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{2}(\.[0-9A-F]{2}){4}$")]
Check = Literal["required", "UNCHECKED"]


class NvidiaVersions(Closed):
    """One release of driver and VBIOS on one architecture; every GPU must run it whole.

    :param driver: e.g. ``"550.90.07"``. :param vbios: e.g. ``"96.00.9F.00.01"``. One of them must be checked.
    """

    name: Name
    architecture: Literal["HOPPER", "BLACKWELL"]
    driver: Unchecked | DriverVersion
    vbios: Unchecked | VbiosVersion

    @model_validator(mode="after")
    def _checks_something(self) -> NvidiaVersions:
        if self.driver == self.vbios == UNCHECKED:
            raise ValueError("a set must check the driver or the VBIOS")
        return self


class NvidiaPolicy(Closed):
    """What GPU evidence must be; empty, it refuses everything.

    :param measurement_sets: releases that are wanted; all GPUs of the evidence must be of one.
    :param accept: ways in which evidence may be judged: reports verified here (``"local"``), answers of the
        vendor's service (``"nras"``).
    :param modes: how a GPU may be passed through; older firmware does not say, and needs ``"UNCHECKED"``.
    :param min_gpus: fewest GPUs that must be attested, each another device.
    :param rim: whether measurements must have been compared with the vendor's manifests; what was compared
        and differs is refused in any case.
    :param ocsp: whether every certificate must be known not to be revoked.
    :param firmware: whether key and firmware must be known to belong together.
    :param required_with: platforms of CPUs that must bring GPU evidence along.
    """

    measurement_sets: Annotated[tuple[NvidiaVersions, ...], AfterValidator(unique_names)] = ()
    accept: tuple[Way, ...] = ()
    modes: Unchecked | tuple[Mode, ...] = ()
    min_gpus: int = Field(default=1, ge=1, le=8)
    rim: Check = "required"
    ocsp: Check = "required"
    firmware: Check = "required"
    required_with: tuple[Literal["nitro", "tdx", "confidential-space"], ...] = ()
