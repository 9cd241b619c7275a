"""Reads a package from a file or from pieces as they arrive, never holding more than one piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeAlias

from ...wire.errors import Error, ModelError

Source: TypeAlias = BinaryIO | Iterable[bytes]
"""A binary file or stream, or an iterable of bytes of any sizes (a blob store's body)."""


class SourceReader:
    """Exact reads from a :data:`Source`.

    Whatever a source raises becomes ``PACKAGE_UNREADABLE`` (retriable), because its own text may
    hold paths or addresses; errors of ours pass through.
    """

    def __init__(self, source: Source) -> None:
        self._readinto = getattr(source, "readinto", None)
        self._pieces = None if self._readinto else _pieces(source)
        self._rest = memoryview(b"")

    def fill(self, window: memoryview) -> None:
        """Fill ``window`` whole.

        :raises ModelError: ``PACKAGE_TRUNCATED`` or ``PACKAGE_UNREADABLE``.
        """
        done = 0
        while done < len(window):
            count = self._some(window[done:])
            if not count:
                raise ModelError("PACKAGE_TRUNCATED", "the package ends too early")
            done += count

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; raises as :meth:`fill`."""
        buffer = bytearray(size)
        self.fill(memoryview(buffer))
        return bytes(buffer)

    def at_end(self) -> bool:
        """Whether nothing follows; takes a byte where something does."""
        return not self._some(memoryview(bytearray(1)))

    def _some(self, window: memoryview) -> int:
        try:
            if self._readinto is not None:
                return self._readinto(window) or 0
            return self._from_pieces(window)
        except Error:
            raise
        except Exception:  # anything may come out of a network client
            raise ModelError("PACKAGE_UNREADABLE", "the package cannot be read", retriable=True) from None

    def _from_pieces(self, window: memoryview) -> int:
        while not self._rest:
            piece = next(self._pieces, None) if self._pieces is not None else None
            if piece is None:
                return 0
            self._rest = memoryview(piece).cast("B")
        count = min(len(window), len(self._rest))
        window[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _pieces(source: Source) -> Iterator[bytes]:
    read = getattr(source, "read", None)
    if read is None:
        return iter(source)
    return iter(lambda: read(1 << 20), b"")
