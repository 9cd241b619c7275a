"""Settings of the gateway: keyword arguments or environment ``EPHEMERALML_GATEWAY_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ...wire.errors import ConfigurationError
from ...wire.header import MAX_BATCH_ITEMS


class GatewaySettings(BaseSettings):
    """Where the gateway listens and keeps its store, and within which limits.

    :param store_url: ``sqlite:///path`` or ``postgresql://…``; may hold a password, so it never shows.
    :param host: address to listen on; any but a loopback address needs ``behind_tls_proxy``.
    :param behind_tls_proxy: something in front ends TLS. The gateway itself speaks plain HTTP only.
    :param max_upload_bytes: of one batch's body. :param max_batch_jobs: of one batch.
    :param max_uploads: taken at once; what one holds in memory times this bounds the gateway's memory.
    :param read_timeout_s: silence after which a half-sent request is given up.
    :param max_request_s: seconds after which any request ends; streams are resumed by their reader.
    :param retention_s: seconds for which an ended batch is kept.
    """

    model_config = SettingsConfigDict(
        env_prefix="EPHEMERALML_GATEWAY_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    store_url: SecretStr | None = Field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65_535)
    behind_tls_proxy: bool = False
    max_upload_bytes: int = Field(default=200 << 20, ge=1 << 10, le=4 << 30)
    max_batch_jobs: int = Field(default=MAX_BATCH_ITEMS, ge=1, le=MAX_BATCH_ITEMS)
    max_uploads: int = Field(default=2, ge=1, le=64)
    read_timeout_s: float = Field(default=30, gt=0, le=600)
    max_request_s: float = Field(default=900, gt=0, le=86_400)
    retention_s: float = Field(default=30 * 86_400, ge=3600)

    @model_validator(mode="after")
    def _loopback(self) -> Self:
        if self.host not in ("127.0.0.1", "::1", "localhost") and not self.behind_tls_proxy:
            raise ValueError("host is not a loopback address: it needs behind_tls_proxy")
        return self

    def store(self, state_dir: Path) -> str:
        """Return the store's address; by default a SQLite file in the state directory."""
        if self.store_url is not None:
            return self.store_url.get_secret_value()
        return f"sqlite:///{state_dir / 'gateway.db'}"


def gateway_settings(**given: object) -> GatewaySettings:
    """Return settings from the environment, overridden by arguments that are not None.

    :raises ConfigurationError: ``BAD_SETTINGS`` or ``NOT_LOOPBACK``; no message shows a value.
    """
    try:
        return GatewaySettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        names = {".".join(map(str, item["loc"])) for item in error.errors()}
        if names == {""}:
            raise ConfigurationError(
                "NOT_LOOPBACK",
                "the gateway speaks plain HTTP: put a proxy that ends TLS in front, say --behind-tls-proxy",
            ) from None
        raise ConfigurationError(
            "BAD_SETTINGS", f"missing or wrong gateway settings: {', '.join(sorted(names - {''}))}"
        ) from None
