"""What a platform's own rules say of genuine evidence, before the rules that all platforms share."""

from __future__ import annotations

from dataclasses import dataclass

from .evidence import Finding


@dataclass(frozen=True, slots=True)
class Judgement:
    """A platform's part of an appraisal.

    :param matched: name of the measurement set that matched whole, or None.
    :param refusals: every reason why it is not wanted, as ``(code, detail)``.
    :param notes: what the policy left unchecked or is notable; no refusals.
    """

    matched: str | None
    refusals: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
