"""Cuts an upload into its items as it arrives: a CBOR sequence (RFC 8742) or lines of JSON.

Only heads of items are looked at here, so that a large byte string costs nothing until it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol

from ....wire.errors import MalformedError

Form = Literal["cbor", "ndjson"]

#: The largest item of an upload, in bytes; base64url makes a line a third larger.
MAX_ITEM_BYTES: Final = 16 << 20
MAX_LINE_BYTES: Final = 24 << 20
#: Heads of one item that are looked at: two strings and 1024 custom ids, with room to spare.
MAX_HEADS: Final = 2048
MAX_DEPTH: Final = 4
_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7


class Splitter(Protocol):
    """Takes a stream in pieces of any size and yields its items, each whole."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the items that are whole with these bytes.

        :raises MalformedError: what came is no item, or one over the bound.
        """

    def end(self) -> Iterator[bytes]:
        """Yield what the end of the stream makes whole.

        :raises MalformedError: ``TRUNCATED_UPLOAD``: the stream ended within an item.
        """


def splitter(form: Form) -> Splitter:
    """Return the splitter of a form."""
    return CborSplitter() if form == "cbor" else LineSplitter()


class CborSplitter:
    """Cuts a CBOR sequence; items have definite lengths and no tags."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See :meth:`Splitter.feed`."""
        self._held += data
        while len(self._held) >= self._needed:
            size, whole = item_size(self._held)
            if size > MAX_ITEM_BYTES:
                raise MalformedError("ITEM_TOO_LARGE", "an item of an upload has at most 16 MiB")
            if not whole:
                self._needed = size
                return
            item = bytes(memoryview(self._held)[:size])
            del self._held[:size]
            self._needed = 1
            yield item

    def end(self) -> Iterator[bytes]:
        """See :meth:`Splitter.end`."""
        if self._held:
            raise _truncated()
        return iter(())


class LineSplitter:
    """Cuts lines; the last one may lack its newline. Empty lines are passed over."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See :meth:`Splitter.feed`."""
        self._held += data
        start = 0
        while (stop := self._held.find(b"\n", max(start, self._searched))) >= 0:
            line = bytes(memoryview(self._held)[start:stop])
            start = stop + 1
            if len(line) > MAX_LINE_BYTES:
                raise _long_line()
            if line.strip():
                yield line
        del self._held[:start]
        self._searched = len(self._held)
        if self._searched > MAX_LINE_BYTES:
            raise _long_line()

    def end(self) -> Iterator[bytes]:
        """See :meth:`Splitter.end`."""
        line = bytes(self._held)
        self._held.clear()
        self._searched = 0
        if line.strip():
            yield line


def _long_line() -> MalformedError:
    return MalformedError("ITEM_TOO_LARGE", "a line of an upload has at most 24 MiB")


def _truncated() -> MalformedError:
    return MalformedError("TRUNCATED_UPLOAD", "the upload ends before all that it announced")


def item_size(data: bytes | bytearray) -> tuple[int, bool]:
    """Return the size of the item that ``data`` begins with, and True, once all its heads are there.

    Otherwise return how many bytes must be there to look further, and False.

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
            raise MalformedError("CBOR_TOO_LARGE", f"an item of an upload has more than {MAX_HEADS} parts")
        if position >= len(data):
            return position + 1, False
        major, info = data[position] >> 5, data[position] & 31
        if major == _TAG or info > 27:
            raise MalformedError("CBOR_BAD_TYPE", "an upload has neither tags nor indefinite lengths")
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
                raise MalformedError("CBOR_TOO_DEEP", f"an item of an upload nests deeper than {MAX_DEPTH}")
            open_items.append(min(argument * (2 if major == _MAP else 1), MAX_HEADS))
        if position > MAX_ITEM_BYTES:
            return position, False
    return position, position <= len(data)
