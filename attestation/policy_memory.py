"""Remembers, outside of whatever delivers policies, how far a policy root's versions had come.

A bundle that is genuine and in time may still be yesterday's, put back by whoever
holds the file. The process that saw today's refuses it; this file lets the next
process do so too. It belongs where the deliverer cannot write. One root signs one
line of versions, so that one entry per root is enough.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..wire.errors import ConfigurationError
from .policy_bundle import Position
from .policy_files import locked, read_bounded, write_whole

MAX_MEMORY_BYTES: Final = 1 << 20


def default_memory() -> Path:
    """Return where a user's commands remember: ``$XDG_STATE_HOME/ephemeralml/policies.json``.

    The folder is the XDG Base Directory Specification's, 0.8; by default ``~/.local/state``.
    """
    folder = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(folder) / "ephemeralml" / "policies.json"


@dataclass(frozen=True)
class PolicyMemory:
    """The highest version seen under each policy root, in one JSON file."""

    path: Path

    def recall(self, policy_root: bytes) -> Position | None:
        """Return the highest version seen under a root, or None.

        :raises ConfigurationError: ``POLICY_MEMORY_BROKEN``: the file is there and cannot be understood.
        """
        entry = self._read().get(policy_root.hex())
        try:
            return None if entry is None else _position(entry)
        except (KeyError, TypeError, ValueError):
            raise _broken() from None

    def remember(self, policy_root: bytes, position: Position) -> None:
        """Write down a version, unless a later one stands there.

        :raises ConfigurationError: ``POLICY_MEMORY_BROKEN`` or ``POLICY_MEMORY_UNWRITABLE``.
        """
        if self.recall(policy_root) == position:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self.path.with_name(self.path.name + ".lock")):
                seen = self.recall(policy_root)
                if seen is not None and seen.serial >= position.serial:
                    return
                entry = {"name": position.name, "serial": position.serial, "digest": position.digest.hex()}
                everything = {**self._read(), policy_root.hex(): entry}
                write_whole(self.path, json.dumps(everything, indent=1, sort_keys=True).encode())
        except OSError as error:
            raise ConfigurationError(
                "POLICY_MEMORY_UNWRITABLE", f"cannot remember the policy's version: {error.strerror}"
            ) from None

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(read_bounded(self.path, MAX_MEMORY_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, RecursionError):
            raise _broken() from None
        if not isinstance(value, dict):
            raise _broken()
        return value


def _position(entry: dict[str, Any]) -> Position:
    name, serial, digest = entry["name"], entry["serial"], bytes.fromhex(entry["digest"])
    if type(name) is not str or type(serial) is not int or serial < 1 or len(digest) != 32:
        raise ValueError
    return Position(name, serial, digest)


def _broken() -> ConfigurationError:
    return ConfigurationError(
        "POLICY_MEMORY_BROKEN", "the file of policy versions seen so far is broken; remove it to begin anew"
    )
