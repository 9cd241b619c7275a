"""The local token: whoever can read its file may use the proxy."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ...wire.errors import ConfigurationError

PREFIX: Final = "eml-"
MIN_CHARS: Final = 32


def load_token(path: Path, *, renew: bool = False) -> str:
    """Return the token of a file (mode 0600), which is made where there is none.

    :param renew: make a new one in any case.
    :raises ConfigurationError: ``TOKEN_UNUSABLE`` or ``TOKEN_EXPOSED``.
    """
    try:
        if renew or not path.exists():
            return _make(path)
        about = path.stat()
        token = path.read_text("ascii").strip()
    except (OSError, ValueError):
        raise ConfigurationError("TOKEN_UNUSABLE", "the token's file cannot be read or written") from None
    if stat.S_IMODE(about.st_mode) & 0o077 or about.st_uid != os.getuid():
        raise ConfigurationError(
            "TOKEN_EXPOSED", "others may read the token's file: make a new one with --new-token"
        )
    if len(token) < MIN_CHARS:
        raise ConfigurationError("TOKEN_UNUSABLE", "the token's file holds no token; use --new-token")
    return token


def _make(path: Path) -> str:
    token = PREFIX + secrets.token_urlsafe(32)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    os.replace(draft, path)
    return token


def is_token(header: bytes | None, token: str) -> bool:
    """Return whether an ``Authorization`` header bears the token; takes as long for any other one."""
    scheme, _, given = (header or b"").partition(b" ")
    same = hmac.compare_digest(given.strip(), token.encode())
    return same and scheme.lower() == b"bearer"
