"""Reads the licences of all locked packages, offline, and holds them against a list."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exceptions import Exceptions
from locks import Pin
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name
from step import NotHeld, Step, run

UNKNOWN: Final = "UNKNOWN"
#: In this order: what PEP 639 defines, then free text, then trove classifiers.
_FIELDS: Final = ("License-Expression", "License-Metadata", "License-Classifier")


_TOKEN: Final = re.compile(r"[()]|[^\s()]+")


@dataclass(frozen=True)
class Rules:
    """What is allowed, how texts are read, and what was read elsewhere.

    :param allowed: SPDX ids. :param spellings: texts in packages, and the SPDX expression they mean.
    :param recorded: name and version to SPDX expression, for packages that no environment here holds.
    """

    allowed: frozenset[str]
    spellings: dict[str, str]
    recorded: dict[tuple[str, str], str]


def read_rules(path: Path) -> Rules:
    """Read the list.

    :raises NotHeld: it is not of its form.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        recorded: dict[tuple[str, str], str] = {
            (canonicalize_name(name), one["version"]): one["licence"]
            for name, one in table["recorded"].items()
        }
        return Rules(frozenset(table["allowed"]), dict(table["spellings"]), recorded)
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise NotHeld(f"the list of licences cannot be read: {error}") from None


def installed(pythons: Sequence[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the packages of some environments say of themselves, by name and version."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for python in pythons:
        command: list[str | Path] = [sys.executable, "-m", "piplicenses", "--python", python]
        rows = json.loads(run([*command, "--from=all", "--format=json", "--with-system"]))
        # A local version (+cpu) is the same release.
        found |= {(canonicalize_name(row["Name"]), row["Version"].split("+")[0]): row for row in rows}
    return found


def expression(row: dict[str, Any], rules: Rules) -> str:
    """Return the SPDX expression that a package states, or ``UNKNOWN``."""
    for name in _FIELDS:
        text = str(row.get(name, UNKNOWN)).strip()
        for candidate in (rules.spellings.get(text), text):
            if candidate and candidate != UNKNOWN and _parsed(candidate) is not None:
                return candidate
    return UNKNOWN


def allowed(text: str, rules: Rules) -> bool:
    """Return whether a licence may be used: of alternatives one, of conjunctions all parts."""
    canonical = _parsed(text)
    return canonical is not None and _either(_TOKEN.findall(canonical), rules.allowed)


def _parsed(text: str) -> str | None:
    """Return an SPDX expression in its canonical form (PEP 639), or None where it is none."""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return None


def _either(tokens: list[str], ids: frozenset[str]) -> bool:
    """Judge, and use up, ``A OR B …``; AND binds tighter (SPDX 2.3, annex D.4)."""
    found = _all(tokens, ids)
    while tokens and tokens[0] == "OR":
        del tokens[0]
        found = _all(tokens, ids) or found
    return found


def _all(tokens: list[str], ids: frozenset[str]) -> bool:
    found = _one(tokens, ids)
    while tokens and tokens[0] == "AND":
        del tokens[0]
        found = _one(tokens, ids) and found
    return found


def _one(tokens: list[str], ids: frozenset[str]) -> bool:
    name = tokens.pop(0)
    if name == "(":
        found = _either(tokens, ids)
        del tokens[0]
        return found
    if tokens and tokens[0] == "WITH":
        name += f" WITH {tokens[1]}"  # an exception is listed together with its licence
        del tokens[:2]
    return name in ids


def check(
    pins: Iterable[Pin], found: dict[tuple[str, str], dict[str, Any]], rules: Rules, exceptions: Exceptions
) -> Step:
    """Judge every locked package; what is unknown is refused."""
    faults, rows, excused = [], {}, []
    for pin in pins:
        key = (pin.name, pin.version.split("+")[0])
        text = expression(found[key], rules) if key in found else rules.recorded.get(key, UNKNOWN)
        rows[f"{pin.name}=={pin.version}"] = text
        if allowed(text, rules):
            continue
        excuse = exceptions.excuse("licence", pin.name, {text})
        if excuse is not None and text != UNKNOWN:
            excused.append(f"{pin.name}: {text}, excused until {excuse.until}: {excuse.reason}")
        else:
            faults.append(f"{pin.name} {pin.version} ({', '.join(pin.locks)}): {text} is not allowed")
    lines = (f"{len(rows)} locked packages, {len(excused)} by exception", *faults, *excused)
    return Step("licences of locked dependencies", not faults, lines, {"licences": rows, "faults": faults})
