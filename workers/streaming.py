"""Sends texts while they are made: one chunk per stream and tick, whatever there is to say.

Size and pace of chunks do not depend on the text, so that no tokens can be counted from outside
(spec/stream.md, section 4). A chunk that cannot be published is lost: the result brings the text.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ..wire.chunk import MAX_CHUNKS, RUN_BYTES, ChunkHeader, fill, seal_chunk
from ..wire.errors import Error
from ..wire.header import JobHeader
from ..wire.job import Job
from ..wire.keys import PublicKey
from ..wire.sealing import Sealer

LOG: Final = logging.getLogger("ephemeralml.worker")
INTERVAL_SECONDS: Final = 0.25
#: Jobs that stream at once on a worker; others get their text with the result.
MAX_STREAMS: Final = 64
MAX_SEALERS: Final = 256

Publish = Callable[[str, bytes], None]


class ChunkStream:
    """The chunks of one run of one job."""

    def __init__(self, header: JobHeader, job: Job, sealer: Sealer, publish: Publish) -> None:
        self._header, self._salt, self._sealer, self._publish = header, job.salt, sealer, publish
        self._key_id = job.reply_key.key_id
        self._run = os.urandom(RUN_BYTES)
        self._index = 0
        self._pending: list[tuple[int, str]] = []
        self._ended = False
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    def give(self, place: int, text: str) -> None:
        """Take the next piece of an input's text; never blocks on the broker."""
        with self._lock:
            if self._pending and self._pending[-1][0] == place:
                text = self._pending.pop()[1] + text
            self._pending.append((place, text))

    def tick(self) -> None:
        """Send one chunk, with or without text."""
        with self._sending:
            if not self._ended:
                self._send(last=False)

    def finish(self, *, whole: bool) -> None:
        """Send what is left where it fits into one chunk; nothing is sent afterwards.

        :param whole: the job has a result, whose text this is.
        """
        with self._sending:
            with self._lock:
                fits = not fill(self._pending)[1]
            if whole and fits and not self._ended:
                self._send(last=True)
            self._ended = True

    def _send(self, *, last: bool) -> None:
        with self._lock:
            deltas, self._pending = fill(self._pending)
        if self._index >= MAX_CHUNKS:
            return
        header = self._header
        chunk = ChunkHeader(header.job_id, header.pool, self._key_id, self._run, self._index, last)
        self._index += 1
        try:
            self._publish(header.reply_to, seal_chunk(self._sealer, self._salt, chunk, deltas))
        except Error as error:
            LOG.debug("a chunk was lost: %s", error.code)


class ChunkStreams:
    """All streams of a worker, and the thread that keeps their pace.

    :param publish: sends a message's body to a reply queue. :param monotonic: seconds, for rekeying.
    :param interval_s: seconds between two chunks of a stream.
    """

    def __init__(
        self,
        publish: Publish,
        *,
        monotonic: Callable[[], float],
        interval_s: float = INTERVAL_SECONDS,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._publish, self._monotonic = publish, monotonic
        self._interval_s, self._max_streams = interval_s, max_streams
        self._streams: set[ChunkStream] = set()
        self._sealers: OrderedDict[bytes, Sealer] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, header: JobHeader, job: Job) -> ChunkStream | None:
        """Return a stream for a job that asks for one; None where it does not, or too many are open."""
        if job.task != "generate" or job.parameters.get("stream") is not True:
            return None
        with self._changed:
            if len(self._streams) >= self._max_streams or self._closed.is_set():
                return None
            stream = ChunkStream(header, job, self._sealer(job.reply_key), self._publish)
            self._streams.add(stream)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="chunks", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return stream

    def end(self, stream: ChunkStream, *, whole: bool) -> None:
        """Finish a stream; see :meth:`ChunkStream.finish`."""
        with self._changed:
            self._streams.discard(stream)
        try:
            stream.finish(whole=whole)
        except Exception as error:  # chunks are optional: no fault of theirs may cost the job its result
            LOG.warning("a stream was not finished: an unexpected %s", type(error).__name__)

    def tick(self) -> None:
        """Send one chunk of every stream."""
        with self._changed:
            streams = list(self._streams)
        for stream in streams:
            stream.tick()

    def close(self) -> None:
        """Send nothing more and drop the keys; harmless when called again."""
        self._closed.set()
        with self._changed:
            self._streams.clear()
            self._sealers.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._streams or self._closed.is_set())
            if self._closed.wait(self._interval_s):
                return
            try:
                self.tick()
            except Exception as error:  # this thread serves every stream: it must outlive any fault
                LOG.warning("chunks were not sent: an unexpected %s", type(error).__name__)

    def _sealer(self, key: PublicKey) -> Sealer:
        sealer = self._sealers.get(key.key_id)
        if sealer is None:
            sealer = self._sealers[key.key_id] = Sealer(key, "chunk", monotonic=self._monotonic)
            while len(self._sealers) > MAX_SEALERS:
                self._sealers.popitem(last=False)
        self._sealers.move_to_end(key.key_id)
        return sealer
