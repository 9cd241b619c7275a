"""Reads the claims of a token one by one: known names, exact types, bounds; others are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...wire.errors import MalformedError

MAX_KID_BYTES: Final = 256
MAX_TIME: Final = 253_402_300_799  # the end of year 9999, Unix seconds


class Claims:
    """An object of a token.

    :param value: what JSON says. :param what: its name for error messages.
    """

    def __init__(self, value: Mapping[str, object], what: str) -> None:
        self._value = value
        self._what = what

    def get(self, name: str) -> object:
        """Return a claim as it is, None where it is absent."""
        return self._value.get(name)

    def section(self, name: str) -> Claims:
        """Return an object that must be there.

        :raises MalformedError: ``MISSING_CLAIM`` or ``WRONG_TYPE``; so do all below, or ``OUT_OF_BOUNDS``.
        """
        value = self._required(name)
        if not isinstance(value, dict):
            raise self._wrong(name)
        return Claims(value, name)

    def optional_section(self, name: str) -> Claims:
        """Return an object, an empty one where it is absent."""
        return self.section(name) if name in self._value else Claims({}, name)

    def text(self, name: str, maximum: int) -> str:
        """Return a text of 1 to ``maximum`` UTF-8 bytes."""
        return self._text(name, self._required(name), 1, maximum)

    def optional_text(self, name: str, maximum: int) -> str | None:
        """Return a text, None where it is absent."""
        return self.text(name, maximum) if name in self._value else None

    def texts(self, name: str, items: int, maximum: int) -> tuple[str, ...]:
        """Return an array of at most ``items`` texts, an empty one where it is absent."""
        return self.optional_texts(name, items, maximum) or ()

    def optional_texts(self, name: str, items: int, maximum: int) -> tuple[str, ...] | None:
        """Return an array of texts, None where it is absent."""
        if name not in self._value:
            return None
        value = self._value[name]
        if not isinstance(value, list):
            raise self._wrong(name)
        if len(value) > items:
            raise self._outside(name)
        return tuple(self._text(name, item, 0, maximum) for item in value)

    def table(self, name: str, items: int, maximum: int) -> dict[str, str]:
        """Return an object of texts, an empty one where it is absent."""
        value = self._value.get(name, {})
        if not isinstance(value, dict):
            raise self._wrong(name)
        if len(value) > items:
            raise self._outside(name)
        return {
            self._text(name, key, 1, maximum): self._text(name, item, 0, maximum)
            for key, item in value.items()
        }

    def uint(self, name: str, maximum: int) -> int:
        """Return an integer of 0 to ``maximum``."""
        value = self._required(name)
        if type(value) is not int:
            raise self._wrong(name)
        if not 0 <= value <= maximum:
            raise self._outside(name)
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._required(name)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def _required(self, name: str) -> object:
        if name not in self._value:
            raise MalformedError("MISSING_CLAIM", f"the {self._what} lacks {name}")
        return self._value[name]

    def _text(self, name: str, value: object, minimum: int, maximum: int) -> str:
        if not isinstance(value, str):
            raise self._wrong(name)
        if not minimum <= len(value.encode()) <= maximum:
            raise self._outside(name)
        return value

    def _wrong(self, name: str) -> MalformedError:
        return MalformedError("WRONG_TYPE", f"{name} of the {self._what} has the wrong type")

    def _outside(self, name: str) -> MalformedError:
        return MalformedError("OUT_OF_BOUNDS", f"{name} of the {self._what} is out of bounds")
