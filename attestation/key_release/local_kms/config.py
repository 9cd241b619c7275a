"""Settings of the local KMS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ....wire.errors import ConfigurationError

ACCOUNT: Final = "000000000000"
DEFAULT_MAX_DOCUMENT_AGE_S: Final = 300
DEFAULT_MAX_AUDIT_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Principal:
    """Who may sign requests: a name in key policies and an access key."""

    name: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    @property
    def arn(self) -> str:
        """How key policies name it."""
        return principal_arn(self.name)


def principal_arn(name: str) -> str:
    """Return the ARN of a principal of the local KMS."""
    return f"arn:aws:iam::{ACCOUNT}:user/{name}"


@dataclass(frozen=True, slots=True)
class LocalKmsConfig:
    """Everything that a local KMS must be told.

    :param directory: where keys (0600) and the audit log lie; made if needed.
    :param roots: SHA-256 fingerprints of the roots that attestation documents may chain to, 32 bytes each.
    :param policies: key policy (AWS-like JSON) by alias; a key is made for each.
    :param principals: who may call, by any name.
    :param port: 0 takes a free one.
    :param max_document_age_s: how old an attestation document may be, in seconds; None: as long as its
        certificate lives.
    :param single_use: whether a document is taken only once; needs ``max_document_age_s``.
    :param master_key: file of the key that keys are wrapped under at rest; None: ``master.key`` in
        the folder.
    :param max_audit_bytes: an audit file that is longer is set aside and a new one begun.
    :raises ConfigurationError: ``BAD_KMS_SETTINGS``.
    """

    directory: Path
    roots: tuple[bytes, ...]
    policies: Mapping[str, Mapping[str, Any]]
    principals: Mapping[str, Principal]
    host: str = "127.0.0.1"
    port: int = 0
    region: str = "us-east-1"
    max_document_age_s: int | None = DEFAULT_MAX_DOCUMENT_AGE_S
    single_use: bool = True
    master_key: Path | None = None
    max_audit_bytes: int = DEFAULT_MAX_AUDIT_BYTES

    def __post_init__(self) -> None:
        if self.single_use and self.max_document_age_s is None:
            raise ConfigurationError(
                "BAD_KMS_SETTINGS",
                "to take documents once, their age must be limited: all would be remembered",
            )
