"""Exceptions: what a release may carry although a rule refuses it; each named, reasoned and dated."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from packaging.utils import canonicalize_name
from step import NotHeld

Kind = Literal["vulnerability", "licence"]
#: Nobody remembers for longer why it was granted.
MAX_DAYS: Final = 366
MIN_REASON_CHARS: Final = 20
_KEYS: Final = {"kind", "package", "id", "reason", "granted", "until"}


@dataclass
class Excuse:
    """One exception.

    :param id: an advisory's id, or the licence expression as it is found. :param until: its last day.
    """

    kind: Kind
    package: str
    id: str
    reason: str
    granted: date
    until: date
    used: bool = False


@dataclass
class Exceptions:
    """All exceptions of a release, on one day."""

    all: list[Excuse]
    today: date
    refused: list[str] = field(default_factory=list)

    def excuse(self, kind: Kind, package: str, names: set[str]) -> Excuse | None:
        """Return the exception for a finding, if there is one that has not ended.

        :param names: an advisory's id and aliases, or a licence.
        """
        for one in self.all:
            if one.kind == kind and one.package == canonicalize_name(package) and one.id in names:
                one.used = True
                return one if one.until >= self.today else None
        return None

    def faults(self, judged: set[Kind]) -> list[str]:
        """Return what is wrong with the list itself: what has ended, and what excuses nothing.

        :param judged: kinds that were judged; of others nobody knows whether they are needed.
        """
        ended = [f"{_name(one)}: ended on {one.until}" for one in self.all if one.until < self.today]
        unused = [f"{_name(one)}: excuses nothing" for one in self.all if one.kind in judged and not one.used]
        return ended + unused


def read_exceptions(path: Path, today: date) -> Exceptions:
    """Read the file of exceptions.

    :raises NotHeld: it is not of its form, or an exception lacks a reason, or lasts too long.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("exception", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise NotHeld(f"the exceptions cannot be read: {error}") from None
    return Exceptions([_read(table) for table in tables], today)


def _read(table: dict[str, Any]) -> Excuse:
    if set(table) != _KEYS:
        raise NotHeld(f"an exception has the fields {sorted(_KEYS)}, not {sorted(table)}")
    one = Excuse(**{**table, "package": canonicalize_name(table["package"])})
    if one.kind not in ("vulnerability", "licence"):
        raise NotHeld(f"{_name(one)}: the kind is 'vulnerability' or 'licence'")
    if type(one.granted) is not date or type(one.until) is not date:
        raise NotHeld(f"{_name(one)}: granted and until are dates")
    if not timedelta(0) < one.until - one.granted <= timedelta(days=MAX_DAYS):
        raise NotHeld(f"{_name(one)}: lasts one to {MAX_DAYS} days")
    if len(one.reason.strip()) < MIN_REASON_CHARS:
        raise NotHeld(f"{_name(one)}: says why in {MIN_REASON_CHARS} characters or more")
    return one


def _name(one: Excuse) -> str:
    return f"exception for {one.package} ({one.id})"
