"""``gateway``: the untrusted batch API, its store and its API keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ...broker_config.settings import BrokerSettings
from ...wire.errors import ConfigurationError
from .common import ERR, OUT, BrokerOption, StateOption, one_line_errors, read_settings

app = typer.Typer(
    help="Batch API: takes sealed jobs over HTTP, hands out sealed results. Untrusted: it holds no key. "
    "Without a command it serves.",
    invoke_without_command=True,
)
keys_app = typer.Typer(help="API keys: one tenant each, shown once, kept as a hash.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="EPHEMERALML_GATEWAY_STORE_URL",
        help="sqlite:///path or postgresql://user:password@host/database; default: a file in --state-dir.",
        show_envvar=True,
    ),
]


@app.callback()
def main(context: typer.Context) -> None:
    """Serve, unless a command says otherwise; settings come from `EPHEMERALML_GATEWAY_*`."""
    if context.invoked_subcommand is None:
        with one_line_errors(), _extra():
            _serve(read_settings(None, None))


@app.command("serve")
def serve_command(
    store: StoreOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; default 8420.")] = None,
    behind_tls_proxy: Annotated[
        bool,
        typer.Option(
            "--behind-tls-proxy",
            help="Something in front ends TLS: needed to listen on any but a loopback address.",
        ),
    ] = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Serve the API over plain HTTP until SIGTERM; TLS is ended in front of it."""
    with one_line_errors(), _extra():
        _serve(
            read_settings(broker, state_dir),
            store_url=store,
            host=host,
            port=port,
            behind_tls_proxy=behind_tls_proxy or None,
        )


@app.command("migrate")
def migrate_command(store: StoreOption = None, state_dir: StateOption = None) -> None:
    """Make or change the store's tables for this version; safe to call again, and from several machines."""
    with one_line_errors(), _extra():
        from ..gateway.store import Store, migrate

        with closing(Store(_address(store, state_dir))) as opened:
            OUT.print("migrated" if migrate(opened) else "nothing to do")


@keys_app.command("create")
def create(
    tenant: Annotated[str, typer.Argument(help="Tenant's name; made where there is none.")],
    name: Annotated[str, typer.Option(help="What the key is for, for lists.")] = "default",
    scopes: Annotated[str, typer.Option(help="Of read, write, admin, with commas.")] = "read,write",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it ends; default: never.")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="Tenant's jobs in flight.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Tenant's bytes in store.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Tenant's requests per second.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Tenant's requests at once.")] = None,
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make an API key and print it: it is shown this once. Limits that are given become the tenant's."""
    with one_line_errors(), _extra():
        from ..gateway.store import tenants

        now = time.time()
        words = [word.strip() for word in scopes.split(",")]
        with closing(_store(store, state_dir)) as opened, opened.transaction() as connection:
            found = tenants.ensure(connection, tenant, now)
            tenants.set_limits(
                connection,
                found.id,
                max_jobs=max_jobs,
                max_bytes=max_bytes,
                rate_per_s=rate,
                rate_burst=burst,
            )
            ends = None if days is None else now + days * 86_400
            key = tenants.make_key(connection, found, name, words, now, ends)
        print(key)
        ERR.print("keep it now: it is not shown again")


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """List API keys by their public prefixes, the oldest first."""
    with one_line_errors(), _extra():
        from ..gateway.store import tenants

        with closing(_store(store, state_dir)) as opened, opened.reading() as connection:
            found = tenants.keys(connection, tenant)
        for key in found:
            row = {
                "prefix": key.prefix,
                "tenant": key.tenant.name,
                "name": key.name,
                "scopes": sorted(key.scopes),
                "created_at": int(key.created_at),
                "expires_at": None if key.expires_at is None else int(key.expires_at),
                "revoked_at": None if key.revoked_at is None else int(key.revoked_at),
            }
            print(json.dumps(row) if as_json else _line(row))


@keys_app.command("revoke")
def revoke(
    prefix: Annotated[str, typer.Argument(help="The key's public prefix, as `keys list` shows it.")],
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """End an API key at once."""
    with one_line_errors(), _extra():
        from ..gateway.store import tenants

        with closing(_store(store, state_dir)) as opened, opened.transaction() as connection:
            if not tenants.revoke(connection, prefix, time.time()):
                raise ConfigurationError("NO_SUCH_KEY", "no key of this prefix is in force")
        OUT.print("revoked")


def _line(row: dict[str, Any]) -> str:
    if row["revoked_at"] is not None:
        state = "revoked"
    elif row["expires_at"] is not None:
        state = "until " + datetime.fromtimestamp(row["expires_at"], UTC).strftime("%Y-%m-%d")
    else:
        state = "in force"
    return f"{row['prefix']}  {row['tenant']}  {row['name']}  {','.join(row['scopes'])}  {state}"


def _serve(broker: BrokerSettings, **given: object) -> None:
    from ..gateway.serve import log_to_stderr, serve
    from ..gateway.settings import gateway_settings

    settings = gateway_settings(**given)
    log_to_stderr()
    ERR.print(f"gateway on http://{settings.host}:{settings.port}, plain HTTP: end TLS in front of it")
    serve(settings, broker)


def _address(store: str | None, state_dir: Any) -> str:
    from ..gateway.settings import gateway_settings

    broker = read_settings(None, state_dir)
    broker.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return gateway_settings(store_url=store).store(broker.state_dir)


def _store(store: str | None, state_dir: Any) -> Any:
    from ..gateway.serve import open_store
    from ..gateway.settings import gateway_settings

    return open_store(gateway_settings(store_url=store), read_settings(None, state_dir))


@contextmanager
def _extra() -> Iterator[None]:
    """Turn a library that is not installed into one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ephemeralml"):
            raise
        raise ConfigurationError(
            "EXTRA_MISSING", "the gateway needs more libraries: pip install 'ephemeralml[gateway]'"
        ) from None
