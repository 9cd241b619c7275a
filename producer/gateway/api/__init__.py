"""The gateway's HTTP API (docs/gateway.md): ciphertext in, ciphertext out."""

from .app import make_app

__all__ = ["make_app"]
