"""The one error tree. Nothing else escapes a public function.

::

    Error(code, retriable)
     ├── MalformedError        bytes that do not follow their format
     ├── VerificationError     well formed, but not genuine
     ├── AppraisalError        genuine, but not wanted (``.findings``)
     ├── EndorsementsError     could not judge: roots, collateral or keys are missing
     ├── FetchError            the network, and only the network
     ├── SealingError          could not seal or open; one message for all causes
     ├── KeyReleaseError       the KMS did not release a key
     ├── ModelError            a model package is not what it says
     ├── EngineError           the engine could not run the job
     ├── DeliveryError         broker, queue or blob store
     └── ConfigurationError    a setting, file or argument of the user's

``code`` is a stable upper-case word that programs may test; the text is for
people and may change. No message ever holds plaintext, key bytes or a path of
the user's.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Base of every error of this package.

    :param code: stable upper-case identifier, e.g. ``"TRAILING_BYTES"``.
    :param message: one line for people; must not hold secrets.
    :param retriable: whether the same call may succeed later, unchanged.
    """

    default_retriable: ClassVar[bool] = False

    def __init__(self, code: str, message: str = "", *, retriable: bool | None = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.retriable = self.default_retriable if retriable is None else retriable


class MalformedError(Error):
    """Bytes that do not follow their format."""


class VerificationError(Error):
    """Well formed, but not genuine: a signature, chain or binding failed."""


class AppraisalError(Error):
    """Genuine, but not what the policy wants.

    :param findings: every reason, as ``(code, detail)`` pairs, in order.
    """

    def __init__(self, code: str, message: str = "", *, findings: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(code, message)
        self.findings = findings


class EndorsementsError(Error):
    """Could not judge: a root, collateral or key needed for it is missing."""


class FetchError(Error):
    """The network failed; nothing is said about what was asked for."""

    default_retriable = True


class SealingError(Error):
    """Could not seal or open. All causes look alike, so that none can be probed."""

    def __init__(self, code: str = "SEALING_FAILED", message: str = "could not be sealed or opened") -> None:
        super().__init__(code, message)


class KeyReleaseError(Error):
    """The KMS did not release a key."""


class ModelError(Error):
    """A model package is not what it says, or cannot be loaded."""


class EngineError(Error):
    """The engine could not run a job."""


class DeliveryError(Error):
    """Broker, queue or blob store could not do what was asked."""

    default_retriable = True


class ConfigurationError(Error):
    """A setting, file or argument of the user's is wrong."""
