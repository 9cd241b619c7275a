"""Where packages lie: a local file, S3 or Google Cloud Storage, all read by ranges.

A store is untrusted: it gets ciphertext and public bytes only, and what it answers is
verified by :mod:`..open`. What is pinned here is that one version is read from end to end.
"""

from __future__ import annotations

from .base import ModelStore, ObjectVersion, StoreSettings
from .choose import open_store

__all__ = ["ModelStore", "ObjectVersion", "StoreSettings", "open_store"]
