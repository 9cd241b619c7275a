"""Holds every job of an upload against the upload's head and against the jobs before it.

Only public headers are read. What is sealed is passed on as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ....wire.encoding import decode
from ....wire.errors import MalformedError
from ....wire.header import JobHeader
from ....wire.pack import SealedJob, decode_jobs, encode_jobs
from ..store.staging import StagedPack, Upload
from .head import is_label
from .split import MAX_ITEM_BYTES

MAX_CUSTOM_ID: Final = 128
#: Seconds that a client's clock may be ahead when it sets a job's deadline to the end of the window.
SKEW_S: Final = 300


class Checker:
    """Checks the jobs of one upload in the order of their arrival; remembers ids, never contents.

    :param reply_to: the gateway's reply queue, the only one that jobs may name. :param now: Unix seconds.
    """

    def __init__(self, upload: Upload, reply_to: str, now: float) -> None:
        self._upload = upload
        self._reply_to = reply_to
        self._earliest = int(now)
        self._latest = int(now) + upload.window_s + SKEW_S
        self._indexes = bytearray(upload.jobs)
        self._job_ids: set[bytes] = set()
        self._custom_ids: set[str] = set()

    @property
    def seen(self) -> int:
        """How many jobs have passed."""
        return len(self._job_ids)

    def cbor_item(self, item: bytes) -> StagedPack:
        """Read an item ``[pack, custom ids]`` of a CBOR sequence.

        :raises MalformedError: the item or a job in it is refused, and the whole upload with it.
        """
        match decode(item, max_bytes=MAX_ITEM_BYTES):
            case [bytes() as data, (list() | None) as custom_ids]:
                pool, jobs = decode_jobs(data)
            case _:
                raise MalformedError("WRONG_TYPE", "an item of an upload is [pack, custom ids]")
        if pool != self._upload.pool:
            raise MalformedError("WRONG_POOL", "a pack is not for the pool of its upload")
        return StagedPack(data, self._rows(jobs, custom_ids))

    def sealed(self, jobs: Sequence[SealedJob], custom_ids: Sequence[object]) -> StagedPack:
        """Make a pack of jobs that came one by one.

        :raises MalformedError: a job is refused, and the whole upload with it.
        """
        return StagedPack(encode_jobs(self._upload.pool, jobs), self._rows(jobs, custom_ids))

    def end(self) -> None:
        """Check that all announced jobs came.

        :raises MalformedError: ``TRUNCATED_UPLOAD``.
        """
        if self.seen != self._upload.jobs:
            raise MalformedError("TRUNCATED_UPLOAD", "the upload has fewer jobs than its head says")

    def _rows(
        self, jobs: Sequence[SealedJob], custom_ids: Sequence[object] | None
    ) -> list[tuple[int, bytes, str | None]]:
        if custom_ids is not None and len(custom_ids) != len(jobs):
            raise MalformedError("BAD_CUSTOM_ID", "a pack has one custom id for each job, or null for all")
        if self.seen + len(jobs) > self._upload.jobs:
            raise MalformedError("TOO_MANY_JOBS", "the upload has more jobs than its head says")
        names = [None] * len(jobs) if custom_ids is None else custom_ids
        return [
            (*self._job(job.header), self._custom_id(name)) for job, name in zip(jobs, names, strict=True)
        ]

    def _job(self, data: bytes) -> tuple[int, bytes]:
        header, upload = JobHeader.decode(data), self._upload
        if header.pool != upload.pool:
            raise MalformedError("WRONG_POOL", "a job is not for the pool of its upload")
        if header.reply_to != self._reply_to:
            raise MalformedError("WRONG_REPLY_TO", "a job does not name this gateway's reply queue")
        if header.batch_id != upload.batch_id or header.index is None:
            raise MalformedError("WRONG_BATCH", "a job is not of the batch of its upload")
        if header.not_after <= self._earliest:
            raise MalformedError("ALREADY_EXPIRED", "a job's deadline has passed")
        if header.not_after > self._latest:
            raise MalformedError("DEADLINE_TOO_LATE", "a job's deadline is after the completion window")
        if header.index >= upload.jobs:
            raise MalformedError("INDEX_OUT_OF_RANGE", "a job's index is not below the number of jobs")
        if self._indexes[header.index]:
            raise MalformedError("DUPLICATE_INDEX", "two jobs have the same index")
        if header.job_id in self._job_ids:
            raise MalformedError("DUPLICATE_JOB_ID", "two jobs have the same id")
        self._indexes[header.index] = 1
        self._job_ids.add(header.job_id)
        return header.index, header.job_id

    def _custom_id(self, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not is_label(value, MAX_CUSTOM_ID):
            raise MalformedError("BAD_CUSTOM_ID", f"a custom id is 1 to {MAX_CUSTOM_ID} printable characters")
        if value in self._custom_ids:
            raise MalformedError("DUPLICATE_CUSTOM_ID", "two jobs have the same custom id")
        self._custom_ids.add(value)
        return value


#: Jobs that came one by one travel together up to these bounds, well below those of a pack.
LINE_PACK_JOBS: Final = 32
LINE_PACK_BYTES: Final = 1 << 20
