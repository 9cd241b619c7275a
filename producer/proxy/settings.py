"""The proxy's settings, and what they may not be."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ...wire.errors import ConfigurationError
from ...wire.header import check_pool

StreamMode = Literal["after-receipt", "as-sealed"]

DEFAULT_PORT: Final = 8470
MIB: Final = 1 << 20
#: OpenAI's limit for the input file of a batch.
MAX_FILE_BYTES: Final = 200 * MIB


@dataclass(frozen=True)
class ProxySettings:
    """How the proxy serves.

    :param pools: of workers, at least one; the first that runs a model answers for it.
    :param aliases: more names of models, each for a pool. :param folder: for everything it keeps.
    :param host: an address of this machine's loopback. :param port: 0 takes a free one.
    :param timeout_s: seconds until workers refuse a job, and the caller hears that nobody answered.
    :param max_body_bytes: of a request, uploads apart. :param max_file_bytes: of an upload.
    :param max_output_tokens: of a text whose request names no limit.
    :param receipts_kept: :param receipts_bytes: :param receipts_days: older receipts are forgotten.
    :param allow_truncation: answer where an input was longer than the model reads.
    """

    pools: tuple[str, ...]
    folder: Path
    aliases: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    timeout_s: int = 60
    stream: StreamMode = "after-receipt"
    max_body_bytes: int = 32 * MIB
    max_file_bytes: int = MAX_FILE_BYTES
    max_output_tokens: int = 1024
    receipts_kept: int = 100_000
    receipts_bytes: int = 512 * MIB
    receipts_days: float = 30.0
    allow_truncation: bool = False
    dangerous_no_token: bool = False
    dangerous_not_loopback: bool = False

    def __post_init__(self) -> None:
        for pool in (*self.pools, *self.aliases.values()):
            check_pool(pool)
        for name, pool in self.aliases.items():
            if pool not in self.pools or not 1 <= len(name) <= 256:
                raise ConfigurationError("BAD_ALIAS", "an alias is NAME=POOL, for a pool that is served")
        if not self.pools:
            raise ConfigurationError("NO_POOL", "name at least one pool with --pool")
        if not self.dangerous_not_loopback and not is_loopback(self.host):
            raise ConfigurationError(
                "NOT_LOOPBACK",
                "the proxy hands out plaintext and listens on loopback only; "
                "--dangerous-not-loopback lets everyone who reaches it read the traffic",
            )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's loopback, by address or as ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_aliases(texts: list[str]) -> dict[str, str]:
    """Read aliases of the form ``NAME=POOL``.

    :raises ConfigurationError: ``BAD_ALIAS``.
    """
    aliases: dict[str, str] = {}
    for text in texts:
        name, equals, pool = text.rpartition("=")
        if not equals or not name or name in aliases:
            raise ConfigurationError("BAD_ALIAS", "an alias is NAME=POOL, each name once")
        aliases[name] = pool
    return aliases
