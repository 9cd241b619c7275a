"""The tables of the gateway's store. Ciphertext, hashes, sizes and times; nothing that opens a job.

Written as SQLAlchemy Core tables: a batch has up to 50,000 jobs, so nothing here ever becomes an
object per job. Times are Unix seconds. What changes here needs a migration beside it; a test holds
the two against each other on SQLite and PostgreSQL.
"""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

#: States of a batch as the OpenAI batch API names them, and ``staging``, which no answer ever shows:
#: an upload that has not been accepted yet.
BatchState = Literal[
    "staging",
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
]
ACTIVE: Final[tuple[BatchState, ...]] = ("validating", "in_progress", "finalizing", "cancelling")
ENDED: Final[tuple[BatchState, ...]] = ("completed", "failed", "expired", "cancelled")
#: Ends of a job; null in the table until it has ended.
JobEnd = Literal["succeeded", "failed", "expired", "cancelled", "rejected"]
JOB_ENDS: Final[tuple[JobEnd, ...]] = ("succeeded", "failed", "expired", "cancelled", "rejected")
PackState = Literal["staged", "ready", "submitted"]

#: SQLite numbers rows by itself only where the key is INTEGER.
Id: Final = BigInteger().with_variant(Integer, "sqlite")

#: Constraints get names, so that migrations can name them on both databases.
metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: One row: the queue that workers answer to. Every gateway and relay on this store shares it.
identity: Final = Table(
    "identity",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("reply_to", String(38), nullable=False),
    Column("created_at", Double, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

#: Who shares the gateway. Nothing of one tenant's is ever shown to another.
tenants: Final = Table(
    "tenants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("max_jobs", BigInteger, nullable=False),  # accepted and not ended, of all batches together
    Column("max_bytes", BigInteger, nullable=False),  # packs and replies stored
    Column("rate_per_s", Double, nullable=False),
    Column("rate_burst", Integer, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
)

#: A key's SHA-256; the key itself is shown once and kept nowhere.
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("prefix", String(16), nullable=False, unique=True),  # public: finds and names the key
    Column("hash", LargeBinary(32), nullable=False),
    Column("name", String(63), nullable=False),
    Column("scopes", String(63), nullable=False),  # words of read, write, admin, with spaces between
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)

batches: Final = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True),  # never shown
    Column("tenant_id", Id, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    # The 16 bytes of the sealed headers, chosen by the client; shown as batch_<32 hexadecimal digits>.
    Column("batch_id", LargeBinary(16), nullable=False, unique=True),
    Column("pool", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("code", String(64)),  # why the state is failed
    Column("input_root", LargeBinary(32)),  # without it no statement can be asked for
    Column("metadata", Text),  # a small JSON object of texts, visible to the gateway
    Column("idempotency_key", String(128)),
    Column("request_digest", LargeBinary(32)),  # SHA-256 of the whole body, once accepted
    Column("window_s", Integer, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("expired", Integer, nullable=False, default=0),
    Column("cancelled", Integer, nullable=False, default=0),
    Column("rejected", Integer, nullable=False, default=0),
    # How many have ended, which is also how many ordinals are given out; the row's lock orders them.
    Column("ended", Integer, nullable=False, default=0),
    Column("packs", Integer, nullable=False, default=0),
    Column("packs_submitted", Integer, nullable=False, default=0),
    Column("bytes_stored", BigInteger, nullable=False, default=0),  # packs and replies
    Column("created_at", Double, nullable=False),
    Column("staged_until", Double),  # while staging: swept afterwards
    Column("in_progress_at", Double),
    Column("finalizing_at", Double),
    Column("completed_at", Double),
    Column("failed_at", Double),
    Column("expired_at", Double),
    Column("cancelling_at", Double),
    Column("cancelled_at", Double),
    Column("expires_at", Double, nullable=False),
    Column("last_reply_at", Double),
    Column("seal_digest", LargeBinary(32)),  # of the batch file that a worker was asked to seal
    Column("seal_asked_at", Double),
    Column("lease_until", Double),  # a relay works on this batch's state
    UniqueConstraint("tenant_id", "idempotency_key"),
    Index("ix_batches_tenant_id_id", "tenant_id", "id"),
    Index("ix_batches_state_expires_at", "state", "expires_at"),
)

#: Packs of sealed jobs as they were uploaded; a pack is what is put onto the queue.
packs: Final = Table(
    "packs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("batch", Id, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("ended", Integer, nullable=False, default=0),
    Column("size", Integer, nullable=False),
    Column("submitted_at", Double),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease_until", Double),  # a relay is submitting it
    # Last, so that SQLite reads it only when asked; null once all its jobs have ended.
    Column("data", LargeBinary),
    UniqueConstraint("batch", "number"),
    Index("ix_packs_state_lease_until_id", "state", "lease_until", "id"),
)

#: One row per job, written and read in bulk; found by batch and index, which every outcome names.
jobs: Final = Table(
    "jobs",
    metadata,
    Column("batch", Id, primary_key=True, autoincrement=False),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("job_id", LargeBinary(16), nullable=False),
    Column("custom_id", String(128)),
    Column("pack", Integer, nullable=False),  # number of its pack
    Column("status", String(16)),  # one of JOB_ENDS
    Column("code", String(64)),
    Column("ordinal", Integer),  # its place in order of arrival, from 0; finds its reply
    Column("ended_at", Double),
    ForeignKeyConstraint(["batch"], ["batches.id"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

#: Packs of replies to one batch, in order of arrival. Row ``first`` holds ordinals first … first + count - 1.
replies: Final = Table(
    "replies",
    metadata,
    Column("batch", Id, primary_key=True, autoincrement=False),
    Column("first", Integer, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("arrived_at", Double, nullable=False),
    Column("indexes", LargeBinary, nullable=False),  # of the jobs, 16 bits each, big-endian, in their order
    Column("data", LargeBinary, nullable=False),  # wire.pack.encode_replies
    ForeignKeyConstraint(["batch"], ["batches.id"], ondelete="CASCADE"),
)

#: What a worker signed when a batch was whole (spec/batch.md).
statements: Final = Table(
    "statements",
    metadata,
    Column("batch", Id, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),  # COSE_Sign1
    Column("created_at", Double, nullable=False),
)

#: Transactional outbox: written in the transaction of what happened, taken by a relay afterwards.
events: Final = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(32), nullable=False),
    Column("batch", Id, ForeignKey("batches.id", ondelete="CASCADE")),
    Column("index", Integer),  # of a job
    Column("data", Text),  # JSON, public values only
    Column("created_at", Double, nullable=False),
    Column("lease_until", Double),  # a relay works on it
    Column("attempts", Integer, nullable=False, default=0),
    Column("done_at", Double),
    Index("ix_events_done_at_id", "done_at", "id"),
    Index("ix_events_batch", "batch"),  # for their removal with it
)
