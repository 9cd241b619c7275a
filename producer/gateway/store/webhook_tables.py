"""The tables of webhooks: where a tenant's events go, and what became of each. No secret lies here."""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import Boolean, Column, Double, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from .models import Id, metadata

DeliveryState = Literal["pending", "delivered", "failed"]

webhook_endpoints: Final = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Id, primary_key=True),  # never shown
    Column("tenant_id", Id, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, index=True),
    # Shown as we_<32 hexadecimal digits>; its keys are derived from it and the gateway's master secret.
    Column("endpoint_id", LargeBinary(16), nullable=False, unique=True),
    Column("url", String(2048), nullable=False),
    Column("description", String(256), nullable=False),
    Column("events", Text, nullable=False),  # types with spaces between
    Column("signing", String(8), nullable=False),  # v1 or v1a
    Column("key_version", Integer, nullable=False),
    Column("old_key_until", Double),  # until then the version before signs too
    Column("key_check", LargeBinary(8), nullable=False),  # tells another master secret from ours
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", String(64)),
    Column("disabled_at", Double),
    Column("failing_since", Double),  # no attempt has succeeded since
    Column("created_at", Double, nullable=False),
)

#: One row for each event and endpoint. What is sent is made of it again at each attempt.
webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    # Shown, and sent as webhook-id: msg_<32 hexadecimal digits>, the same at every attempt and replay.
    Column("message_id", LargeBinary(16), nullable=False, unique=True),
    Column("endpoint", Id, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(32), nullable=False),
    Column("batch", Id, ForeignKey("batches.id", ondelete="CASCADE")),
    Column("index", Integer),  # of a job
    Column("data", Text),  # JSON, public values only
    Column("happened_at", Double, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Double),  # when it is due; null once it has ended
    Column("lease_until", Double),  # a relay is sending it
    Column("last_at", Double),
    Column("last_status", Integer),  # of HTTP; 0 without an answer
    Column("last_code", String(64)),
    Column("ended_at", Double),
    Index("ix_webhook_deliveries_state_next_at", "state", "next_at"),
    Index("ix_webhook_deliveries_endpoint_id", "endpoint", "id"),
    Index("ix_webhook_deliveries_batch", "batch"),  # for their removal with it
)
