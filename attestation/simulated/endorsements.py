"""The development roots of the simulated TEE; none by default."""

from __future__ import annotations

from dataclasses import dataclass

from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError, MalformedError
from ..nitro.endorsements import AWS_NITRO_ROOT_G1, check_fingerprints
from ..nitro.parse import parse


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


def is_under(data: bytes, root_fingerprint: bytes) -> bool:
    """Return whether a document claims to be under a development root; a claim until it is verified.

    :param root_fingerprint: SHA-256, 32 bytes.
    """
    try:
        return sha256(parse(data).cabundle[0]) == root_fingerprint
    except MalformedError:
        return False
