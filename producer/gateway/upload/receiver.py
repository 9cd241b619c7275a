"""One upload from its first byte to its acceptance: split, checked, staged, accepted whole or gone.

Synchronous, so that it can be tested without a server; the API feeds it from threads.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ....wire.errors import MalformedError
from ....wire.pack import SealedJob
from ..store import Store, batches, identity, staging
from ..store.batches import Batch
from ..store.staging import StagedPack
from ..store.tenants import Tenant
from .check import LINE_PACK_BYTES, LINE_PACK_JOBS, Checker
from .head import MAX_HEAD_BYTES, cbor_head, json_head
from .lines import read_line
from .split import Form, splitter

#: Packs are staged when they have this many bytes or jobs together: what one upload holds in memory.
STAGE_BYTES: Final = 4 << 20
STAGE_JOBS: Final = 4096
TOUCH_SECONDS: Final = staging.STAGED_SECONDS / 3


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of one upload: bytes of its body, and jobs."""

    max_bytes: int
    max_jobs: int


class Receiver:
    """Takes one upload. Call :meth:`feed` with its bytes, then :meth:`finish`; on any error :meth:`abort`.

    :param key: idempotency key. :param digest: SHA-256 of the whole body where the client said it.
    :param now: a clock, Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        tenant: Tenant,
        form: Form,
        limits: UploadLimits,
        now: Callable[[], float],
        *,
        key: str | None = None,
        digest: bytes | None = None,
    ) -> None:
        self._store, self._tenant, self._form, self._limits = store, tenant, form, limits
        self._now, self._key, self._wanted_digest = now, key, digest
        self._splitter = splitter(form)
        self._hash = hashlib.sha256()
        self._size = 0
        self._checker: Checker | None = None
        self._replayed: Batch | None = None
        self._batch: int | None = None
        self._packs = 0
        self._staged: list[StagedPack] = []
        self._lines: list[tuple[SealedJob, object]] = []
        self._line_bytes = 0
        self._room = 0
        self._touched = now()

    def feed(self, data: bytes) -> None:
        """Take the next bytes; may write to the store.

        :raises MalformedError: the upload is refused. :raises DeliveryError: as :meth:`finish`.
        """
        self._size += len(data)
        if self._size > self._limits.max_bytes:
            raise MalformedError("UPLOAD_TOO_LARGE", f"an upload has at most {self._limits.max_bytes} bytes")
        self._hash.update(data)
        if self._replayed is None:
            self._take(self._splitter.feed(data))

    def finish(self) -> tuple[Batch, bool]:
        """Accept the upload; return its batch, and whether it had been accepted before.

        :raises MalformedError: ``TRUNCATED_UPLOAD``, ``DIGEST_MISMATCH``, ``IDEMPOTENCY_MISMATCH`` or what is
            wrong with a job.
        :raises DeliveryError: over a quota, the batch exists, another upload of it is running, or the
            store cannot be used.
        """
        if self._replayed is None:
            self._take(self._splitter.end())
        digest = self._hash.digest()
        if self._wanted_digest is not None and not hmac.compare_digest(digest, self._wanted_digest):
            raise MalformedError("DIGEST_MISMATCH", "the body is not what its Content-Digest says")
        if self._replayed is not None:
            if self._replayed.request_digest != digest:
                raise MalformedError("IDEMPOTENCY_MISMATCH", "this idempotency key was used for another body")
            return self._replayed, True
        if self._checker is None or self._batch is None:
            raise MalformedError("EMPTY_UPLOAD", "the upload has no head")
        self._checker_end(self._checker)
        with self._store.transaction() as connection:
            batch = staging.accept(connection, self._batch, self._tenant.id, digest, self._now())
        self._batch = None
        return batch, False

    def abort(self) -> None:
        """Remove what was staged; harmless after :meth:`finish`.

        :raises DeliveryError: ``STORE_UNAVAILABLE``; the sweep removes it later.
        """
        if self._batch is not None:
            with self._store.transaction() as connection:
                staging.discard(connection, self._batch)

    def _take(self, items: Iterable[bytes]) -> None:
        for item in items:
            if self._checker is None:
                self._begin(item)
                if self._replayed is not None:
                    return
            elif self._form == "cbor":
                self._stage(self._checker.cbor_item(item))
            else:
                self._line(self._checker, item)
        if self._batch is not None and self._now() - self._touched > TOUCH_SECONDS:
            self._write()

    def _begin(self, item: bytes) -> None:
        if len(item) > MAX_HEAD_BYTES:
            raise MalformedError("HEAD_TOO_LARGE", "the first item of an upload is its head")
        upload = (cbor_head if self._form == "cbor" else json_head)(item, self._key)
        if upload.jobs > self._limits.max_jobs:
            raise MalformedError("TOO_MANY_JOBS", f"a batch has at most {self._limits.max_jobs} jobs here")
        now, tenant = self._now(), self._tenant
        with self._store.transaction() as connection:
            if self._key is not None:
                self._replayed = batches.by_key(connection, tenant.id, self._key)
            if self._replayed is not None:
                return
            used = batches.usage(connection, tenant.id)
            if used.jobs + upload.jobs > tenant.max_jobs:
                raise staging.over_jobs()
            self._room = tenant.max_bytes - used.stored
            self._batch = staging.begin(connection, tenant.id, upload, now)
            self._checker = Checker(upload, identity.reply_to(connection), now)

    def _line(self, checker: Checker, line: bytes) -> None:
        job, custom_id = read_line(line)
        self._lines.append((job, custom_id))
        self._line_bytes += len(line)
        if len(self._lines) >= LINE_PACK_JOBS or self._line_bytes >= LINE_PACK_BYTES:
            self._pack_lines(checker)

    def _pack_lines(self, checker: Checker) -> None:
        if self._lines:
            jobs, custom_ids = zip(*self._lines, strict=True)
            self._lines, self._line_bytes = [], 0
            self._stage(checker.sealed(jobs, custom_ids))

    def _stage(self, pack: StagedPack) -> None:
        self._staged.append(pack)
        if self._size > self._room:
            raise staging.over_bytes()
        jobs = sum(len(pack.jobs) for pack in self._staged)
        if jobs >= STAGE_JOBS or sum(len(pack.data) for pack in self._staged) >= STAGE_BYTES:
            self._write()

    def _write(self) -> None:
        assert self._batch is not None  # noqa: S101 - packs come after the head
        staged, self._staged = self._staged, []
        with self._store.transaction() as connection:
            self._touched = self._now()
            staging.add(connection, self._batch, self._packs, staged, self._touched)
        self._packs += len(staged)

    def _checker_end(self, checker: Checker) -> None:
        self._pack_lines(checker)
        checker.end()
        self._write()
