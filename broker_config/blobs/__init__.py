"""Blob stores: large packs, announcements, evidence and wrapped keys, behind one Protocol.

::

    store = make_blob_store(broker_settings())
    digest = put_content(store, pack, keep_until=not_after)
"""

from __future__ import annotations

from .base import (
    CONTENT_PREFIX,
    MAX_BLOB_BYTES,
    BlobStore,
    check_key,
    get_content,
    put_content,
)
from .collect import Collected, collect
from .factory import make_blob_store
from .local import LocalBlobStore
from .redis import RedisBlobStore

__all__ = [
    "CONTENT_PREFIX",
    "MAX_BLOB_BYTES",
    "BlobStore",
    "Collected",
    "LocalBlobStore",
    "RedisBlobStore",
    "check_key",
    "collect",
    "get_content",
    "make_blob_store",
    "put_content",
]
