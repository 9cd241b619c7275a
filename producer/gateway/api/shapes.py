"""The JSON of the API's answers. Times are Unix seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from ..store.batches import Batch

Status = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
]


class Counts(BaseModel):
    """Jobs of a batch by their end."""

    total: int
    succeeded: int
    failed: int
    expired: int
    cancelled: int
    rejected: int
    pending: int = Field(description="Without an end yet; in a batch that has ended: never answered.")


class BatchShape(BaseModel):
    """A batch."""

    id: str = Field(pattern="^batch_[0-9a-f]{32}$", description="The batch id of the jobs' headers.")
    object: Literal["batch"] = "batch"
    pool: str
    status: Status
    code: str | None = Field(description="Why, where the status is failed.")
    counts: Counts
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    input_root: str | None = Field(description="Hexadecimal.")
    metadata: dict[str, str]

    @classmethod
    def of(cls, batch: Batch) -> BatchShape:
        """Return the shape of a stored batch."""
        counts = Counts(
            total=batch.jobs,
            pending=batch.jobs - batch.ended,
            **{str(end): number for end, number in batch.counts.items()},
        )
        times = {f"{state}_at": int(at) for state, at in batch.times.items()}
        optional = (
            "in_progress_at",
            "finalizing_at",
            "completed_at",
            "failed_at",
            "expired_at",
            "cancelling_at",
            "cancelled_at",
        )
        return cls(
            id=batch.name,
            pool=batch.pool,
            status=batch.state,
            code=batch.code,
            counts=counts,
            created_at=int(batch.created_at),
            expires_at=int(batch.expires_at),
            input_root=None if batch.input_root is None else batch.input_root.hex(),
            metadata=batch.metadata,
            **{name: times.get(name) for name in optional},
        )


class BatchPage(BaseModel):
    """Batches, the newest first."""

    object: Literal["list"] = "list"
    data: list[BatchShape]
    has_more: bool
    last_id: str | None = Field(description="Give it as `after` for the next page.")


class Worker(BaseModel):
    """A worker as it announces itself. The gateway verifies nothing of it; clients must."""

    worker_id: str
    announcement: str = Field(description="Key of the announcement: /v1/blobs/{key}.")
    epoch: int
    key_id: str = Field(description="Of the fleet key, hexadecimal.")
    model: str
    model_version: str
    model_hash: str
    tasks: list[str]
    platform: str
    evidence_hash: str
    security_mode: str
    issued_at: int
    not_after: int


class Pool(BaseModel):
    """A pool, and where its jobs must have their replies sent to."""

    name: str
    reply_to: str = Field(description="The gateway's reply queue: `reply_to` of every job's header.")
    workers: list[Worker]


class Pools(BaseModel):
    """All pools that announce workers."""

    data: list[Pool]


class Blobs(BaseModel):
    """Keys of blobs."""

    data: list[str]


class Identity(BaseModel):
    """Whose API key this is, and what counts against its quotas."""

    tenant: str
    key: str = Field(description="The key's public prefix.")
    scopes: list[str]
    jobs_in_flight: int
    max_jobs: int
    bytes_stored: int
    max_bytes: int
    reply_to: str


class Health(BaseModel):
    """Whether this process serves."""

    status: Literal["ok"] = "ok"
