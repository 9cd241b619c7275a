"""Keeps tests of verifiers off the network: what they need must be in their arguments."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest


class NetworkError(AssertionError):
    """A test reached for another machine."""


def is_here(address: object) -> bool:
    """Return whether an address is of this machine: a unix socket, or loopback."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections and look-ups that leave this machine."""

    def guarded(original: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            target = arguments[place]
            if not is_here(target if isinstance(target, tuple) or place == 1 else (target,)):
                raise NetworkError("a test of a verifier reached for the network")
            return original(*arguments, **named)

        return call

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), 1))
    monkeypatch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, 0))
