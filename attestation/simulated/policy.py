"""Accepting a simulated TEE, which must be asked for by name."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ..closed import Closed, Sha256Hex
from ..nitro.endorsements import AWS_NITRO_ROOT_G1
from ..nitro.policy import MeasurementSets


class SimulatedPolicy(Closed):
    """Accepts a simulated TEE, which proves nothing: for development only.

    :param root_fingerprint: SHA-256 of the development root, hexadecimal.
    """

    dangerous_allow: Literal[True]
    root_fingerprint: Sha256Hex
    measurement_sets: MeasurementSets = ()

    @model_validator(mode="after")
    def _is_development(self) -> SimulatedPolicy:
        if bytes.fromhex(self.root_fingerprint) == AWS_NITRO_ROOT_G1:
            raise ValueError("the AWS Nitro root is no development root")
        return self
