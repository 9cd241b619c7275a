"""From a path or URL to its store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ....wire.errors import ConfigurationError
from .base import ModelStore, StoreSettings


def open_store(url: str, settings: StoreSettings | None = None) -> ModelStore:
    """Return the store of one object.

    :param url: a path, ``file:///…``, ``s3://bucket/key`` or ``gs://bucket/key``.
    :raises ConfigurationError: ``BAD_MODEL_URL``, or ``MISSING_DEPENDENCY``.
    """
    if "://" not in url:
        from .local import LocalModelStore

        return LocalModelStore(Path(url))
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _bad() from None
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise _bad()
    settings = settings or StoreSettings()
    key = parts.path.lstrip("/")
    match parts.scheme, parts.netloc, key:
        case "file", "", str() if key:
            from .local import LocalModelStore

            return LocalModelStore(Path(unquote(parts.path)))
        case "s3", str(bucket), str() if bucket and key:
            from .s3 import S3ModelStore

            return S3ModelStore(bucket, key, settings)
        case "gs", str(bucket), str() if bucket and key:
            from .gcs import GcsModelStore

            return GcsModelStore(bucket, key, settings)
    raise _bad()


def _bad() -> ConfigurationError:
    return ConfigurationError(
        "BAD_MODEL_URL", "a model is a path, file:///…, s3://bucket/key or gs://bucket/key"
    )
