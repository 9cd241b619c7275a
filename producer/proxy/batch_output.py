"""The output and error files of a batch, written as results are verified, kept when the batch ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Self

from ...wire.job import Completion, Embedding
from ..judge import JobResult
from ..ticket import Ticket
from .batch_store import Batch, BatchStore
from .calls import Call
from .errors import ApiError
from .service import Service
from .sse import to_json
from .stores import Stores

#: Receipts are stored, and progress is stated, once in so many results or seconds.
FLUSH_RESULTS: Final = 64
FLUSH_SECONDS: Final = 1.0
_REASONS: Final = {
    "cancelled": ("batch_cancelled", "This request was cancelled before it ran."),
    "expired": ("batch_expired", "This request could not be run before the completion window ended."),
    "untrusted": ("RESULT_NOT_TRUSTED", "The answer came from a worker that is no longer trusted."),
}


class BatchOutput:
    """Takes a batch's results in any order, each once; a context manager.

    Drafts begin anew with each attempt: a ticket hands out again what it has stored.

    :param calls: by ``custom_id``.
    """

    def __init__(
        self, batch_id: str, service: Service, stores: Stores, batches: BatchStore, calls: Mapping[str, Call]
    ) -> None:
        self._batch_id, self._service, self._stores, self._batches = batch_id, service, stores, batches
        self._calls = calls
        self._seen: set[str] = set()
        self._unkept: list[tuple[str, JobResult]] = []
        self._flushed = time.monotonic()
        self._completed = self._failed = self._expired = self._read = self._written = 0

    def __enter__(self) -> Self:
        """Begin both files."""
        self._output = self._stores.files.draft()
        self._errors = self._stores.files.draft()
        self._kept = False
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._output.drop()
            self._errors.drop()

    def add(self, result: JobResult) -> None:
        """Write one verified end.

        :raises DeliveryError: ``PROXY_STORE_UNAVAILABLE``.
        """
        job_id = result.job_id.hex()
        if job_id in self._seen:
            return
        self._seen.add(job_id)
        call = self._calls[result.custom_id]
        response_id = call.response_id(result.job_id)
        self._unkept.append((response_id, result))
        if result.status in ("cancelled", "expired"):
            self._expired += result.status == "expired"
            self._lost(result.custom_id, response_id, result.status)
        else:
            self._answered(call, response_id, result)
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        if late or len(self._unkept) >= FLUSH_RESULTS:
            self._flush()

    def _answered(self, call: Call, response_id: str, result: JobResult) -> None:
        try:
            status, body = 200, self._service.render(call, response_id, result)
            self._count(result)
        except ApiError as error:
            status, body = error.status, error.body
        response = {"status_code": status, "request_id": response_id, "body": body}
        line = _line(response_id, result.custom_id, response, None)
        if status == 200:
            self._completed += 1
            self._output.write(line)
        else:
            self._failed += 1
            self._errors.write(line)

    def _count(self, result: JobResult) -> None:
        for output in result.response.outputs if result.response is not None else ():
            match output:
                case Embedding():
                    self._read += output.tokens
                case Completion():
                    self._read += output.input_tokens
                    self._written += output.output_tokens

    def _lost(self, custom_id: str, response_id: str, why: str) -> None:
        code, message = _REASONS[why]
        self._failed += 1
        self._errors.write(_line(response_id, custom_id, None, {"code": code, "message": message}))

    def _flush(self) -> None:
        self._stores.receipts.keep(self._unkept)
        self._unkept.clear()
        self._flushed = time.monotonic()
        self._batches.change(self._batch_id, self._state)

    def _state(self, batch: Batch) -> None:
        batch.completed, batch.failed = self._completed, self._failed
        batch.input_tokens, batch.output_tokens = self._read, self._written

    def finish(self, ticket: Ticket) -> None:
        """Write down what has no answer, then keep files and the last state in one step.

        :raises DeliveryError: ``PROXY_STORE_UNAVAILABLE``.
        """
        self._flush()
        cancelled = self._batches.get(self._batch_id).status == "cancelling"
        for job_id, record in ticket.jobs.items():
            if job_id not in self._seen:
                why = "cancelled" if cancelled else "expired"
                why = "untrusted" if job_id in ticket.replies else why
                self._expired += why == "expired"
                self._lost(record.custom_id, "batch_req_" + job_id, why)
        end = "cancelled" if cancelled else "expired" if self._expired else "completed"

        def ended(batch: Batch) -> None:
            self._state(batch)
            batch.status = end
            if self._output.size:
                batch.output_file_id = self._output.keep(f"{batch.id}_output.jsonl", "batch_output").id
            if self._errors.size:
                batch.error_file_id = self._errors.keep(f"{batch.id}_error.jsonl", "batch_output").id

        self._batches.change(self._batch_id, _finalizing)
        with self._batches.lock, self._stores.database.transaction():
            self._batches.change(self._batch_id, ended)
        self._kept = True
        for draft in (self._output, self._errors):
            if not draft.size:
                draft.drop()


def _finalizing(batch: Batch) -> None:
    if batch.status != "cancelling":
        batch.status = "finalizing"


def _line(response_id: str, custom_id: str, response: Any, error: Any) -> bytes:
    value = {"id": response_id, "custom_id": custom_id, "response": response, "error": error}
    return to_json(value) + b"\n"
