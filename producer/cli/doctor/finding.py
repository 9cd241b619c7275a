"""What every check of ``doctor`` yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One check.

    :param code: stable. :param seen: what was found. :param cause: why that is so, or what comes of it.
    :param fix: what to do. Both are given wherever the verdict is not ``ok``.
    """

    code: str
    verdict: Verdict
    seen: str
    cause: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        if self.verdict != "ok" and not (self.cause and self.fix):
            raise ValueError(f"{self.code} says neither why nor what to do")
