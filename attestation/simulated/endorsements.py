"""The development roots of the simulated TEE; none by default."""

from __future__ import annotations

from dataclasses import dataclass

from ...wire.errors import ConfigurationError
from ..nitro.endorsements import AWS_NITRO_ROOT_G1, check_fingerprints


@dataclass(frozen=True, slots=True)
class SimulatedEndorsements:
    """Development roots; none by default.

    :param roots: SHA-256 fingerprints, 32 bytes each.
    :raises ConfigurationError: ``BAD_FINGERPRINT``; the vendor's root is no development root.
    """

    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        check_fingerprints(self.roots)
        if AWS_NITRO_ROOT_G1 in self.roots:
            raise ConfigurationError("BAD_FINGERPRINT", "the AWS Nitro root is no development root")
