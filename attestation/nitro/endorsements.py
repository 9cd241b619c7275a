"""The trust anchors of Nitro Enclaves; the platform needs no other endorsement."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ...wire.errors import ConfigurationError

# SHA-256 of the DER of "aws.nitro-enclaves" root G1, valid 2019-10-28 to 2049-10-28
# (AWS Nitro Enclaves User Guide, "Verifying the root of trust").
AWS_NITRO_ROOT_G1: Final = bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")
FINGERPRINT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class NitroEndorsements:
    """The trust anchors of the platform.

    :param roots: SHA-256 fingerprints of root certificates, 32 bytes each.
    :raises ConfigurationError: ``BAD_FINGERPRINT``.
    """

    roots: tuple[bytes, ...] = (AWS_NITRO_ROOT_G1,)

    def __post_init__(self) -> None:
        check_fingerprints(self.roots)


def check_fingerprints(roots: Collection[bytes]) -> None:
    """Refuse what cannot be a SHA-256 fingerprint.

    :raises ConfigurationError: ``BAD_FINGERPRINT``.
    """
    if any(not isinstance(root, bytes) or len(root) != FINGERPRINT_BYTES for root in roots):
        raise ConfigurationError("BAD_FINGERPRINT", "a root's SHA-256 fingerprint has 32 bytes")
