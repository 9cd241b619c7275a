"""Hypothesis without its clock: the machine may be shared, and disks are slow to sync."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
