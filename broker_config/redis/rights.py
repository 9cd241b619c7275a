"""The least rights per role, as rules of Redis's access control lists (redis.io, "ACL").

Redis looks at the command of a script and at each command inside it, and each needs one selector
``(…)`` that allows it on its keys. So a submitter may append to a pool's queue, by the very
script that a worker takes with, and still take nothing from it. Selectors need Redis 7.
"""

from __future__ import annotations

from typing import Final

from ...wire.errors import ConfigurationError
from .lease import LeaseKeys

# Connections begin and end; nobody may look at others' connections or close them.
_BASE: Final = "resetchannels -@all +@connection -@dangerous"
_TAKE: Final = (
    "+eval +time +brpop +rpop +del +hset +zadd +hincrby +hget +hdel +zrem +zscore +zrangebyscore "
    "+rpush +lpush +ltrim +expire"
)
_BLOBS: Final = (
    "(~blob:* ~blob-draft:* +eval +time +get +set +getrange +exists +append +expire +del +rename "
    "+renamenx +persist +pttl +pexpire) (+scan)"
)
_EVENTS: Final = "(&/0.celeryev/* +publish) (~_kombu.binding.celeryev +smembers +sadd) (+multi +exec)"
_ROLES: Final = ("worker", "client", "relay", "operator")


def rights(role: str) -> str:
    """Return the rule of a role; ``POOL`` stands for a pool, ``PASSWORD`` for a password.

    :raises ConfigurationError: ``UNKNOWN_ROLE``.
    """
    if role not in _ROLES:
        raise ConfigurationError("UNKNOWN_ROLE", f"the roles are {', '.join(_ROLES)}")
    jobs, replies = "jobs.POOL", "reply.*"
    if role == "worker":
        parts = [_consume(jobs), _append(replies), _keep(replies), _depth(jobs), _BLOBS, _EVENTS]
    elif role == "operator":
        parts = [_append(jobs), _depth(jobs), _BLOBS]
    else:
        parts = [_append(jobs), _depth(jobs), _consume(replies), _depth(replies), _BLOBS]
    return f"user {role} on >PASSWORD {_BASE} {' '.join(parts)}"


def _consume(queue: str) -> str:
    keys = " ".join(f"~{key}" for key in LeaseKeys.of(queue))
    return f"({keys} {_TAKE})"


def _append(queue: str) -> str:
    keys = LeaseKeys.of(queue)
    return f"(~{keys.queue} ~{keys.bell} +eval) (~{keys.queue} +lpush) (~{keys.bell} +lpush +ltrim)"


def _keep(queue: str) -> str:
    keys = " ".join(f"~{key}" for key in LeaseKeys.of(queue))
    return f"({keys} +eval +expire)"


def _depth(queue: str) -> str:
    keys = LeaseKeys.of(queue)
    return f"(~{keys.queue} +llen) (~{keys.leased} +zcard)"
