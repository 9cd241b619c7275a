"""Settings of the relay: keyword arguments or environment ``EPHEMERALML_RELAY_*``."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ....wire.errors import ConfigurationError


class RelaySettings(BaseSettings):
    """How a relay goes about its work.

    :param poll_s: seconds between looks into the store, up to a second where nothing happens.
    :param lease_s: seconds after which what a dead relay had taken is free to others.
    :param resubmit_leases: visibility timeouts without an answer after which a pack is submitted again.
    :param expiry_grace_s: seconds that workers have to sign ``expired`` for jobs of a batch whose time is up.
    :param seal_patience_s: seconds for which workers are asked for the statement of a whole batch.
    :param seal_again_s: seconds after which they are asked again.
    """

    model_config = SettingsConfigDict(
        env_prefix="EPHEMERALML_RELAY_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    poll_s: float = Field(default=0.2, gt=0, le=10)
    lease_s: float = Field(default=30, ge=1, le=3600)
    resubmit_leases: float = Field(default=1.5, ge=1, le=100)
    expiry_grace_s: float = Field(default=60, ge=0, le=86_400)
    seal_patience_s: float = Field(default=900, ge=0, le=86_400)
    seal_again_s: float = Field(default=120, ge=1, le=86_400)


def relay_settings(**given: object) -> RelaySettings:
    """Return settings from the environment, overridden by arguments that are not None.

    :raises ConfigurationError: ``BAD_SETTINGS``; names the settings, shows no value.
    """
    try:
        return RelaySettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        names = sorted({".".join(map(str, item["loc"])) for item in error.errors()})
        raise ConfigurationError(
            "BAD_SETTINGS", f"missing or wrong relay settings: {', '.join(names)}"
        ) from None
