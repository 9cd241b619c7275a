"""Settings of webhooks: keyword arguments or environment ``EPHEMERALML_WEBHOOK_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ....wire.errors import ConfigurationError
from .keys import Master, master_of_file, read_master

MASTER_FILE: Final = "webhook-master.key"


class WebhookSettings(BaseSettings):
    """How webhooks are signed and sent. The API and every relay on a store need the same master secret.

    :param master_secret: base64 of 32 bytes; by default, with SQLite, a file in the state directory, made
        once; with PostgreSQL there are no webhooks without it.
    :param allow_loopback_http: for development: receivers on this machine without TLS.
    :param attempt_timeout_s: seconds for one attempt, all in all.
    :param workers: attempts at once of one relay. :param per_endpoint: of these to one endpoint.
    :param max_endpoints: of one tenant. :param keep_s: seconds that an ended delivery is kept.
    :param old_key_s: seconds for which the key before a rotation signs too.
    """

    model_config = SettingsConfigDict(
        env_prefix="EPHEMERALML_WEBHOOK_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    master_secret: SecretStr | None = Field(default=None, repr=False)
    allow_loopback_http: bool = False
    attempt_timeout_s: float = Field(default=20, gt=0, le=60)
    workers: int = Field(default=16, ge=1, le=256)
    per_endpoint: int = Field(default=4, ge=1, le=64)
    max_endpoints: int = Field(default=20, ge=1, le=1000)
    keep_s: float = Field(default=30 * 86_400, ge=3600)
    old_key_s: float = Field(default=86_400, ge=0, le=30 * 86_400)

    def master(self, state_dir: Path, *, shared: bool) -> Master | None:
        """Return the master secret; None: no webhooks.

        :param shared: other machines may use the store too: a file of this one's will not do.
        :raises ConfigurationError: ``BAD_WEBHOOK_MASTER`` or ``WEBHOOK_MASTER_UNREADABLE``.
        """
        if self.master_secret is not None:
            return read_master(self.master_secret.get_secret_value())
        return None if shared else master_of_file(state_dir / MASTER_FILE)


def webhook_settings(**given: object) -> WebhookSettings:
    """Return settings from the environment, overridden by arguments that are not None.

    :raises ConfigurationError: ``BAD_SETTINGS``; names the settings, shows no value.
    """
    try:
        return WebhookSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        names = sorted({".".join(map(str, item["loc"])) for item in error.errors()})
        raise ConfigurationError(
            "BAD_SETTINGS", f"missing or wrong webhook settings: {', '.join(names)}"
        ) from None
