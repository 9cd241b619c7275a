"""Brokers, queues and blobs: everything between client and worker that is not trusted.

>>> import tempfile
>>> from pathlib import Path
>>> from ephemeralml.broker_config import broker_running, broker_settings, ping
>>> with tempfile.TemporaryDirectory() as folder:
...     with broker_running(broker_settings(state_dir=Path(folder))) as settings:
...         ping(settings)
"""

from .blobs import BlobStore, LocalBlobStore, RedisBlobStore, make_blob_store
from .health import depth, ping
from .profiles import broker_running
from .settings import BrokerSettings, broker_settings

__all__ = [
    "BlobStore",
    "BrokerSettings",
    "LocalBlobStore",
    "RedisBlobStore",
    "broker_running",
    "broker_settings",
    "depth",
    "make_blob_store",
    "ping",
]
