"""What a verified Nitro document says, beyond what all platforms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from ...wire.errors import VerificationError
from ..evidence import Measurements, VerifiedEvidence

# The registers that AIR v1 carries and policies name (AIR-V1, enclave_measurements).
NITRO_REGISTERS: Final = (0, 1, 2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class NitroDetails:
    """The document's own fields.

    :param registers: the full PCR table by index, 32, 48 or 64 bytes each.
    :param public_key: :param user_data: :param nonce: what the enclave asked to be signed, or None.
    """

    registers: Mapping[int, bytes] = field(repr=False)
    public_key: bytes | None = field(repr=False)
    user_data: bytes | None = field(repr=False)
    nonce: bytes | None = field(repr=False)
    module_id: str

    @classmethod
    def of(cls, verified: VerifiedEvidence) -> NitroDetails:
        """Return the details of evidence in Nitro's format.

        :raises VerificationError: ``WRONG_PLATFORM``: the evidence is of another format.
        """
        if not isinstance(verified.details, cls):
            raise VerificationError("WRONG_PLATFORM", "the evidence is no Nitro document")
        return verified.details

    def binds_key(self, receipt_key: bytes) -> bool:
        """Return whether ``public_key`` is this raw key."""
        return self.public_key is not None and compare_digest(self.public_key, receipt_key)

    def binds_announcement(self, digest: bytes) -> bool:
        """Return whether ``user_data`` is this digest."""
        return self.user_data is not None and compare_digest(self.user_data, digest)

    def binds_nonce(self, nonce: bytes) -> bool:
        """Return whether ``nonce`` is this challenge."""
        return self.nonce is not None and compare_digest(self.nonce, nonce)


def nitro_measurements(pcrs: Mapping[int, bytes]) -> Measurements:
    """Return the slots that AIR v1 carries of a full PCR table.

    :param pcrs: by index, 0 to 31. Registers that have no slot are left out.
    """
    return Measurements(
        "nitro-pcr", {f"pcr{index}": pcrs[index] for index in NITRO_REGISTERS if index in pcrs}
    )
