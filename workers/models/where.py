"""From a setting or argument to a package's bytes: a path is read as a file, a URL by ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from ...wire.errors import ConfigurationError
from .fetch import FetchRules, RangedReader
from .stores import StoreSettings, open_store

_NO_PROGRESS: Final[Callable[[int, int], None]] = lambda _done, _size: None  # noqa: E731


@contextmanager
def package_bytes(
    place: str,
    settings: StoreSettings | None = None,
    rules: FetchRules | None = None,
    progress: Callable[[int, int], None] = _NO_PROGRESS,
) -> Iterator[BinaryIO]:
    """Give a package's bytes, in order.

    :param place: path, ``file:///…``, ``s3://bucket/key`` or ``gs://bucket/key``.
    :param progress: of a URL: bytes handed out, and the size in bytes.
    :raises ConfigurationError: ``MODEL_UNREADABLE``, ``BAD_MODEL_URL`` or ``MISSING_DEPENDENCY``; while
        reading what :meth:`.fetch.RangedReader.readinto` raises.
    """
    if "://" not in place:
        try:
            file = Path(place).open("rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ConfigurationError("MODEL_UNREADABLE", f"cannot read the model: {error.strerror}") from None
        with file:
            yield cast("BinaryIO", file)
        return
    store = open_store(place, settings)
    try:
        with RangedReader(store, rules, progress=progress) as reader:
            yield cast("BinaryIO", reader)
    finally:
        store.close()
