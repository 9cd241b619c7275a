"""Which blob store the settings mean."""

from __future__ import annotations

from urllib.parse import urlsplit

from ...wire.errors import ConfigurationError
from ..settings import BrokerSettings
from .base import BlobStore
from .local import LocalBlobStore
from .redis import RedisBlobStore


def make_blob_store(settings: BrokerSettings) -> BlobStore:
    """Return the store that ``blob_url`` names; by default the profile's own.

    Those are a folder beside the embedded broker, or the Redis that carries the messages.

    :raises ConfigurationError: ``NO_BLOB_STORE``: the profile has none of its own; ``EXTRA_MISSING``;
        ``BAD_BLOB_SETTINGS``.
    :raises DeliveryError: ``BLOB_STORE_UNAVAILABLE``: a folder cannot be made.
    """
    if settings.blob_url is None:
        return _own(settings)
    if settings.blob_url == "redis":
        return RedisBlobStore(settings)
    parts = urlsplit(settings.blob_url)
    if parts.scheme == "file":
        from pathlib import Path

        return LocalBlobStore(Path(parts.path))
    prefix = parts.path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    if parts.scheme == "s3":
        from .s3 import S3BlobStore

        return S3BlobStore(settings, parts.netloc, prefix)
    from .gcs import GcsBlobStore

    return GcsBlobStore(settings, parts.netloc, prefix)


def _own(settings: BrokerSettings) -> BlobStore:
    if settings.profile == "embedded":
        return LocalBlobStore(settings.state_dir / "blobs")
    if settings.profile == "redis":
        return RedisBlobStore(settings)
    raise ConfigurationError(
        "NO_BLOB_STORE",
        f"the profile {settings.profile} has no blob store of its own: set EPHEMERALML_BLOB_URL to "
        "s3://bucket/prefix or gs://bucket/prefix",
    )
