"""What every check of ``doctor`` yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One check: stable code, verdict, what was seen, and what to do about it."""

    code: str
    verdict: Verdict
    seen: str
    fix: str = ""
