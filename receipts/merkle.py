"""Merkle trees as in Certificate Transparency (RFC 9162, section 2.1), over SHA-256.

A leaf is hashed as ``SHA-256(00 || data)``, a node as ``SHA-256(01 || left || right)``.
:class:`RootBuilder` needs memory for O(log n) hashes only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from ..wire.errors import MalformedError, VerificationError

HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the 32-byte hash of a leaf's data (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the 32-byte hash of an inner node (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class RootBuilder:
    """Computes a root from leaf hashes that come one by one (RFC 9162, section 2.1.2)."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # roots of full subtrees, largest first

    def add(self, leaf: bytes) -> None:
        """Append the next leaf's hash (32 bytes)."""
        self.size += 1
        size = self.size
        while size % 2 == 0:
            leaf = node_hash(self._peaks.pop(), leaf)
            size //= 2
        self._peaks.append(leaf)

    def root(self) -> bytes:
        """Return the root over the leaves so far; of none it is ``SHA-256("")``."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    builder = RootBuilder()
    for leaf in leaves:
        builder.add(leaf)
    return builder.root()


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the inclusion path of one leaf, from the leaf upwards (RFC 9162, section 2.1.3.1).

    :param leaves: all leaf hashes.
    :raises MalformedError: ``OUT_OF_BOUNDS``: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise MalformedError("OUT_OF_BOUNDS", "the tree has no such leaf")
    path: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if index < split:
            path.append(tree_root(leaves[split:end]))
            end = split
        else:
            path.append(tree_root(leaves[start:split]))
            start = split
    return tuple(reversed(path))


def root_from_path(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """Return the root that an inclusion path leads to (RFC 9162, section 2.1.3.2).

    :param size: number of leaves. :param leaf: its hash, 32 bytes.
    :raises VerificationError: ``BAD_INCLUSION_PATH``: too short, too long, or no such leaf.
    """
    if not 0 <= index < size or any(len(part) != HASH_BYTES for part in (leaf, *path)):
        raise VerificationError("BAD_INCLUSION_PATH", "the inclusion path is not of its form")
    place, last, root = index, size - 1, leaf
    for part in path:
        if last == 0:
            raise VerificationError("BAD_INCLUSION_PATH", "the inclusion path is too long")
        if place & 1 or place == last:
            root = node_hash(part, root)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            root = node_hash(root, part)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise VerificationError("BAD_INCLUSION_PATH", "the inclusion path is too short")
    return root


def check_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree.

    :raises VerificationError: ``BAD_INCLUSION_PATH`` or ``NOT_INCLUDED``.
    """
    if not hmac.compare_digest(root_from_path(index, size, leaf, path), root):
        raise VerificationError("NOT_INCLUDED", "the leaf is not in the tree of this root")
