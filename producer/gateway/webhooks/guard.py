"""Where a webhook may go: addresses of the public internet, checked when the connection is made.

A tenant chooses the address, so the sender could be made to speak to the gateway's own network:
server-side request forgery. A name is resolved once for each attempt, every address that it has is
judged, and the connection goes to the judged address itself: a name that answers otherwise the next
time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from ....wire.errors import ConfigurationError, FetchError

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

MAX_URL_CHARS: Final = 2048
MAX_ADDRESSES: Final = 32
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?")
_PATH: Final = re.compile(r"[!-~]*")

#: Besides what Python calls not global (IANA's registries of special-purpose addresses).
_REFUSED_4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); one cloud's metadata lies in it
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server: a public address that leads into the host
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
#: Of IPv6 only global unicast may be reached: loopback, mapped, NAT64 (64:ff9b::/96 and 64:ff9b:1::/48),
#: unique local, link-local and multicast all lie outside.
_GLOBAL_6: Final = IPv6Network("2000::/3")
_REFUSED_6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocols, Teredo among them: it holds an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4: it holds an IPv4 address
        "3fff::/20",
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """An address of a webhook, taken apart.

    :param host: a name in ASCII, or an address without brackets. :param path: with its query.
    """

    https: bool
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """The Host field (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"


def read_url(url: str, *, allow_loopback_http: bool = False) -> Target:
    """Take a webhook's address apart; nothing is resolved.

    :param allow_loopback_http: for development: ``http://127.0.0.1``, ``http://localhost`` or ``http://[::1]``.
    :raises ConfigurationError: ``BAD_WEBHOOK_URL``; never shows it.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise _bad_url() from None
    plain = len(url) <= MAX_URL_CHARS and url.isascii() and url.isprintable() and "\\" not in url
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    local = host in ("127.0.0.1", "localhost", "::1")
    https = parts.scheme == "https"
    if not plain or parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise _bad_url()
    if not https and not (parts.scheme == "http" and allow_loopback_http and local):
        raise _bad_url()
    if not (_literal(host) or (len(host) <= 253 and _HOST.fullmatch(host))) or not _PATH.fullmatch(path):
        raise _bad_url()
    if _literal(host) and not (allow_loopback_http and local):
        check(ip_address(host))
    return Target(https, host, port or (443 if https else 80), path)


def _literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _bad_url() -> ConfigurationError:
    return ConfigurationError(
        "BAD_WEBHOOK_URL", "a webhook goes to https://name[:port]/path, without user, password or fragment"
    )


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, by every rule above."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _REFUSED_4)
    inside = address in _GLOBAL_6 and not any(address in network for network in _REFUSED_6)
    return inside and address.is_global and not address.is_multicast


def check(address: Address) -> None:
    """Return when webhooks may go to an address.

    :raises ConfigurationError: ``WEBHOOK_ADDRESS_REFUSED``.
    """
    if not is_public(address):
        raise ConfigurationError(
            "WEBHOOK_ADDRESS_REFUSED", "webhooks go to addresses of the public internet only"
        )


def system_resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, as the system's resolver has them.

    :raises FetchError: ``NAME_NOT_RESOLVED``.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise FetchError(
            "NAME_NOT_RESOLVED", "the name of the webhook's address cannot be resolved"
        ) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def addresses(target: Target, resolve: Resolve, *, allow_loopback_http: bool = False) -> list[str]:
    """Resolve a target and return its addresses, each of them judged; one bad one refuses all.

    :raises ConfigurationError: ``WEBHOOK_ADDRESS_REFUSED``. :raises FetchError: ``NAME_NOT_RESOLVED``.
    """
    found = [target.host] if _literal(target.host) else list(resolve(target.host, target.port))
    if not found or len(found) > MAX_ADDRESSES:
        raise FetchError("NAME_NOT_RESOLVED", "the name of the webhook's address cannot be resolved")
    loopback = allow_loopback_http and not target.https
    for text in found:
        try:
            address = ip_address(text)
        except ValueError:  # with a zone: link-local
            raise ConfigurationError(
                "WEBHOOK_ADDRESS_REFUSED", "webhooks go to addresses of the public internet only"
            ) from None
        if not (loopback and address.is_loopback):
            check(address)
    return found
