"""Blobs in Google Cloud Storage.

Conditional writes: Cloud Storage documentation, "Request preconditions" (``ifGenerationMatch=0``: only where
there is none). Downloads and uploads are held against CRC32C by the library ("Data validation").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ...wire.errors import ConfigurationError, DeliveryError, Error
from ..settings import BrokerSettings
from .base import PIECE_BYTES, check_key, check_size, folder_of, full, is_key, missing, unavailable, whole

_DENIED: Final = (401, 403)


class GcsBlobStore:
    """Blobs as objects of a bucket, below a prefix.

    :raises ConfigurationError: ``EXTRA_MISSING`` or ``BAD_BLOB_SETTINGS``.
    """

    def __init__(self, settings: BrokerSettings, bucket: str, prefix: str) -> None:
        self._prefix = prefix
        self._timeout = (settings.connect_timeout_s, settings.operation_timeout_s)
        self._client = bucket_client(settings)
        self._bucket = self._client.bucket(bucket)

    def put(self, key: str, data: bytes, *, keep_until: int | None = None) -> None:
        """See :meth:`BlobStore.put`; ``keep_until`` is left to the collector and the bucket's lifecycle."""
        check_size(len(data))
        with _reported():
            self._send(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See :meth:`BlobStore.put_if_absent`."""
        from google.api_core.exceptions import PreconditionFailed

        check_size(len(data))
        with _reported():
            try:
                self._send(key, data, if_generation_match=0)
            except PreconditionFailed:
                return False
        return True

    def pieces(self, key: str) -> Iterator[bytes]:
        """See :meth:`BlobStore.pieces`."""
        blob = self._blob(key)
        start = 0
        with _reported():
            blob.reload(timeout=self._timeout)
            size, generation = int(blob.size or 0), blob.generation
            while start < size:
                piece = blob.download_as_bytes(
                    start=start,
                    end=min(start + PIECE_BYTES, size) - 1,
                    if_generation_match=generation,
                    timeout=self._timeout,
                )
                if not piece:
                    raise unavailable("an object is shorter than it says")
                yield piece
                start += len(piece)

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        return whole(self.pieces(key))

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        with _reported():
            return bool(self._blob(key).exists(timeout=self._timeout))

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = f"{self._prefix}{folder_of(prefix)}/"
        with _reported():
            for blob in self._bucket.list_blobs(prefix=start, timeout=self._timeout):
                key = str(blob.name).removeprefix(self._prefix)
                if is_key(key):
                    yield key

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        try:
            with _reported():
                self._blob(key).delete(timeout=self._timeout)
        except DeliveryError as error:
            if error.code != "BLOB_MISSING":
                raise

    def _send(self, key: str, data: bytes, **conditions: int) -> None:
        blob = self._blob(key)
        if len(data) > PIECE_BYTES:
            blob.chunk_size = PIECE_BYTES  # a resumable upload, piece by piece
        blob.upload_from_string(
            data,
            content_type="application/octet-stream",
            checksum="crc32c",
            timeout=self._timeout,
            **conditions,
        )

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + check_key(key))


def bucket_client(settings: BrokerSettings) -> Any:
    """Return Cloud Storage's client, as the settings say.

    :raises ConfigurationError: ``EXTRA_MISSING`` or ``BAD_BLOB_SETTINGS``.
    """
    try:
        from google.api_core.client_options import ClientOptions
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        raise ConfigurationError(
            "EXTRA_MISSING", "a blob store in Cloud Storage needs pip install 'ephemeralml[gcp]'"
        ) from None
    try:
        if settings.blob_endpoint is None:
            client = storage.Client()
        else:
            client = storage.Client(
                project="none",
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                client_options=ClientOptions(api_endpoint=settings.blob_endpoint),
            )
    except (GoogleAuthError, OSError, ValueError):
        raise ConfigurationError(
            "BAD_BLOB_SETTINGS", "Cloud Storage cannot be used: no credentials, or wrong blob settings"
        ) from None
    # To label traces it would ask for the bucket, in threads of its own and by a right that no role has.
    client._bucket_metadata_cache = None
    return client


@contextmanager
def _reported() -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed, TooManyRequests

    try:
        yield
    except Error:
        raise
    except PreconditionFailed:  # an object was replaced while it was read
        raise unavailable("a blob was replaced meanwhile") from None
    except NotFound as error:
        if "bucket does not exist" in str(error.message):
            raise DeliveryError(
                "BLOB_STORE_MISSING", "the blob store's bucket does not exist", retriable=False
            ) from None
        raise missing() from None
    except TooManyRequests:
        raise full() from None
    except GoogleAPICallError as error:
        if error.code in _DENIED:
            raise DeliveryError(
                "BLOB_STORE_DENIED",
                "the blob store denies access: see the rights of this role",
                retriable=False,
            ) from None
        raise unavailable(f"it answers with {error.code}") from None
    except Exception:  # google-auth, requests and urllib3 each have errors of their own
        raise unavailable() from None
