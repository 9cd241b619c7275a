"""Leases on Redis: a message is taken, leased and counted in one step, on the server's clock.

kombu pops a message (BRPOP) before it writes down that it holds it: a consumer that
is killed in between takes the message along. Its leases run on the consumers' clocks,
and nothing counts deliveries. Here each of take, acknowledge, give back and extend is one
script, which Redis runs as a whole.

Of a queue ``q`` the server holds the list ``q`` itself, the hash ``unacked.q`` (delivery
tag to message), the sorted set ``unacked_index.q`` (delivery tag to time of lease), the
hash ``deliveries.q`` (delivery tag to number of deliveries) and the list ``bell.q``,
which wakes one waiting consumer per message and carries nothing.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

#: Bells that wait at most; whoever finds the queue empty clears them.
MAX_BELLS: Final = 1000
#: Leases that are given back in one step at most.
MAX_GIVEN_BACK: Final = 100

_NOW: Final = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000 "

# KEYS: queue, unacked, unacked_index, deliveries, bell. Returns nothing, or [message, tag, deliveries];
# a message without a tag is not leased, and so dropped.
TAKE: Final = (
    _NOW
    + """
local item = redis.call('RPOP', KEYS[1])
if not item then redis.call('DEL', KEYS[5]) return false end
local tag = string.match(string.sub(item, 1, 37), '^1([0-9a-f-]+)$')
if not tag or #tag ~= 36 then return {item, '', 0} end
redis.call('HSET', KEYS[2], tag, item)
redis.call('ZADD', KEYS[3], now, tag)
return {item, tag, redis.call('HINCRBY', KEYS[4], tag, 1)}
"""
)

# KEYS: unacked, unacked_index, deliveries. ARGV: tag.
ACKNOWLEDGE: Final = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[3], ARGV[1])
"""

_GIVE_BACK: Final = """
local function give_back(tag)
  local item = redis.call('HGET', KEYS[2], tag)
  redis.call('HDEL', KEYS[2], tag)
  redis.call('ZREM', KEYS[3], tag)
  if not item then return 0 end
  redis.call('RPUSH', KEYS[1], item)
  redis.call('LPUSH', KEYS[4], '')
  return 1
end
"""

# KEYS: queue, unacked, unacked_index, bell. ARGV: tag.
GIVE_BACK: Final = _GIVE_BACK + "return give_back(ARGV[1])"

# KEYS: as GIVE_BACK. ARGV: seconds of a lease, how many at most. Returns how many were given back.
GIVE_BACK_DUE: Final = (
    _GIVE_BACK
    + _NOW
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
local given = 0
for _, tag in ipairs(due) do given = given + give_back(tag) end
return given
"""
)

# KEYS: unacked_index. ARGV: tags. Returns how many leases still stood and begin anew.
EXTEND: Final = (
    _NOW
    + """
local held = 0
for _, tag in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], tag) then
    redis.call('ZADD', KEYS[1], now, tag)
    held = held + 1
  end
end
return held
"""
)


# KEYS: queue, bell. ARGV: message, most bells.
PUT: Final = """
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LPUSH', KEYS[2], '')
return redis.call('LTRIM', KEYS[2], 0, ARGV[2])
"""

# KEYS: queue, bell, and all else that is held of the queue. ARGV: as PUT, then seconds.
PUT_FOR: Final = (
    PUT.replace("return ", "")
    + """
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
return 1
"""
)

# KEYS: any. ARGV: seconds.
EXPIRE: Final = """
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
return #KEYS
"""


class LeaseKeys(NamedTuple):
    """The names under which the server holds a queue."""

    queue: str
    unacked: str
    leased: str
    deliveries: str
    bell: str

    @classmethod
    def of(cls, queue: str) -> LeaseKeys:
        """Return the names for a queue."""
        return cls(
            queue, f"unacked.{queue}", f"unacked_index.{queue}", f"deliveries.{queue}", f"bell.{queue}"
        )


class Line:
    """One connection, on which scripts run one after another. Any thread may use it.

    To borrow one from redis-py's pool for each script costs more than all the rest of a message.

    :param pool: redis-py's, which knows how to connect.
    """

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._connection = pool.make_connection()
        self._lock = threading.Lock()

    def run(self, script: str, keys: tuple[str, ...], *arguments: object) -> Any:
        """Run a script once and return its answer.

        :raises RedisError, OSError: it may have run or not.
        """
        connection = self._connection
        with self._lock:
            try:
                self._freshen()
                connection.send_command("EVAL", script, len(keys), *keys, *arguments)
                return connection.read_response()
            except (RedisError, OSError) as error:
                if not isinstance(error, ResponseError):
                    connection.disconnect()  # an answer may still be under way
                raise

    def close(self) -> None:
        """Close the connection; it is made anew when it is used."""
        with self._lock:
            self._connection.disconnect()

    def _freshen(self) -> None:
        """Leave a connection that the server has closed, or on which something lies that nobody asked for."""
        connection = self._connection
        try:
            stale = connection.can_read()
        except (RedisError, OSError):
            stale = True
        if stale:
            connection.disconnect()


class Leases:
    """The leases of one queue."""

    def __init__(self, line: Line, queue: str) -> None:
        self._line = line
        self._keys = LeaseKeys.of(queue)

    def acknowledge(self, tag: str) -> None:
        """Forget a message for good."""
        keys = self._keys
        self._line.run(ACKNOWLEDGE, (keys.unacked, keys.leased, keys.deliveries), tag)

    def give_back(self, tag: str) -> None:
        """Put a message back, next in turn; its number of deliveries stays."""
        keys = self._keys
        self._line.run(GIVE_BACK, (keys.queue, keys.unacked, keys.leased, keys.bell), tag)

    def give_back_due(self, lease_s: float) -> int:
        """Put back messages whose lease is older than ``lease_s`` seconds, and return how many."""
        keys = self._keys
        names = (keys.queue, keys.unacked, keys.leased, keys.bell)
        return int(self._line.run(GIVE_BACK_DUE, names, lease_s, MAX_GIVEN_BACK))

    def extend(self, tags: list[str]) -> int:
        """Begin the leases of messages in work anew, and return how many still stood."""
        return int(self._line.run(EXTEND, (self._keys.leased,), *tags)) if tags else 0


def put(line: Line, queue: str, item: bytes, keep_s: int | None = None) -> None:
    """Append a message to a queue and wake one consumer.

    :param keep_s: seconds from now after which the queue is forgotten with all that is in it.
    """
    keys = LeaseKeys.of(queue)
    if keep_s is None:
        line.run(PUT, (keys.queue, keys.bell), item, MAX_BELLS - 1)
    else:
        rest = (keys.unacked, keys.leased, keys.deliveries)
        line.run(PUT_FOR, (keys.queue, keys.bell, *rest), item, MAX_BELLS - 1, keep_s)


def expire(line: Line, queue: str, seconds: int) -> None:
    """Let a queue and what is in work of it be forgotten when nobody comes for it."""
    line.run(EXPIRE, tuple(LeaseKeys.of(queue)), seconds)
