"""Broker settings: keyword arguments, environment ``EPHEMERALML_*``, or a TOML file's ``[broker]`` table.

Four profiles exist. ``embedded`` starts a private Redis in ``state_dir``; ``redis``
uses the server that ``broker_url`` names; ``sqs`` is AWS SQS, ``pubsub`` Google Cloud
Pub/Sub, each with settings of its own. An address may hold a password, so it is a
secret: it never shows in ``repr``, errors or logs.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ..wire.errors import ConfigurationError

CONFIG_VARIABLE: Final = "EPHEMERALML_CONFIG"
SCHEMES: Final = ("redis", "rediss", "redis+socket")
#: sun_path holds 108 bytes on Linux, the closing zero included (unix(7)).
MAX_SOCKET_PATH_BYTES: Final = 107

#: The longest acknowledgement deadline, and a message with room for attributes ("Pub/Sub quotas and limits").
MAX_PUBSUB_LEASE_S: Final = 600
MAX_PUBSUB_INLINE_BYTES: Final = 9 << 20

#: What fits into a message of 1 MiB as base64, with room for the rest ("Amazon SQS message quotas").
MAX_SQS_INLINE_BYTES: Final = 700 << 10

#: Profiles that exist; each names one way to carry messages and blobs.
Profile = Literal["embedded", "redis", "sqs", "pubsub"]


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "ephemeralml"


class BrokerSettings(BaseSettings):
    """Where messages and blobs travel, and within which limits.

    :param profile: ``embedded``, ``redis``, ``sqs`` or ``pubsub``; by default ``redis`` where
        ``broker_url`` is given.
    :param visibility_timeout_s: seconds without a sign of its consumer after which a message is
        delivered again. A worker extends its leases while it lives.
    :param max_lease_s: seconds after which a message still in work is left to other workers.
    :param inline_limit_bytes: larger packs travel through the blob store.
    :param reply_ttl_s: seconds after which replies that nobody fetched are forgotten.
    :param connect_timeout_s: seconds to wait for a connection.
    :param operation_timeout_s: seconds to wait for the broker's answer to one command.
    :param appendfsync: when the embedded broker syncs its file to disk.
    :param pubsub_project: the Google Cloud project of the profile ``pubsub``. :param pubsub_endpoint:
        its service as ``host:port``, over TLS unless it is this machine. :param pubsub_prefix: begins the
        names of its topics and subscriptions. :param pubsub_create_replies: whether clients make and
        delete their reply queues. :param pubsub_retention_s: seconds that ``queues create`` lets jobs wait.
    :param sqs_region: the region of the profile ``sqs``; this and the keys come from boto3's own chain by
        default. :param sqs_endpoint: its service, https, or http on this machine. :param sqs_access_key_id:
        :param sqs_secret_access_key: and :param sqs_session_token: its keys. :param sqs_prefix: begins the
        names of its queues. :param sqs_wait_s: seconds that a receive waits for a message.
        :param sqs_create_replies: whether clients make and delete their reply queues.
    :param blob_url: where large packs, announcements and wrapped keys lie: ``redis``, ``file:///folder``,
        ``s3://bucket/prefix`` or ``gs://bucket/prefix``; by default a folder in ``state_dir`` (embedded), or
        the broker's Redis. :param blob_endpoint: the service of ``s3://`` or ``gs://``; https, or http on
        this machine. :param blob_region: :param blob_access_key_id: :param blob_secret_access_key: and
        :param blob_session_token: for ``s3://``; boto3's own chain by default.
    :param tls_ca_file: roots for ``rediss://`` (default: the system's). :param tls_cert_file: and
        :param tls_key_file: this client's own certificate, where the server asks for one.
    """

    model_config = SettingsConfigDict(
        env_prefix="EPHEMERALML_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    profile: Profile = "embedded"
    broker_url: SecretStr | None = Field(default=None, repr=False)
    state_dir: Path = Field(default_factory=_default_state_dir)
    visibility_timeout_s: float = Field(default=120, ge=1, le=43_200)
    max_lease_s: float = Field(default=3_600, ge=1, le=43_200)
    inline_limit_bytes: int = Field(default=512 << 10, ge=1024, le=64 << 20)
    reply_ttl_s: int = Field(default=86_400, ge=60, le=14 * 86_400)
    connect_timeout_s: float = Field(default=3, gt=0, le=60)
    operation_timeout_s: float = Field(default=15, ge=5, le=300)
    appendfsync: Literal["always", "everysec"] = "everysec"
    pubsub_project: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9.:-]{4,61}[a-z0-9]$")
    pubsub_endpoint: str = Field(
        default="pubsub.googleapis.com:443", pattern=r"^[a-zA-Z0-9.:\[\]-]+:[0-9]{1,5}$"
    )
    pubsub_prefix: str = Field(default="ephemeralml.", pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,99}$")
    pubsub_create_replies: bool = True
    pubsub_retention_s: int = Field(default=7 * 86_400, ge=600, le=31 * 86_400)
    sqs_region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")
    sqs_endpoint: str | None = Field(
        default=None, pattern=r"^https?://([a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?$"
    )
    sqs_access_key_id: SecretStr | None = Field(default=None, repr=False)
    sqs_secret_access_key: SecretStr | None = Field(default=None, repr=False)
    sqs_session_token: SecretStr | None = Field(default=None, repr=False)
    sqs_prefix: str = Field(default="ephemeralml-", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")
    sqs_wait_s: int = Field(default=10, ge=1, le=20)
    sqs_create_replies: bool = True
    blob_url: str | None = Field(
        default=None,
        pattern=r"^(redis|file:///[^?#]*|(s3|gs)://[a-z0-9][a-z0-9._-]{1,221}[a-z0-9](/[A-Za-z0-9._/-]{0,200})?)$",
    )
    blob_endpoint: str | None = Field(
        default=None, pattern=r"^https?://([a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?$"
    )
    blob_region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")
    blob_access_key_id: SecretStr | None = Field(default=None, repr=False)
    blob_secret_access_key: SecretStr | None = Field(default=None, repr=False)
    blob_session_token: SecretStr | None = Field(default=None, repr=False)
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    @property
    def url(self) -> str:
        """The broker's address, password included.

        :raises ConfigurationError: ``BROKER_NOT_RUNNING``: the embedded broker was not started.
        """
        if self.broker_url is None:
            raise ConfigurationError("BROKER_NOT_RUNNING", "the embedded broker was not started")
        return self.broker_url.get_secret_value()

    @model_validator(mode="before")
    @classmethod
    def _profile_of_url(cls, values: Any) -> Any:
        if isinstance(values, dict) and "profile" not in values and values.get("broker_url") is not None:
            return {**values, "profile": "redis"}
        if isinstance(values, dict) and values.get("profile") == "sqs":
            return {"inline_limit_bytes": MAX_SQS_INLINE_BYTES, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.profile == "redis") != (self.broker_url is not None):
            raise ValueError("the profile redis needs broker_url, the other profiles have none")
        if self.profile == "pubsub":
            self._consistent_pubsub()
        if self.profile == "sqs":
            self._consistent_sqs()
        _check_service(
            "blob",
            self.blob_endpoint,
            self.blob_access_key_id,
            self.blob_secret_access_key,
            self.blob_session_token,
        )
        if self.blob_url == "redis" and self.profile not in ("embedded", "redis"):
            raise ValueError("blob_url redis needs a profile on Redis")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        if self.broker_url is not None:
            check_url(self.broker_url.get_secret_value())
        return self

    def _consistent_pubsub(self) -> None:
        if self.pubsub_project is None:
            raise ValueError("the profile pubsub needs pubsub_project")
        if self.pubsub_prefix.startswith("goog"):
            raise ValueError("names that begin with goog are Google's own: pubsub_prefix")
        if self.visibility_timeout_s > MAX_PUBSUB_LEASE_S:
            raise ValueError("Pub/Sub leases for 600 seconds at most: visibility_timeout_s")
        if self.inline_limit_bytes > MAX_PUBSUB_INLINE_BYTES:
            raise ValueError("Pub/Sub messages hold 10 MB at most: inline_limit_bytes")

    def _consistent_sqs(self) -> None:
        _check_service(
            "sqs",
            self.sqs_endpoint,
            self.sqs_access_key_id,
            self.sqs_secret_access_key,
            self.sqs_session_token,
        )
        if self.inline_limit_bytes > MAX_SQS_INLINE_BYTES:
            raise ValueError("SQS messages hold 1 MiB at most, as text: inline_limit_bytes")

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
        return (init_settings, env_settings, InitSettingsSource(settings_cls, _file_table()))


def _check_service(
    kind: str, endpoint: str | None, key: SecretStr | None, secret: SecretStr | None, token: SecretStr | None
) -> None:
    """Return when a service's address is safe and its keys are whole."""
    if endpoint is not None and endpoint.startswith("http:"):
        host = urlsplit(endpoint).hostname
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(f"{kind}_endpoint is https, but on this machine")
    given = (key is None, secret is None)
    if any(given) != all(given) or (given[0] and token is not None):
        raise ValueError(f"{kind}_access_key_id and {kind}_secret_access_key go together")


def _file_table() -> dict[str, Any]:
    file = os.environ.get(CONFIG_VARIABLE)
    if not file:
        return {}
    try:
        table = tomllib.loads(Path(file).read_text("utf-8")).get("broker", {})
    except OSError as error:
        raise ConfigurationError("BAD_SETTINGS", f"the file of {CONFIG_VARIABLE}: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError("BAD_SETTINGS", f"the file of {CONFIG_VARIABLE} is not TOML") from None
    if not isinstance(table, dict):
        raise ConfigurationError("BAD_SETTINGS", f"broker in the file of {CONFIG_VARIABLE} is not a table")
    return table


def check_url(url: str) -> None:
    """Return when ``url`` is a broker's address; no query may weaken it (TLS options are settings).

    :raises ConfigurationError: ``UNKNOWN_BROKER`` or ``BAD_BROKER_URL``; never shows the address.
    """
    scheme = url.partition(":")[0]
    if scheme not in SCHEMES or "://" not in url:
        raise ConfigurationError(
            "UNKNOWN_BROKER", "the broker is one of redis://, rediss://, redis+socket://"
        )
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        if scheme == "redis+socket":
            database = query.pop("virtual_host", ["0"])
            length = len(os.fsencode(parts.path))
            good = not parts.netloc and 1 < length <= MAX_SOCKET_PATH_BYTES and len(database) == 1
            number = database[0]
        else:
            good = bool(parts.hostname) and parts.port != 0
            number = parts.path.removeprefix("/") or "0"
        good = good and not query and not parts.fragment and number.isdecimal()
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError(
            "BAD_BROKER_URL",
            "a broker's address is redis://[user:password@]host[:port][/database], rediss:// likewise, "
            "or redis+socket:///path[?virtual_host=database]",
        )


def broker_settings(*, broker_url: str | None = None, state_dir: Path | None = None) -> BrokerSettings:
    """Return settings from environment and file, overridden by arguments that are not None.

    :raises ConfigurationError: ``BAD_SETTINGS``, ``UNKNOWN_BROKER`` or ``BAD_BROKER_URL``;
        no message shows a value.
    """
    given = {"broker_url": broker_url, "state_dir": state_dir}
    try:
        return BrokerSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        names = {".".join(map(str, item["loc"])) or "profile, broker_url, tls" for item in error.errors()}
        raise ConfigurationError(
            "BAD_SETTINGS", f"missing or wrong broker settings: {', '.join(sorted(names))}"
        ) from None
