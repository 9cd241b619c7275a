"""What every store of packages can do, and how their failures are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ....wire.errors import ConfigurationError, DeliveryError, ModelError

PIECE_BYTES: Final = 1 << 18
MAX_OBJECT_BYTES: Final = 5 << 40  # S3's largest object (Amazon S3 User Guide, "Multipart upload limits")


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """An object as it was when it was first looked at.

    :param size: bytes. :param tag: the store's word for this very content: ETag, generation, inode and time.
    """

    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How stores are reached.

    :param s3_endpoint: another address than AWS's. :param gcs_endpoint: another address than Google's; it is
        asked without credentials. :param timeout_s: connecting, and each wait for bytes, in seconds.
    """

    s3_endpoint: str | None = None
    gcs_endpoint: str | None = None
    region: str | None = None
    timeout_s: float = 10.0


class ModelStore(Protocol):
    """One object in a store."""

    def stat(self) -> ObjectVersion:
        """Return the object's version.

        :raises ConfigurationError: ``MODEL_NOT_FOUND`` or ``MODEL_STORE_DENIED``.
        :raises DeliveryError: ``MODEL_STORE_UNAVAILABLE`` (retriable).
        """

    def read_range(self, version: ObjectVersion, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``stop`` as they arrive, of this version and no other.

        :raises ModelError: ``MODEL_SWAPPED``: another object lies there now. Others as :meth:`stat`.
        """

    def publish(self, package: Path, sha256: str) -> bool:
        """Store a package unless one is there; return whether this call stored it.

        :param sha256: of the whole file, hexadecimal.
        :raises ModelError: ``PACKAGE_EXISTS``: other content has this name. Others as :meth:`stat`.
        """

    def close(self) -> None:
        """Drop the connections."""


def not_found() -> ConfigurationError:
    """Return the error of an object, bucket or folder that is not there."""
    return ConfigurationError("MODEL_NOT_FOUND", "the store has no package under this name")


def denied() -> ConfigurationError:
    """Return the error of a store that does not let this caller in."""
    return ConfigurationError("MODEL_STORE_DENIED", "the store refuses these credentials")


def unavailable() -> DeliveryError:
    """Return the error of a store that cannot be reached, or fails; worth another try."""
    return DeliveryError("MODEL_STORE_UNAVAILABLE", "the store of models cannot be used")


def bad_answer(why: str) -> DeliveryError:
    """Return the error of a store that answered something else than was asked."""
    return DeliveryError("MODEL_STORE_BAD_ANSWER", f"the store of models {why}", retriable=False)


def swapped() -> ModelError:
    """Return the error of an object that was replaced while it was read."""
    return ModelError("MODEL_SWAPPED", "the package was replaced in the store while it was read")


def exists() -> ModelError:
    """Return the error of a name that is taken by other content."""
    return ModelError("PACKAGE_EXISTS", "other content has this name already; nothing was overwritten")


def status_error(status: int) -> Exception | None:
    """Return what an HTTP status means, None for a success (RFC 9110 section 15)."""
    if 200 <= status < 300:
        return None
    if status in (401, 403):
        return denied()
    if status == 404:
        return not_found()
    if status == 412:
        return swapped()
    if status in (408, 429) or status >= 500:
        return unavailable()
    return bad_answer(f"answered with status {status}")
