"""Stable exit codes of every command (numbers from 64 on follow BSD's sysexits.h)."""

from __future__ import annotations

from typing import Final

from .errors import (
    AppraisalError,
    ConfigurationError,
    DeliveryError,
    EndorsementsError,
    EngineError,
    Error,
    FetchError,
    KeyReleaseError,
    MalformedError,
    ModelError,
    SealingError,
    VerificationError,
)

OK: Final = 0
MISUSE: Final = 1
UNSOUND: Final = 2
NOT_JUDGED: Final = 3
BAD_DATA: Final = 65
UNAVAILABLE: Final = 69
JOBS_FAILED: Final = 70
TIMED_OUT: Final = 75
DENIED: Final = 77
CONFIGURATION: Final = 78

_BY_KIND: Final[tuple[tuple[type[Error], int], ...]] = (
    (MalformedError, BAD_DATA),
    (ModelError, BAD_DATA),
    (VerificationError, UNSOUND),
    (AppraisalError, UNSOUND),
    (SealingError, UNSOUND),
    (EndorsementsError, NOT_JUDGED),
    (KeyReleaseError, DENIED),
    (EngineError, JOBS_FAILED),
    (DeliveryError, UNAVAILABLE),
    (FetchError, UNAVAILABLE),
    (ConfigurationError, CONFIGURATION),
)


def exit_code(error: Error) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, KeyReleaseError) and error.retriable:
        return UNAVAILABLE
    for kind, code in _BY_KIND:
        if isinstance(error, kind):
            return code
    return MISUSE
