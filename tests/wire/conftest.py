"""Hypothesis without its clock: the machine may be shared, and time has tests of its own here."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
