"""Publishing: a package under a name that says its content, never over another one."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ...wire.errors import ModelError
from .manifest import Manifest
from .stores import StoreSettings, open_store
from .verify import verify_package


@dataclass(frozen=True, slots=True)
class Published:
    """A package in a store. ``stored`` is False where it lay there already."""

    url: str
    manifest: Manifest
    manifest_hash: bytes
    stored: bool


def publish_package(
    package: Path,
    to: str,
    *,
    trusted_signers: Collection[bytes],
    settings: StoreSettings | None = None,
) -> Published:
    """Store a package as ``<to>/<manifest hash>/<SHA-256 of the package>.eml``.

    It is verified first as far as that goes without its key.

    :param to: ``file:///…``, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.
    :raises ModelError: as :func:`.verify.verify_package`; ``PACKAGE_UNREADABLE``, ``PACKAGE_EXISTS`` or
        ``PACKAGE_NOT_WRITTEN``.
    :raises ConfigurationError: ``BAD_MODEL_URL``, ``MODEL_NOT_FOUND`` (no bucket) or ``MODEL_STORE_DENIED``.
    :raises DeliveryError: ``MODEL_STORE_UNAVAILABLE`` or ``MODEL_STORE_BAD_ANSWER``.
    """
    try:
        with package.open("rb") as file:
            manifest, manifest_hash, _ = verify_package(
                file, trusted_signers=trusted_signers, expected_manifest_hash=None
            )
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError("PACKAGE_UNREADABLE", f"cannot read the package: {error.strerror}") from None
    url = f"{to.rstrip('/')}/{manifest_hash.hex()}/{sha256}.eml"
    store = open_store(url, settings)
    try:
        return Published(url, manifest, manifest_hash, store.publish(package, sha256))
    finally:
        store.close()
