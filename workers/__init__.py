"""The TEE side: boot (attest, release, load, announce), then answer packs from the queue.

A worker process is ``Worker(settings, broker).run()``; everything heavy is imported there.

>>> from ephemeralml.workers import epoch_at
>>> epoch_at(now=1_800_000_000, epoch_seconds=86_400)
21334016
"""

from __future__ import annotations

from ..attestation.key_release.epochs import epoch_at
from .settings import WorkerSettings, worker_settings

__all__ = ["WorkerSettings", "epoch_at", "worker_settings"]
