"""Redis: whether it keeps what it accepted, who may come in, and what this user may do.

Rights are asked of Redis itself, by ``redis.acl_check_cmd`` in a script (redis.io, "Redis Lua API
reference"; Redis 7.0): nothing is run. Settings: docs/brokers/redis.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from ....broker_config.carriers import carrier_of, unusable
from ....broker_config.queues import jobs_queue
from ....broker_config.redis.client import redis_client
from ....broker_config.redis.lease import LeaseKeys
from ....broker_config.settings import BrokerSettings
from .finding import Finding

REPLIES: Final = "reply." + "0" * 32
_CHECK: Final = """
local said = {}
for _, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  said[#said + 1] = redis.acl_check_cmd(unpack(words)) and 1 or 0
end
return said
"""
Commands = dict[str, tuple[str, ...]]


def redis_broker(settings: BrokerSettings, pool: str | None, role: str | None) -> Iterator[Finding]:
    """Yield what can be said of a Redis that answers.

    :param role: whose rights this user must have, and no more; it needs ``pool``.
    :raises DeliveryError: ``BROKER_UNREACHABLE``.
    """
    carrier = carrier_of(settings)
    try:
        with redis_client(settings) as client:
            if settings.profile != "embedded":
                yield _line(settings)
                yield from _keeps(client)
                if role is not None and pool is not None:
                    yield from _rights(client, pool, role)
    except carrier.lost as error:
        raise unusable(carrier, error) from None


def _line(settings: BrokerSettings) -> Finding:
    parts = urlsplit(settings.url)
    local = parts.scheme == "redis+socket" or _is_loopback(parts.hostname or "")
    if parts.scheme == "redis" and not local:
        return Finding(
            "BROKER_LINE",
            "warning",
            "Redis is spoken to without TLS",
            "its password and the sizes and times of jobs can be read on the way; jobs cannot",
            "rediss://, with EPHEMERALML_TLS_CA_FILE where the roots are your own",
        )
    if parts.password is None and settings.tls_cert_file is None and not local:
        return Finding(
            "BROKER_LINE",
            "problem",
            "Redis lets us in without a password",
            "whoever reaches its port can delete jobs and send his own",
            "a user per role: ephemeralml queues policy worker",
        )
    seen = "the line to Redis is this machine's own, or TLS with a password or certificate"
    return Finding("BROKER_LINE", "ok", seen)


def _keeps(client: Redis) -> Iterator[Finding]:
    try:
        found: Any = client.config_get("appendonly", "maxmemory-policy")
    except NoPermissionError:
        seen = "this user may not read Redis's settings, as it should be"
        yield Finding("BROKER_KEEPS", "ok", f"{seen}; see docs/brokers/redis.md for what they must be")
        return
    if found.get("appendonly") == "yes":
        yield Finding("BROKER_KEEPS", "ok", "Redis writes down what it accepts")
    else:
        yield Finding(
            "BROKER_KEEPS",
            "problem",
            "appendonly is off",
            "a restart of Redis loses the jobs that were accepted since its last snapshot",
            "appendonly yes, appendfsync everysec (docs/brokers/redis.md)",
        )
    policy = found.get("maxmemory-policy")
    if policy == "noeviction":
        yield Finding("BROKER_EVICTION", "ok", "Redis deletes nothing when it is full")
    else:
        fix = "maxmemory-policy noeviction"
        yield Finding("BROKER_EVICTION", "problem", f"maxmemory-policy is {policy}", "it deletes jobs", fix)


def wanted(pool: str, role: str) -> tuple[Commands, Commands]:
    """Return what a role does and what it must never be able to do, each as commands."""
    jobs, replies = LeaseKeys.of(jobs_queue(pool)), LeaseKeys.of(REPLIES)
    take = {"worker": jobs, "client": replies, "relay": replies}.get(role)
    give = replies if role == "worker" else jobs
    other = LeaseKeys.of(jobs_queue("doctor-elsewhere"))
    needs: Commands = {
        f"put into {give.queue.partition('.')[0]} queues": (f"LPUSH {give.queue} x", f"LPUSH {give.bell} x"),
        "use the blob store": ("SET blob:x x", "GET blob:x", "DEL blob:x"),
    }
    refused: Commands = {
        "administer the server": ("CONFIG GET appendonly", "ACL LIST", "FLUSHALL", "SHUTDOWN"),
        "see every key": ("KEYS *",),
        "reach other pools": (f"LPUSH {other.queue} x", f"RPOP {other.queue}"),
    }
    if take is not None:
        needs[f"take from {take.queue.partition('.')[0]} queues"] = (
            f"RPOP {take.queue}",
            f"HSET {take.unacked} x x",
            f"ZADD {take.leased} 1 x",
        )
    if take is not jobs:
        refused["take jobs"] = (f"RPOP {jobs.queue}", f"DEL {jobs.queue}", f"HDEL {jobs.unacked} x")
    if take is not replies:
        refused["take replies"] = (f"RPOP {replies.queue}", f"DEL {replies.queue}")
    return needs, refused


def _rights(client: Redis, pool: str, role: str) -> Iterator[Finding]:
    needs, refused = wanted(pool, role)
    lines = [line for commands in (*needs.values(), *refused.values()) for line in commands]
    ask = f"ephemeralml queues policy {role} --pool {pool} prints the rule"
    try:
        said: Any = client.eval(_CHECK, 1, jobs_queue(pool), *lines)
    except NoPermissionError:
        seen = f"this user may run no script on {jobs_queue(pool)}"
        yield Finding("BROKER_RIGHTS", "problem", seen, f"it has not the rights of a {role}", ask)
        return
    except ResponseError:
        seen = "this Redis cannot say what a user may do"
        yield Finding("BROKER_RIGHTS", "warning", seen, "it is older than 7.0", "Redis 7.0 or newer")
        return
    may = dict(zip(lines, map(bool, said), strict=True))
    lacks = [what for what, commands in needs.items() if not all(may[line] for line in commands)]
    if lacks:
        seen = f"this user cannot {', '.join(lacks)}"
        yield Finding("BROKER_RIGHTS", "problem", seen, f"a {role} does not work without it", ask)
    else:
        yield Finding("BROKER_RIGHTS", "ok", f"this user may do what a {role} does in pool {pool}")
    more = [what for what, commands in refused.items() if any(may[line] for line in commands)]
    if more:
        seen = f"this user may also {', '.join(more)}"
        cause = "who gets hold of its password, the host for one, can lose or read more than a role's share"
        yield Finding("BROKER_RIGHTS_WIDE", "warning", seen, cause, ask)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
