"""The locked dependencies: every image's, by name, version and hashes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name
from step import NotHeld

_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One locked package and the locks that name it."""

    name: str
    version: str
    locks: tuple[str, ...]


def read_locks(folder: Path) -> tuple[Pin, ...]:
    """Return all pins of all locks in a folder, by name and version.

    :raises NotHeld: there are none, or a line is no pin with a hash.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for lock in sorted(folder.glob("*.txt")):
        for name, version in pins(lock):
            found.setdefault((name, version), []).append(lock.stem)
    if not found:
        raise NotHeld("there are no locks")
    return tuple(Pin(name, version, tuple(locks)) for (name, version), locks in sorted(found.items()))


def pins(lock: Path) -> Iterator[tuple[str, str]]:
    """Yield name and version of every pin in a lock.

    :raises NotHeld: a requirement is not pinned, or has no hash.
    """
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        pin = _PIN.match(line)
        if pin is None or not _HASH.search(line):
            raise NotHeld(f"{lock.name}: not a pin with a hash: {line[:60]}")
        yield canonicalize_name(pin[1]), pin[2]
