"""What is wanted of a trust domain: whole measurement sets, and how its platform may stand."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from ..closed import Closed, Name, Register, Sha384Hex, Unchecked, unique_names

Hex8Bytes = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{16}$", to_lower=True)]
AdvisoryId = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$")]
Companion = Literal["confidential-space", "nvidia"]
AcceptedStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
]


class TdxMeasurementSet(Closed):
    """The measurements of one release: SHA-384 in hexadecimal, or ``"UNCHECKED"``; MRTD is always checked."""

    name: Name
    mrtd: Sha384Hex
    rtmr0: Register
    rtmr1: Register
    rtmr2: Register
    rtmr3: Register

    @property
    def registers(self) -> dict[str, str]:
        """The five registers by name, in order."""
        return {name: getattr(self, name) for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")}


class TdxPolicy(Closed):
    """What TDX quotes must be; empty, it refuses everything.

    :param mrseams: TDX modules that may run, SHA-384. :param xfams: :param attributes: values that may be, 8
        bytes in hexadecimal as they stand in the quote. Each is a list, or ``"UNCHECKED"``.
    :param accepted_tcb_statuses: by Intel's names; ``Revoked`` is never accepted.
    :param allowed_advisory_ids: advisories that may apply; ``"UNCHECKED"``: the status alone decides.
    :param min_evaluation_number: lowest ``tcbEvaluationDataNumber`` of the collateral.
    :param max_collateral_age_s: oldest collateral, in seconds since Intel issued it.
    :param requires: platforms whose evidence must come along.
    """

    measurement_sets: Annotated[tuple[TdxMeasurementSet, ...], AfterValidator(unique_names)] = ()
    mrseams: Unchecked | tuple[Sha384Hex, ...] = ()
    xfams: Unchecked | tuple[Hex8Bytes, ...] = ()
    attributes: Unchecked | tuple[Hex8Bytes, ...] = ()
    accepted_tcb_statuses: tuple[AcceptedStatus, ...] = ("UpToDate",)
    allowed_advisory_ids: Unchecked | tuple[AdvisoryId, ...] = ()
    min_evaluation_number: int | None = Field(default=None, ge=0, le=2**31)
    max_collateral_age_s: int | None = Field(default=None, ge=1, le=10 * 365 * 86_400)
    requires: tuple[Companion, ...] = ()
