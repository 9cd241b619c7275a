"""The store's one reply queue, which every gateway and relay on it shares."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, select

from .models import identity


def ensure(connection: Connection) -> None:
    """Draw the reply queue's name where the store has none yet; called by the migration, under its lock."""
    if connection.execute(select(identity.c.id)).first() is None:
        name = "reply." + secrets.token_hex(16)
        connection.execute(identity.insert().values(id=1, reply_to=name, created_at=time.time()))


def reply_to(connection: Connection) -> str:
    """Return the queue that workers answer to: ``reply.`` and 32 hexadecimal digits."""
    return str(connection.execute(select(identity.c.reply_to)).scalar_one())
