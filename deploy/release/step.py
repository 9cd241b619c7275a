"""What every step of the release check hands back."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class NotHeld(Exception):
    """A step that cannot be done or does not hold; one line that says what to do."""


@dataclass(frozen=True)
class Step:
    """One step of the check.

    :param held: whether it holds. :param lines: what was found, for people. :param data: for machines.
    """

    name: str
    held: bool
    lines: tuple[str, ...]
    data: dict[str, Any] = field(default_factory=dict)


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a command and return its standard output.

    :raises NotHeld: it failed; with the last lines that it wrote.
    """
    arguments = [str(part) for part in command]
    settings = None if env is None else dict(env)
    try:
        done = subprocess.run(  # noqa: S603 - commands of the check's own, arguments as a list
            arguments, cwd=cwd, env=settings, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise NotHeld(f"{Path(arguments[0]).name} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-12:]
        raise NotHeld(f"{Path(arguments[0]).name} ended with {done.returncode}: " + " | ".join(said))
    return done.stdout
