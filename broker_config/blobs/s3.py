"""Blobs in S3, and in what speaks like it.

Conditional writes: Amazon S3 User Guide, "How to prevent object overwrites with conditional writes"
(``If-None-Match: *`` of PutObject; a write that meets another one is answered with 409, and is tried again).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ...wire.errors import ConfigurationError, DeliveryError, Error
from ..settings import BrokerSettings
from .base import PIECE_BYTES, check_key, check_size, folder_of, full, is_key, missing, unavailable, whole

#: By botocore itself, with its own backoff; the caller tries a message again anyway.
ATTEMPTS: Final = 4
_CONFLICTS: Final = 5
_PRECONDITION, _CONFLICT, _NOT_FOUND, _SLOW_DOWN = 412, 409, 404, 503


class S3BlobStore:
    """Blobs as objects of a bucket, below a prefix.

    :raises ConfigurationError: ``EXTRA_MISSING`` or ``BAD_BLOB_SETTINGS``.
    """

    def __init__(self, settings: BrokerSettings, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix
        self._client = bucket_client(settings)

    def put(self, key: str, data: bytes, *, keep_until: int | None = None) -> None:
        """See :meth:`BlobStore.put`; ``keep_until`` is left to the collector and the bucket's lifecycle."""
        check_size(len(data))
        with _reported():
            self._client.put_object(**self._place(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See :meth:`BlobStore.put_if_absent`."""
        check_size(len(data))
        for _ in range(_CONFLICTS):
            try:
                with _reported():
                    self._client.put_object(**self._place(key), Body=data, IfNoneMatch="*")
                return True
            except _Refused as refused:
                if refused.status == _PRECONDITION:
                    return False
                if refused.status != _CONFLICT:
                    raise refused.error() from None
        raise unavailable("S3 answers conflicts only")

    def pieces(self, key: str) -> Iterator[bytes]:
        """See :meth:`BlobStore.pieces`."""
        with _reported():
            body = self._client.get_object(**self._place(key))["Body"]
            try:
                while piece := body.read(PIECE_BYTES):
                    yield piece
            finally:
                body.close()

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        return whole(self.pieces(key))

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        try:
            with _reported():
                self._client.head_object(**self._place(key))
        except DeliveryError as error:
            if error.code == "BLOB_MISSING":
                return False
            raise
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = f"{self._prefix}{folder_of(prefix)}/"
        with _reported():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = str(entry["Key"]).removeprefix(self._prefix)
                    if is_key(key):
                        yield key

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        with _reported():
            self._client.delete_object(**self._place(key))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}


class _Refused(DeliveryError):
    """S3 answered with a status that means no."""

    def __init__(self, status: int) -> None:
        super().__init__("BLOB_STORE_UNAVAILABLE", f"the blob store answers with {status}")
        self.status = status

    def error(self) -> DeliveryError:
        """Return it as callers of the store are told."""
        if self.status in (401, 403):
            return DeliveryError(
                "BLOB_STORE_DENIED",
                "the blob store denies access: see the rights of this role",
                retriable=False,
            )
        return unavailable(f"it answers with {self.status}")


def bucket_client(settings: BrokerSettings) -> Any:
    """Return boto3's client of S3, as the settings say.

    :raises ConfigurationError: ``EXTRA_MISSING`` or ``BAD_BLOB_SETTINGS``.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigurationError(
            "EXTRA_MISSING", "a blob store in S3 needs boto3: pip install 'ephemeralml[aws]'"
        ) from None
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.operation_timeout_s,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=32,
    )

    def secret(value: Any) -> str | None:
        return None if value is None else str(value.get_secret_value())

    try:
        return boto3.client(
            "s3",
            endpoint_url=settings.blob_endpoint,
            region_name=settings.blob_region,
            aws_access_key_id=secret(settings.blob_access_key_id),
            aws_secret_access_key=secret(settings.blob_secret_access_key),
            aws_session_token=secret(settings.blob_session_token),
            config=config,
        )
    except (BotoCoreError, ValueError):
        raise ConfigurationError("BAD_BLOB_SETTINGS", "S3 cannot be used with these blob settings") from None


@contextmanager
def _reported() -> Iterator[None]:
    """Turn all that botocore raises into errors of the store; refusals that have a meaning stay apart."""
    from botocore.exceptions import ClientError

    try:
        yield
    except Error:
        raise
    except ClientError as error:
        raise _refusal(error.response) from None
    except Exception:  # botocore lets exceptions of urllib3 and http.client through
        raise unavailable() from None


def _refusal(response: Any) -> DeliveryError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = response.get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        return DeliveryError("BLOB_STORE_MISSING", "the blob store's bucket does not exist", retriable=False)
    if status == _NOT_FOUND:
        return missing()
    if status == _SLOW_DOWN or code == "SlowDown":
        return full()
    refused = _Refused(status)
    return refused if status in (_PRECONDITION, _CONFLICT) else refused.error()
