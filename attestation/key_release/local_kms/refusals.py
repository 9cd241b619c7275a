"""AWS-shaped refusals of the local KMS."""

from __future__ import annotations

from typing import Final

_SERVER_FAULTS: Final = frozenset({"KMSInternalException"})


class Refusal(Exception):
    """What the local KMS answers instead of a result; never leaves the package.

    :param kind: AWS's exception name, e.g. ``"AccessDeniedException"``.
    :param message: one line for the caller; holds no secret.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.message = message

    @property
    def status(self) -> int:
        """HTTP status, as AWS's JSON protocol has it."""
        return 500 if self.kind in _SERVER_FAULTS else 400


def denied(message: str = "the key policy does not allow this call") -> Refusal:
    """Return an ``AccessDeniedException``."""
    return Refusal("AccessDeniedException", message)


def invalid(message: str) -> Refusal:
    """Return a ``ValidationException``."""
    return Refusal("ValidationException", message)
