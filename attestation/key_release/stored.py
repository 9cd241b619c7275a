"""Where fleet keys and orders lie in the blob store, and in which form (spec/fleet-key.md).

Everything there is untrusted: names and blobs are read strictly, and believed for
what is signed in them only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ...wire.announcement import MAX_BIRTH_BYTES
from ...wire.encoding import decode, encode, sha256
from ...wire.errors import MalformedError
from ...wire.header import check_pool
from .epochs import MAX_EPOCH

VERSION: Final = 1
MAX_STORED_BYTES: Final = MAX_BIRTH_BYTES + 8_192
"""A birth certificate with all that its evidence may bring, and a wrapped key (AWS: at most 6144 bytes)."""

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A wrapped seed and the birth certificate of its key; one blob, so that neither changes alone."""

    wrapped: bytes = field(repr=False)
    birth: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the deterministic CBOR ``[version, wrapped, birth]``."""
        return encode([VERSION, self.wrapped, self.birth])

    @classmethod
    def decode(cls, data: bytes) -> StoredKey:
        """Read what :meth:`encode` makes.

        :raises MalformedError: it is anything else, e.g. half of it.
        """
        value = decode(data, max_bytes=MAX_STORED_BYTES)
        match value:
            # Also by type: the literal would match true and 1.0, which are other bytes.
            case [1, bytes() as wrapped, bytes() as birth] if type(value[0]) is int:
                return cls(wrapped, birth)
        raise MalformedError("FLEET_KEY_FORM", "the stored fleet key is not of its form")


def keys_prefix(pool: str) -> str:
    """Return the prefix of a pool's wrapped keys."""
    return f"fleet/{check_pool(pool)}/"


def key_name(pool: str, epoch: int) -> str:
    """Return where an epoch's wrapped key and birth certificate lie."""
    return f"{keys_prefix(pool)}{epoch}"


def fleet_context(pool: str, epoch: int) -> dict[str, str]:
    """Return the KMS's encryption context of an epoch's key."""
    return {"purpose": "fleet", "pool": check_pool(pool), "epoch": str(epoch)}


def claim_name(pool: str, epoch: int) -> str:
    """Return where the worker that is about to make an epoch's key says so; a hint and nothing more."""
    return f"fleet-claims/{check_pool(pool)}/{epoch}"


def retired_prefix(pool: str) -> str:
    """Return the prefix of the marks of keys that were deleted."""
    return f"fleet-retired/{check_pool(pool)}/"


def retired_name(pool: str, epoch: int) -> str:
    """Return where it is marked that an epoch's key was deleted."""
    return f"{retired_prefix(pool)}{epoch}"


def orders_prefix(pool: str) -> str:
    """Return the prefix of the orders to a pool's workers."""
    return f"orders/{check_pool(pool)}/"


def order_name(pool: str, serial: int, order: bytes) -> str:
    """Return where an order lies: two of one serial stand side by side."""
    return f"{orders_prefix(pool)}{serial:016d}-{sha256(order).hex()[:16]}"


def epochs_named(names: Iterable[str]) -> list[int]:
    """Return the epochs that blobs under one prefix are named after, newest first; others are left out."""
    last = (name.rsplit("/", 1)[-1] for name in names)
    found = {int(part) for part in last if _NUMBER.fullmatch(part)}
    return sorted((epoch for epoch in found if epoch <= MAX_EPOCH), reverse=True)
