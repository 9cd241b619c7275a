"""What is wanted of a Nitro Enclave: whole measurement sets."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, model_validator

from ..closed import UNCHECKED, Closed, Name, Register, unique_names
from .details import NITRO_REGISTERS


class MeasurementSet(Closed):
    """The registers of one release: SHA-384 in hexadecimal, or ``"UNCHECKED"``.

    One of PCR0 (the image), PCR2 (the application) and PCR8 (the image's signer) must be checked;
    a set without any would accept everybody's image.
    """

    name: Name
    pcr0: Register
    pcr1: Register
    pcr2: Register
    pcr3: Register = UNCHECKED
    pcr4: Register = UNCHECKED
    pcr8: Register = UNCHECKED

    @model_validator(mode="after")
    def _checks_something(self) -> MeasurementSet:
        if {self.pcr0, self.pcr2, self.pcr8} == {UNCHECKED}:
            raise ValueError("a measurement set must check pcr0, pcr2 or pcr8")
        return self

    @property
    def registers(self) -> dict[str, str]:
        """The six registers by slot, in order."""
        return {slot: getattr(self, slot) for slot in (f"pcr{index}" for index in NITRO_REGISTERS)}


MeasurementSets = Annotated[tuple[MeasurementSet, ...], AfterValidator(unique_names)]
