"""Reads closed CBOR maps field by field; whatever is not named is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from .errors import MalformedError

T = TypeVar("T")


class Fields:
    """A closed map: every key is known, every value has its type and bounds.

    :param value: what the decoder returned.
    :param what: the structure's name for error messages, e.g. ``"job header"``.
    :param allowed: every key that may appear.
    :raises MalformedError: ``NOT_A_MAP`` or ``UNKNOWN_FIELD``.
    """

    def __init__(self, value: object, what: str, allowed: Iterable[int | str]) -> None:
        if not isinstance(value, dict):
            raise MalformedError("NOT_A_MAP", f"the {what} is not a map")
        unknown = value.keys() - set(allowed)
        if unknown:
            raise MalformedError("UNKNOWN_FIELD", f"the {what} has {len(unknown)} unknown field(s)")
        self._map = value
        self._what = what

    def required(self, key: int | str, kind: type[T]) -> T:
        """Return a field that must be there, of exactly type ``kind``."""
        if key not in self._map:
            raise MalformedError("MISSING_FIELD", f"the {self._what} lacks field {key}")
        value = self._map[key]
        if type(value) is not kind:
            raise MalformedError("WRONG_TYPE", f"field {key} of the {self._what} has the wrong type")
        return value

    def optional(self, key: int | str, kind: type[T]) -> T | None:
        """Return a field or None where it is absent."""
        return self.required(key, kind) if key in self._map else None

    def uint(self, key: int | str, *, minimum: int = 0, maximum: int = (1 << 64) - 1) -> int:
        """Return an unsigned integer within bounds."""
        value = self.required(key, int)
        if not minimum <= value <= maximum:
            raise MalformedError("OUT_OF_BOUNDS", f"field {key} of the {self._what} is out of bounds")
        return value

    def octets(self, key: int | str, minimum: int, maximum: int | None = None) -> bytes:
        """Return a byte string of ``minimum`` to ``maximum`` bytes (exactly ``minimum`` by default)."""
        return self._sized(key, self.required(key, bytes), minimum, maximum)

    def text(self, key: int | str, minimum: int, maximum: int) -> str:
        """Return a text of ``minimum`` to ``maximum`` UTF-8 bytes."""
        value = self.required(key, str)
        self._sized(key, value.encode(), minimum, maximum)
        return value

    def items(self, key: int | str, minimum: int, maximum: int) -> list[object]:
        """Return an array of ``minimum`` to ``maximum`` items."""
        value: list[object] = self.required(key, list)
        if not minimum <= len(value) <= maximum:
            raise MalformedError("OUT_OF_BOUNDS", f"field {key} of the {self._what} is out of bounds")
        return value

    def version(self, key: int | str, wanted: int) -> None:
        """Refuse any version but ``wanted``."""
        if self.required(key, int) != wanted:
            raise MalformedError("UNKNOWN_VERSION", f"the {self._what} is of another version")

    def __contains__(self, key: object) -> bool:
        return key in self._map

    def _sized(self, key: int | str, value: bytes, minimum: int, maximum: int | None) -> bytes:
        if not minimum <= len(value) <= (minimum if maximum is None else maximum):
            raise MalformedError("OUT_OF_BOUNDS", f"field {key} of the {self._what} is out of bounds")
        return value
