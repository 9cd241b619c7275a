"""CBOR sequences (RFC 8742) that arrive in pieces, cut into their items.

Only heads of items are looked at, so that a large byte string costs nothing until it is whole.
What an item says is for :func:`.encoding.decode`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .errors import MalformedError

#: Heads of one item that are looked at: two strings and 1024 custom ids, with room to spare.
MAX_HEADS: Final = 2048
MAX_DEPTH: Final = 4
_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6


class SequenceSplitter:
    """Takes a stream in pieces of any size and yields its items, each whole.

    :param max_bytes: of one item.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._needed = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the items that are whole with these bytes.

        :raises MalformedError: ``ITEM_TOO_LARGE``, or as :func:`item_size`.
        """
        self._held += data
        while len(self._held) >= self._needed:
            size, whole = item_size(self._held, self._max_bytes)
            if size > self._max_bytes:
                raise MalformedError(
                    "ITEM_TOO_LARGE", f"an item of a sequence has at most {self._max_bytes} bytes here"
                )
            if not whole:
                self._needed = size
                return
            item = bytes(memoryview(self._held)[:size])
            del self._held[:size]
            self._needed = 1
            yield item

    @property
    def whole(self) -> bool:
        """Whether the stream may end here: within no item."""
        return not self._held


def item_size(data: bytes | bytearray, max_bytes: int) -> tuple[int, bool]:
    """Return the size of the item that ``data`` begins with, and True, once all its heads are there.

    Otherwise return how many bytes must be there to look further, and False.

    :param max_bytes: of the whole item; beyond it nothing more is looked at.
    :raises MalformedError: ``CBOR_BAD_TYPE``, ``CBOR_NOT_DETERMINISTIC``, ``CBOR_TOO_DEEP`` or
        ``CBOR_TOO_LARGE``.
    """
    position, heads = 0, 0
    open_items = [1]  # how many items are still to come, by depth
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        open_items[-1] -= 1
        heads += 1
        if heads > MAX_HEADS:
            raise MalformedError("CBOR_TOO_LARGE", f"an item of a sequence has more than {MAX_HEADS} parts")
        if position >= len(data):
            return position + 1, False
        major, info = data[position] >> 5, data[position] & 31
        if major == _TAG or info > 27:
            raise MalformedError("CBOR_BAD_TYPE", "a sequence has neither tags nor indefinite lengths here")
        extra = 0 if info < 24 else 1 << (info - 24)
        if position + 1 + extra > len(data):
            return position + 1 + extra, False
        position += 1
        argument = int.from_bytes(data[position : position + extra], "big") if extra else info
        position += extra
        if major in (_BYTES, _TEXT):
            position += argument
        elif major in (_ARRAY, _MAP):
            if len(open_items) > MAX_DEPTH:
                raise MalformedError("CBOR_TOO_DEEP", f"an item of a sequence nests deeper than {MAX_DEPTH}")
            open_items.append(min(argument * (2 if major == _MAP else 1), MAX_HEADS))
        if position > max_bytes:
            return position, False
    return position, position <= len(data)
