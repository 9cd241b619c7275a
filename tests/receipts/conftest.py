"""Tests of receipts stay on this machine."""

from __future__ import annotations

from ..offline import offline

__all__ = ["offline"]
