"""What every key release offers, whoever keeps the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DataKey:
    """A fresh data key: its 32 secret bytes and the blob that only the KMS can unwrap."""

    plaintext: bytes = field(repr=False)
    wrapped: bytes


class KeyRelease(Protocol):
    """Releases keys to this TEE against a fresh attestation of it.

    The context is public, is bound to the wrapped blob as additional authenticated
    data, and must be the same for both calls.
    """

    def generate_data_key(self, context: Mapping[str, str]) -> DataKey:
        """Return a fresh 32-byte key and its wrapped form.

        :raises KeyReleaseError: the KMS did not release it.
        """
        ...

    def decrypt(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return the key that ``wrapped`` holds.

        :raises KeyReleaseError: the KMS did not release it.
        """
        ...
