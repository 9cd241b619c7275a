"""Uploads: ``multipart/form-data`` (RFC 7578) read as a stream, straight to the proxy's own folder.

The frameworks' readers put large uploads into a temporary folder; plaintext goes nowhere else here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .errors import ApiError
from .files import Draft, FileStore, StoredFile

MAX_FIELD_BYTES: Final = 1024
MAX_PARTS: Final = 16


class _Form:
    """What the parser calls: one file goes to a draft, other parts into short texts."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.fields: dict[str, bytes] = {}
        self.file_name: str | None = None
        self._name, self._header, self._value = "", b"", b""
        self._is_file, self._parts = False, 0

    def on_part_begin(self) -> None:
        """A part begins."""
        self._parts += 1
        self._name, self._is_file = "", False
        if self._parts > MAX_PARTS:
            raise _bad("the form has too many parts")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """A header is whole."""
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options or self._name == "file":
                self._begin_file(options.get(b"filename", b"file"))
        self._header = self._value = b""

    def _begin_file(self, name: bytes) -> None:
        if self._name != "file" or self.file_name is not None:
            raise _bad("the form must hold one file, named 'file'")
        self._is_file = True
        text = name.decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1]
        self.file_name = "".join(char for char in text if char.isprintable())[:255] or "file"

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part."""
        if self._is_file:
            self.draft.write(data[start:end])
            return
        self.fields[self._name] = self.fields.get(self._name, b"") + data[start:end]
        if len(self.fields[self._name]) > MAX_FIELD_BYTES:
            raise _bad("a field of the form is too long")


async def receive_upload(
    store: FileStore, content_type: str, body: AsyncIterator[bytes], max_bytes: int
) -> StoredFile:
    """Store the file of a form whose purpose is ``batch``.

    :param body: pieces of the request's body. :param max_bytes: of the file.
    :raises ApiError: the form is not one of those. :raises DeliveryError: it cannot be stored.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise _bad("send multipart/form-data")
    form = _Form(store.draft())
    try:
        await _read(form, options[b"boundary"], body, max_bytes)
        if form.file_name is None or not form.draft.size:
            raise ApiError(400, "The file is empty or missing.", param="file", code="empty_file")
        unknown = form.fields.keys() - {"purpose"}
        if unknown:
            name = min(unknown)[:64]
            raise ApiError(
                400, f"Unrecognized request argument supplied: {name}", param=name, code="unknown_parameter"
            )
        if form.fields.get("purpose") != b"batch":
            raise ApiError(400, "'purpose' must be 'batch'.", param="purpose", code="invalid_value")
        return form.draft.keep(form.file_name, "batch")
    except BaseException:
        form.draft.drop()
        raise


async def _read(form: _Form, boundary: bytes, body: AsyncIterator[bytes], max_bytes: int) -> None:
    ended = False

    def on_end() -> None:
        nonlocal ended
        ended = True

    names = ("on_part_begin", "on_part_data", "on_header_field", "on_header_value", "on_header_end")
    callbacks = {name: getattr(form, name) for name in names} | {"on_end": on_end}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        async for piece in body:
            parser.write(piece)
            if form.draft.size > max_bytes:
                raise ApiError(
                    413, f"A file holds at most {max_bytes} bytes.", param="file", code="file_too_large"
                )
        parser.finalize()
    except FormParserError:
        raise _bad("the form cannot be read") from None
    if not ended:
        raise _bad("the form is cut short")


def _bad(why: str) -> ApiError:
    return ApiError(400, f"Not a form that can be read: {why}.", code="invalid_form")
