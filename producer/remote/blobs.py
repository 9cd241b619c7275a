"""The public part of the blob store, through a gateway: announcements, evidence and orders."""

from __future__ import annotations

from collections.abc import Iterator

from ...wire.errors import ConfigurationError, DeliveryError
from .api import GatewayApi


class GatewayBlobs:
    """A blob store that can be read only; see :class:`~ephemeralml.broker_config.blobs.BlobStore`."""

    def __init__(self, api: GatewayApi) -> None:
        self._api = api

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        return self._api.blob(key)

    def pieces(self, key: str) -> Iterator[bytes]:
        """See :meth:`BlobStore.pieces`."""
        yield self.get(key)

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        try:
            self.get(key)
        except DeliveryError as error:
            if error.code == "BLOB_MISSING":
                return False
            raise
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        return (name for name in self._api.blob_names(prefix) if name.startswith(prefix))

    def put(self, key: str, data: bytes, *, keep_until: int | None = None) -> None:
        """Refuse: a gateway takes no blobs."""
        raise _read_only()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Refuse: a gateway takes no blobs."""
        raise _read_only()

    def delete(self, key: str) -> None:
        """Refuse: a gateway takes no blobs."""
        raise _read_only()


def _read_only() -> ConfigurationError:
    return ConfigurationError("READ_ONLY", "blobs are only read through a gateway")
