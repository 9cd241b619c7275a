"""Names of queues: ``jobs.<pool>`` for jobs, ``reply.<32 hexadecimal digits>`` for replies."""

from __future__ import annotations

import re
from typing import Final

from ..wire.errors import MalformedError

_POOL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_REPLY: Final = re.compile(r"reply\.[0-9a-f]{32}")


def jobs_queue(pool: str) -> str:
    """Return the name of a pool's queue.

    :raises MalformedError: ``BAD_POOL``.
    """
    if _POOL.fullmatch(pool) is None:
        raise MalformedError("BAD_POOL", "a pool is named with a-z, 0-9 and '-', at most 63 of them")
    return f"jobs.{pool}"


def check_reply_to(name: str) -> str:
    """Return ``name`` when it is a reply queue: a job must not make a worker write elsewhere.

    :raises MalformedError: ``BAD_REPLY_TO``.
    """
    if _REPLY.fullmatch(name) is None:
        raise MalformedError("BAD_REPLY_TO", "reply_to is not a reply queue")
    return name
