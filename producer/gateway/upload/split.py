"""Cuts an upload into its items as it arrives: a CBOR sequence (RFC 8742) or lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol

from ....wire.errors import MalformedError
from ....wire.sequence import SequenceSplitter

Form = Literal["cbor", "ndjson"]

#: The largest item of an upload, in bytes; base64url makes a line a third larger.
MAX_ITEM_BYTES: Final = 16 << 20
MAX_LINE_BYTES: Final = 24 << 20


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


class CborSplitter(SequenceSplitter):
    """Cuts a CBOR sequence; items have definite lengths and no tags."""

    def __init__(self) -> None:
        super().__init__(MAX_ITEM_BYTES)

    def end(self) -> Iterator[bytes]:
        """See :meth:`Splitter.end`."""
        if not self.whole:
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
