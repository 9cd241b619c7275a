"""Packages in S3, and in what speaks like it.

Conditional reads and writes: Amazon S3 API Reference, GetObject ``If-Match`` and
CompleteMultipartUpload ``If-None-Match``. An upload that broke off goes on with the parts
that S3 already has: a part's ETag is its MD5 where S3's own keys encrypt (User Guide,
"Checking object integrity"); where it is not, the part is sent again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ....wire.errors import ConfigurationError, Error, ModelError
from .base import (
    PIECE_BYTES,
    ObjectVersion,
    StoreSettings,
    bad_answer,
    denied,
    exists,
    status_error,
    swapped,
    unavailable,
)

MIN_PART_BYTES: Final = 8 << 20  # S3 takes 5 MiB to 5 GiB, and 10,000 parts
MAX_PARTS: Final = 10_000


class S3ModelStore:
    """One object of a bucket; see :class:`.base.ModelStore`."""

    def __init__(self, bucket: str, key: str, settings: StoreSettings) -> None:
        self._place: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._client = _client(settings)

    def stat(self) -> ObjectVersion:
        """See :meth:`.base.ModelStore.stat`."""
        with _reported():
            found = self._client.head_object(**self._place)
        return ObjectVersion(int(found["ContentLength"]), str(found["ETag"]))

    def read_range(self, version: ObjectVersion, start: int, stop: int) -> Iterator[bytes]:
        """See :meth:`.base.ModelStore.read_range`."""
        with _reported():
            answer = self._client.get_object(
                **self._place, Range=f"bytes={start}-{stop - 1}", IfMatch=version.tag
            )
            body = answer["Body"]
            try:
                if answer["ETag"] != version.tag:
                    raise swapped()
                if answer.get("ContentRange") != f"bytes {start}-{stop - 1}/{version.size}":
                    raise bad_answer("sent another range than was asked for")
                while piece := body.read(PIECE_BYTES):
                    yield piece
            finally:
                body.close()

    def publish(self, package: Path, sha256: str) -> bool:
        """See :meth:`.base.ModelStore.publish`."""
        with _reported():
            if self._taken(sha256):
                return False
            upload, have = self._upload(sha256)
            parts = self._send(package, upload, have)
            try:
                self._client.complete_multipart_upload(
                    **self._place, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
            except Exception as error:
                if _status(error) == 412 and self._taken(sha256):
                    return False
                raise
        return True

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def _taken(self, sha256: str) -> bool:
        try:
            found = self._client.head_object(**self._place)
        except Exception as error:
            if _status(error) == 404:
                return False
            raise
        if found.get("Metadata", {}).get("sha256") != sha256:
            raise exists()
        return True

    def _upload(self, sha256: str) -> tuple[str, dict[int, str]]:
        """Return an unfinished upload of this name, or a new one, and the parts that it has."""
        listed = self._client.list_multipart_uploads(Bucket=self._place["Bucket"], Prefix=self._place["Key"])
        for upload in listed.get("Uploads", ()):
            if upload["Key"] == self._place["Key"]:
                pages = self._client.get_paginator("list_parts").paginate(
                    **self._place, UploadId=upload["UploadId"]
                )
                have = {p["PartNumber"]: p["ETag"] for page in pages for p in page.get("Parts", ())}
                return upload["UploadId"], have
        made = self._client.create_multipart_upload(**self._place, Metadata={"sha256": sha256})
        return made["UploadId"], {}

    def _send(self, package: Path, upload: str, have: dict[int, str]) -> list[dict[str, Any]]:
        parts = []
        with package.open("rb") as file:
            size = max(MIN_PART_BYTES, -(-os.fstat(file.fileno()).st_size // MAX_PARTS))
            for number, piece in enumerate(iter(lambda: file.read(size), b""), 1):
                tag = f'"{hashlib.md5(piece, usedforsecurity=False).hexdigest()}"'
                if have.get(number) != tag:
                    sent = self._client.upload_part(
                        **self._place, UploadId=upload, PartNumber=number, Body=piece
                    )
                    tag = sent["ETag"]
                parts.append({"PartNumber": number, "ETag": tag})
        return parts


def _client(settings: StoreSettings) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigurationError("MISSING_DEPENDENCY", "s3:// needs ephemeralml[aws]") from None
    # Ranges are tried again by the reader, at the byte where they broke.
    config = Config(
        connect_timeout=settings.timeout_s,
        read_timeout=settings.timeout_s,
        retries={"total_max_attempts": 2},
        max_pool_connections=32,
    )
    try:
        return boto3.client(
            "s3", endpoint_url=settings.s3_endpoint, region_name=settings.region, config=config
        )
    except (BotoCoreError, ValueError):
        raise ConfigurationError("MODEL_STORE_SETTINGS", "S3 cannot be used with these settings") from None


def _status(error: BaseException) -> int:
    answer = getattr(error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return status if isinstance(status, int) else 0


@contextmanager
def _reported() -> Iterator[None]:
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except Error:
        raise
    except ClientError as error:
        raise status_error(_status(error)) or unavailable() from None
    except (NoCredentialsError, PartialCredentialsError):
        raise denied() from None
    except OSError as error:
        if error.filename is not None:
            raise ModelError("PACKAGE_UNREADABLE", "the package cannot be read") from None
        raise unavailable() from None
    except Exception:  # botocore lets exceptions of urllib3 and http.client through
        raise unavailable() from None
