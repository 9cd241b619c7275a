"""Forks relays from a process that has imported everything, so that killing many of them is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

from ...delivery import nursery

PRELOADED = (
    "alembic.command",
    "ephemeralml.broker_config.redis.carrier",
    "ephemeralml.producer.cli.relay",
    "ephemeralml.producer.gateway.relay.service",
    "ephemeralml.producer.gateway.serve",
    "psycopg",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
)


class Forks(nursery.Nursery):
    """Starts relays; a context manager that ends all of them."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.relay.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[3],
        )
        return self


if __name__ == "__main__":
    nursery.PRELOADED = PRELOADED
    nursery.main()
