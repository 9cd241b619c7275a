"""One bounded request: no redirects, no retries, HTTPS unless the address is this machine's own."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

import urllib3

from ...wire.errors import ConfigurationError, FetchError

DEFAULT_TIMEOUT_S: Final = 10.0
_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, read whole.

    :param headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    headers: Mapping[str, str] | None = None,
    method: Literal["GET", "POST"] = "GET",
    body: bytes | None = None,
) -> Fetched:
    """Ask an address once and return its answer, whatever its status is.

    :param max_bytes: a longer body is refused; it is never read further than that.
    :param timeout_s: for connecting, and again for each read, in seconds.
    :raises ConfigurationError: ``BAD_URL``: not HTTPS, and not HTTP to a loopback address.
    :raises FetchError: ``FETCH_FAILED`` (the network; worth another try) or ``FETCH_TOO_LARGE``.
    """
    _check_url(url)
    try:
        with urllib3.PoolManager(num_pools=1) as pool:
            answer = pool.request(
                method,
                url,
                body=body,
                headers=dict(headers or {}),
                timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                return Fetched(
                    answer.status,
                    {name.lower(): value for name, value in answer.headers.items()},
                    _read(answer, max_bytes),
                )
            finally:
                answer.close()
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        raise FetchError("FETCH_FAILED", f"no answer from {_host(url)}") from None


def _read(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    parts, size = [], 0
    for part in answer.stream(_CHUNK):
        size += len(part)
        if size > max_bytes:
            raise FetchError("FETCH_TOO_LARGE", "the answer is too long", retriable=False)
        parts.append(part)
    return b"".join(parts)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        local = parts.scheme == "http" and _is_loopback(parts.hostname or "")
        good = bool(parts.hostname) and parts.username is None and (parts.scheme == "https" or local)
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError("BAD_URL", "an address must be https://, or http:// of this machine's own")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the address"
