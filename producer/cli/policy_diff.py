"""What a change of policy means: which changes accept something that was refused before.

A policy is laid out flat, one line per value, lists as sets and named entries by
their names. Whatever is not known to narrow a policy counts as loosening it: a field
that this page does not know is looked at, not waved through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ...attestation.closed import UNCHECKED
from ...attestation.policy import TrustPolicy

Verdict = Literal["looser", "tighter", "same"]
#: Fields, and entries of lists in brackets; no field's name begins with one.
Place = tuple[str, ...]

#: Lists of what is accepted: one entry less refuses more.
ACCEPTS: Final = frozenset(
    {
        *("measurement_sets", "nitro", "images", "models", "operators", "pools", "security_modes"),
        *("hwmodels", "service_accounts", "env_overrides", "accept", "modes"),
        *("mrseams", "xfams", "attributes", "accepted_tcb_statuses", "allowed_advisory_ids"),
    }
)
#: Lists of what is demanded: one entry less accepts more.
DEMANDS: Final = frozenset({"required_with", "support_attributes", "requires"})
_THERE: Final = "listed"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a diff.

    :param place: e.g. ``platforms.nitro[release-1].pcr1``. :param before: :param after: None: not there.
    """

    place: str
    before: str | None
    after: str | None
    verdict: Verdict


def lay_out(policy: TrustPolicy) -> dict[Place, str]:
    """Return every value of a policy by its place; what only holds others, or is listed, reads "listed"."""
    return dict(_walk((), policy.model_dump(mode="json", by_alias=True)))


def show_place(place: Place) -> str:
    """Return a place in words, e.g. ``platforms.nitro[release-1].pcr0``."""
    return "".join(part if part.startswith("[") else f".{part}" for part in place).removeprefix(".")


def compare(before: TrustPolicy, after: TrustPolicy) -> tuple[Change, ...]:
    """Return every change between two policies, in order of place.

    Of what came or went as a whole, one line says so; parts follow only where they matter by themselves.
    """
    old, new = lay_out(before), lay_out(after)
    places = sorted(place for place in old.keys() | new.keys() if old.get(place) != new.get(place))
    return tuple(
        Change(show_place(place), old.get(place), new.get(place), _verdict(place, old, new))
        for place in places
        if not (_within(place, old, new) and not _dangerous(place, new.get(place)))
        and not (_within(place, new, old) and _field(place) not in DEMANDS)
    )


# ------------------------------------------------------------------- laying out


def _walk(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    if isinstance(value, dict):
        if place:
            yield place, _THERE
        for key, item in value.items():
            yield from _walk((*place, key), item)
    elif isinstance(value, list):
        for item in value:
            yield from _entry(place, item)
    elif value is not None:
        yield place, value if isinstance(value, str) else json.dumps(value)


def _entry(place: Place, item: Any) -> Iterator[tuple[Place, str]]:
    """An entry with a name of its own is laid out below it; any other is one value whole."""
    if isinstance(item, dict) and "name" in item:
        inner = (*place, f"[{item['name']}]")
        yield inner, _THERE
        for key, value in item.items():
            if key != "name":
                yield from _walk((*inner, key), value)
    else:
        yield (*place, f"[{_words(item)}]"), _THERE


def _words(item: Any) -> str:
    if isinstance(item, dict):
        return " ".join(_words(value) for value in item.values())
    if isinstance(item, list):
        return ",".join(_words(value) for value in item)
    return item if isinstance(item, str) else json.dumps(item)


# ------------------------------------------------------------------- judging


def _within(place: Place, here: Mapping[Place, str], there: Mapping[Place, str]) -> bool:
    """Return whether something that holds this place is in ``there`` and not in ``here``."""
    return any(place[:size] in there and place[:size] not in here for size in range(1, len(place)))


def _now(place: Place, new: Mapping[Place, str]) -> str | None:
    """Return the new value; one that became a list of entries is that list."""
    if place in new or not any(one[: len(place)] == place for one in new):
        return new.get(place)
    return "entries"


def _dangerous(place: Place, value: str | None) -> bool:
    return value == UNCHECKED or (_field(place).startswith("dangerous_") and value == "true")


def _field(place: Place) -> str:
    """Return the name of the last field, the list's where the place is an entry."""
    return next((part for part in reversed(place) if not part.startswith("[")), "")


def _verdict(place: Place, old: Mapping[Place, str], new: Mapping[Place, str]) -> Verdict:
    field, before, after = _field(place), old.get(place), _now(place, new)
    if place == ("version",):
        return "same"
    if place[-1].startswith("["):
        if field in DEMANDS:
            return "looser" if after is None else "tighter"
        return "tighter" if after is None and field in ACCEPTS else "looser"
    if len(place) == 2 and place[0] == "platforms" and after is None:
        return "tighter"  # what it demanded of others has lines of its own
    if before is None or after is None or after == UNCHECKED:
        return "looser"
    return "tighter" if before == UNCHECKED or _narrows(field, before, after) else "looser"


def _narrows(field: str, before: str, after: str) -> bool:
    """Another image, root or key is one that was refused before; only these are known to narrow."""
    if field.startswith("dangerous_"):
        return after == "false"
    if field.startswith(("max_", "min_")) and before.isdigit() and after.isdigit():
        return (int(after) < int(before)) == field.startswith("max_")
    return False
