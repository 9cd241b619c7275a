"""Recorded evidence as seeds, where the corpus is here."""

from __future__ import annotations

import pytest

from ..corpus import corpus


def recorded(pattern: str) -> list[bytes]:
    """Return the corpus files that match, e.g. ``"nitro/*.bin"``; none where there is no corpus."""
    try:
        return [path.read_bytes() for path in sorted(corpus().glob(pattern)) if path.is_file()]
    except pytest.skip.Exception:
        return []
