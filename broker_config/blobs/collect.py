"""Removes claim checks whose time has passed.

Only content-addressed blobs that have a mark of expiry are ever touched: announcements, evidence,
wrapped keys, orders, the ledger and dead letters have none, and no writer of marks can give them one,
because a mark names a SHA-256 and nothing else. A host may delete what it likes anyway; this must not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .base import CONTENT_PREFIX, EXPIRES_PREFIX, HOUR_S, BlobStore

#: Clocks of writers and of the collector may differ by as much.
MARGIN_S: Final = HOUR_S
_MARK: Final = re.compile(r"expires/([0-9a-f]{64})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did: blobs removed (or that would be), and blobs whose time has not come."""

    removed: int
    kept: int


def expired(marks: dict[str, int], now: float) -> Iterator[str]:
    """Yield the digests whose latest mark has passed.

    :param marks: digest to the latest hour until which it is kept. :param now: Unix seconds.
    """
    for digest, hour in marks.items():
        if hour * HOUR_S + MARGIN_S < now:
            yield digest


def collect(store: BlobStore, now: float, *, dry_run: bool = False) -> Collected:
    """Remove expired claim checks; may be broken off and run again at any time, by several at once.

    :param now: Unix seconds.
    :raises DeliveryError: the blob store cannot be used.
    """
    marks = _marks(store, EXPIRES_PREFIX)
    removed = 0
    for digest in expired(marks, now):
        if dry_run:
            removed += 1
            continue
        # Looked at again: the same content may have been put anew meanwhile.
        latest = _marks(store, f"{EXPIRES_PREFIX}{digest}/")
        if not list(expired(latest, now)):
            continue
        store.delete(CONTENT_PREFIX + digest)
        for name in list(store.list(f"{EXPIRES_PREFIX}{digest}/")):
            store.delete(name)
        removed += 1
    return Collected(removed, len(marks) - removed)


def _marks(store: BlobStore, prefix: str) -> dict[str, int]:
    latest: dict[str, int] = defaultdict(int)
    for name in store.list(prefix):
        mark = _MARK.fullmatch(name)
        if mark is not None:
            latest[mark[1]] = max(latest[mark[1]], int(mark[2]))
    return dict(latest)
