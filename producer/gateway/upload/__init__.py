"""Uploads: a stream of bytes becomes staged packs within bounded memory (spec/gateway.md)."""

from .receiver import Receiver, UploadLimits
from .split import Form

__all__ = ["Form", "Receiver", "UploadLimits"]
