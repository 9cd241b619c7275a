"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Something that reads bytes of strangers.

    :param act: returns for what it accepts, raises one of our errors for what it refuses; whatever else
        it raises is a finding, a failed ``assert`` too.
    :param dictionary: tokens of its format.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    act: Callable[[bytes], object]
    dictionary: Sequence[bytes] = ()
