"""Batches as OpenAI states them, in the proxy's database."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .database import Database
from .errors import ApiError

WINDOW_SECONDS: Final = 86_400
#: States in which there is nothing left to do.
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass
class Batch:
    """One batch; times are Unix seconds.

    :param times: when each state began, by OpenAI's names (``in_progress_at`` and so on).
    :param errors: of the input file: ``{code, message, line, param}``.
    """

    id: str
    created: float
    endpoint: str
    input_file_id: str
    expires: int
    metadata: dict[str, str] | None = None
    status: str = "validating"
    model: str = ""
    times: dict[str, int] = field(default_factory=dict)
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return OpenAI's batch object."""
        names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model or None,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created),
            "expires_at": self.expires,
            **{f"{name}_at": self.times.get(name) for name in names},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": self._usage(),
            "metadata": self.metadata,
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass
class BatchStore:
    """Batches by id. Changes are made under :attr:`lock`, so that no state is lost between threads."""

    database: Database
    now: Callable[[], float] = time.time
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, endpoint: str, input_file_id: str, metadata: dict[str, str] | None) -> Batch:
        """Write down a new batch, which begins with its validation."""
        now = self.now()
        batch = Batch(
            "batch_" + secrets.token_hex(16),
            now,
            endpoint,
            input_file_id,
            int(now) + WINDOW_SECONDS,
            metadata,
        )
        self.database.run(
            "INSERT INTO batches VALUES (?, ?, ?, ?)", batch.id, now, batch.status, json.dumps(asdict(batch))
        )
        return batch

    def get(self, batch_id: str) -> Batch:
        """Return a batch.

        :raises ApiError: 404.
        """
        rows = self.database.rows("SELECT value FROM batches WHERE id = ?", batch_id)
        if not rows:
            raise ApiError(404, "No such Batch object.", param="batch_id", code="batch_not_found")
        return Batch(**json.loads(rows[0][0]))

    def all(self) -> list[Batch]:
        """Return all batches, the newest first."""
        rows = self.database.rows("SELECT value FROM batches ORDER BY created DESC, id DESC")
        return [Batch(**json.loads(row[0])) for row in rows]

    def unfinished(self) -> list[str]:
        """Return the ids of batches in which something is left to do, the oldest first."""
        rows = self.database.rows("SELECT id, status FROM batches ORDER BY created, id")
        return [batch_id for batch_id, status in rows if status not in ENDED]

    def uses(self, file_id: str) -> bool:
        """Return whether an unfinished batch reads a file."""
        return any(self.get(batch_id).input_file_id == file_id for batch_id in self.unfinished())

    def change(self, batch_id: str, change: Callable[[Batch], None]) -> Batch:
        """Change a batch and write it down in one step; a new state's time is noted."""
        with self.lock:
            batch = self.get(batch_id)
            before = batch.status
            change(batch)
            if batch.status != before:
                batch.times[batch.status] = int(self.now())
            self.database.run(
                "UPDATE batches SET status = ?, value = ? WHERE id = ?",
                batch.status,
                json.dumps(asdict(batch)),
                batch_id,
            )
            return batch
