"""Broker settings: environment ``EPHEMERALML_*``, a TOML file, or keyword arguments.

Two profiles exist. ``embedded`` starts a private Redis in ``state_dir``; ``redis``
uses the server that ``broker_url`` names. The address may hold a password, so it is
a secret: it never shows in ``repr``, errors or logs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ..wire.errors import ConfigurationError

CONFIG_VARIABLE: Final = "EPHEMERALML_CONFIG"


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "ephemeralml"


class BrokerSettings(BaseSettings):
    """Where messages and blobs travel, and within which limits.

    :param visibility_timeout_s: seconds after which an unacknowledged message is delivered again;
        must exceed the longest pack's run.
    :param inline_limit_bytes: larger packs travel through the blob store.
    """

    model_config = SettingsConfigDict(env_prefix="EPHEMERALML_", frozen=True, extra="ignore")

    broker_url: SecretStr | None = Field(default=None, repr=False)
    state_dir: Path = Field(default_factory=_default_state_dir)
    visibility_timeout_s: float = Field(default=600, ge=1, le=43_200)
    inline_limit_bytes: int = Field(default=512 << 10, ge=1024, le=64 << 20)
    reply_ttl_s: int = Field(default=86_400, ge=60, le=14 * 86_400)
    connect_timeout_s: float = Field(default=3, gt=0, le=60)
    appendfsync: Literal["always", "everysec"] = "everysec"
    tls_ca_file: Path | None = None

    @property
    def profile(self) -> Literal["embedded", "redis"]:
        """``embedded`` where no broker is named."""
        return "embedded" if self.broker_url is None else "redis"

    @property
    def url(self) -> str:
        """The broker's address, password included.

        :raises ConfigurationError: ``BROKER_NOT_RUNNING``: the embedded broker was not started.
        """
        if self.broker_url is None:
            raise ConfigurationError("BROKER_NOT_RUNNING", "the embedded broker was not started")
        return self.broker_url.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        file = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(file)),) if file else ()
        return (init_settings, env_settings, *toml)


def broker_settings(*, broker_url: str | None = None, state_dir: Path | None = None) -> BrokerSettings:
    """Return settings from environment and file, overridden by arguments that are not None.

    :raises ConfigurationError: ``BAD_SETTINGS`` or ``UNKNOWN_BROKER``; never shows a value.
    """
    file = os.environ.get(CONFIG_VARIABLE)
    if file and not Path(file).is_file():
        raise ConfigurationError("BAD_SETTINGS", f"{CONFIG_VARIABLE} names no file")
    given = {"broker_url": broker_url, "state_dir": state_dir}
    try:
        settings = BrokerSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise ConfigurationError("BAD_SETTINGS", f"missing or wrong broker settings: {wrong}") from None
    except ValueError:
        raise ConfigurationError("BAD_SETTINGS", "the settings file is not TOML") from None
    if settings.broker_url is not None:
        scheme = settings.url.partition(":")[0]
        if scheme not in ("redis", "rediss", "redis+socket"):
            raise ConfigurationError(
                "UNKNOWN_BROKER", "the broker is one of redis://, rediss://, redis+socket://"
            )
    return settings
