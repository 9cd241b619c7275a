"""Packages in Google Cloud Storage, over its JSON API.

Ranges with ``generation`` (Cloud Storage documentation, Objects: get) and resumable uploads
with ``ifGenerationMatch=0`` (Resumable uploads; Request preconditions: 0 means "only where
there is none").
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode

import urllib3

from ....wire.errors import ConfigurationError, Error, ModelError
from .base import (
    PIECE_BYTES,
    ObjectVersion,
    StoreSettings,
    bad_answer,
    denied,
    exists,
    not_found,
    status_error,
    swapped,
    unavailable,
)

ENDPOINT: Final = "https://storage.googleapis.com"
PART_BYTES: Final = 8 << 20  # a multiple of 256 KiB, as resumable uploads demand
SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_RESUME: Final = 308  # "Resume Incomplete", Google's own use of the number
_BROKEN_PARTS: Final = 5


class GcsModelStore:
    """One object of a bucket; see :class:`.base.ModelStore`."""

    def __init__(self, bucket: str, key: str, settings: StoreSettings) -> None:
        base = (settings.gcs_endpoint or ENDPOINT).rstrip("/")
        self._object = f"{base}/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        self._uploads = f"{base}/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        self._origin = base + "/"
        self._key = key
        self._pool = urllib3.PoolManager(
            maxsize=32, retries=False, timeout=urllib3.Timeout(settings.timeout_s, settings.timeout_s)
        )
        self._credentials = None if settings.gcs_endpoint else _credentials()

    def stat(self) -> ObjectVersion:
        """See :meth:`.base.ModelStore.stat`."""
        size, generation, _ = self._metadata()
        return ObjectVersion(size, generation)

    def read_range(self, version: ObjectVersion, start: int, stop: int) -> Iterator[bytes]:
        """See :meth:`.base.ModelStore.read_range`."""
        query = urlencode({"alt": "media", "generation": version.tag})
        with _reported():
            answer = self._ask(
                "GET", f"{self._object}?{query}", {"Range": f"bytes={start}-{stop - 1}"}, stream=True
            )
            try:
                if answer.status == 404:  # this generation is gone; an object may still be there
                    raise swapped()
                _check(answer.status)
                if answer.headers.get("Content-Range") != f"bytes {start}-{stop - 1}/{version.size}":
                    raise bad_answer("sent another range than was asked for")
                # read1 returns what has arrived: a body that drips is seen by the reader's deadline.
                while piece := answer.read1(PIECE_BYTES):
                    yield piece
            finally:
                answer.close()

    def publish(self, package: Path, sha256: str) -> bool:
        """See :meth:`.base.ModelStore.publish`."""
        with _reported(), package.open("rb") as file:
            if self._taken(sha256):
                return False
            size = os.fstat(file.fileno()).st_size
            status = self._send(file, size, self._begin(sha256, size))
            if status == 412 and self._taken(sha256):
                return False
            _check(status)
        return True

    def close(self) -> None:
        """Drop the connections."""
        self._pool.clear()

    def _metadata(self) -> tuple[int, str, dict[str, object]]:
        with _reported():
            answer = self._ask("GET", self._object)
            _check(answer.status)
            try:
                found = json.loads(answer.data)
                size, generation = int(found["size"]), str(int(found["generation"]))
                more = found.get("metadata") or {}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise bad_answer("describes its object in no known form") from None
            return size, generation, more if isinstance(more, dict) else {}

    def _taken(self, sha256: str) -> bool:
        try:
            *_, more = self._metadata()
        except ConfigurationError as error:
            if error.code == "MODEL_NOT_FOUND":
                return False
            raise
        if more.get("sha256") != sha256:
            raise exists()
        return True

    def _begin(self, sha256: str, size: int) -> str:
        query = urlencode({"uploadType": "resumable", "name": self._key, "ifGenerationMatch": "0"})
        headers = {"Content-Type": "application/json", "X-Upload-Content-Length": str(size)}
        body = json.dumps({"metadata": {"sha256": sha256}}).encode()
        answer = self._ask("POST", f"{self._uploads}?{query}", headers, body)
        if answer.status == 412:
            raise exists()
        _check(answer.status)
        session = answer.headers.get("Location", "")
        if not session.startswith(self._origin):
            raise bad_answer("sends the upload elsewhere")
        return session

    def _send(self, file: BinaryIO, size: int, session: str) -> int:
        """Send part by part; after a break ask how much arrived, and go on there."""
        done, broken = 0, 0
        while True:
            file.seek(done)
            piece = file.read(PART_BYTES)
            try:
                place = f"bytes {done}-{done + len(piece) - 1}/{size}"
                answer = self._ask("PUT", session, {"Content-Range": place}, piece)
                if answer.status >= 500:
                    raise unavailable()
            except (urllib3.exceptions.HTTPError, Error):
                broken += 1
                if broken > _BROKEN_PARTS:
                    raise
                answer = self._ask("PUT", session, {"Content-Range": f"bytes */{size}"}, b"")
            if answer.status != _RESUME:
                return answer.status
            done = _received(answer.headers.get("Range"), size)

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        sent = {**(headers or {}), **self._authorization()}
        return self._pool.request(
            method, url, headers=sent, body=body, redirect=False, preload_content=not stream
        )

    def _authorization(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        import google.auth.exceptions
        from google.auth.transport.urllib3 import Request

        try:
            if not self._credentials.valid:
                self._credentials.refresh(Request(self._pool))  # type: ignore[no-untyped-call]
        except google.auth.exceptions.GoogleAuthError:
            raise denied() from None
        return {"Authorization": f"Bearer {self._credentials.token}"}


def _received(header: str | None, size: int) -> int:
    """Return how many bytes an upload has, from ``bytes=0-N``; nothing arrived where there is none."""
    if header is None:
        return 0
    last = header.removeprefix("bytes=0-")
    if not last.isascii() or not last.isdecimal() or not 0 <= int(last) < size:
        raise bad_answer("says in no known form how much it received")
    return int(last) + 1


def _check(status: int) -> None:
    error = status_error(status)
    if error is not None:
        raise error


def _credentials() -> Any:
    try:
        import google.auth
        import google.auth.exceptions
    except ImportError:
        raise ConfigurationError("MISSING_DEPENDENCY", "gs:// needs ephemeralml[gcp]") from None
    try:
        return google.auth.default(scopes=[SCOPE])[0]
    except google.auth.exceptions.GoogleAuthError:
        raise denied() from None


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.HTTPError:
        raise unavailable() from None
    except FileNotFoundError:
        raise not_found() from None
    except OSError as error:
        if error.filename is not None:
            raise ModelError("PACKAGE_UNREADABLE", "the package cannot be read") from None
        raise unavailable() from None
