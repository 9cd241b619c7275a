"""``webhooks``: the operator's view of tenants' webhooks, straight on the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...wire.errors import ConfigurationError
from .common import ERR, OUT, StateOption, one_line_errors, read_settings
from .gateway import StoreOption, _extra, _store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..gateway.webhooks.endpoints import Endpoint
    from ..gateway.webhooks.keys import Master
    from ..gateway.webhooks.settings import WebhookSettings

app = typer.Typer(
    help="Webhooks of the gateway's tenants: where events go, and what became of them. A relay sends them.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="The webhook's name: we_ and 32 hexadecimal digits.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("create")
def create(
    tenant: Annotated[str, typer.Argument(help="Tenant's name.")],
    url: Annotated[str, typer.Argument(help="https://… of the public internet.")],
    events: Annotated[
        str,
        typer.Option(help="Of job.completed, job.failed, batch.completed, batch.expired, batch.cancelled."),
    ] = "batch.completed,batch.expired,batch.cancelled",
    signing: Annotated[str, typer.Option(help="v1: HMAC-SHA256; v1a: Ed25519.")] = "v1",
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make a webhook and print its name and key; the key is shown this once."""
    with _opened(store, state_dir) as (connection, settings, master):
        from ..gateway.store import tenants
        from ..gateway.webhooks import endpoints
        from ..gateway.webhooks.guard import read_url
        from ..gateway.webhooks.keys import shown

        if signing not in ("v1", "v1a"):
            raise ConfigurationError("BAD_SIGNING", "a webhook is signed with v1 or v1a")
        read_url(url, allow_loopback_http=settings.allow_loopback_http)
        made = endpoints.create(
            connection,
            tenants.ensure(connection, tenant, time.time()).id,
            url,
            master,
            time.time(),
            wanted=[word.strip() for word in events.split(",")],
            signing=signing,  # type: ignore[arg-type]
            limit=settings.max_endpoints,
        )
        print(made.name)
        print(shown(master.key(made.signing, made.endpoint_id, made.key_version)))
    ERR.print("keep the key now: it is not shown again")


@app.command("list")
def list_command(
    tenant: Annotated[str, typer.Argument(help="Tenant's name.")],
    as_json: JsonOption = False,
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """List a tenant's webhooks, the oldest first."""
    with _opened(store, state_dir) as (connection, _, _master):
        from ..gateway.store import tenants
        from ..gateway.webhooks import endpoints

        found = tenants.named(connection, tenant)
        if found is None:
            raise ConfigurationError("NO_SUCH_TENANT", "there is no tenant of that name")
        for each in endpoints.of_tenant(connection, found.id):
            row = {
                "id": each.name,
                "url": each.url,
                "events": list(each.events),
                "signing": each.signing,
                "enabled": each.enabled,
                "disabled_reason": each.disabled_reason,
                "failing_since": each.failing_since,
            }
            state = "enabled" if each.enabled else f"disabled ({each.disabled_reason})"
            print(
                json.dumps(row) if as_json else f"{each.name}  {state}  {','.join(each.events)}  {each.url}"
            )


@app.command("test")
def send_test(name: NameArgument, store: StoreOption = None, state_dir: StateOption = None) -> None:
    """Have a relay send `webhook.test`; print the delivery's id, which `deliveries` shows."""
    with _opened(store, state_dir) as (connection, _, _master):
        from ..gateway.webhooks import deliveries
        from ..gateway.webhooks.endpoints import TEST

        found = _find(connection, name)
        row = deliveries.row(found, TEST, time.time(), data={"endpoint": found.name})
        deliveries.add(connection, [row])
        (made,) = deliveries.page(connection, found, 1)
        print(made.name)


@app.command("deliveries")
def deliveries_command(
    name: NameArgument,
    state: Annotated[str | None, typer.Option(help="Only pending, delivered or failed ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    as_json: JsonOption = False,
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """List a webhook's deliveries, the newest first."""
    with _opened(store, state_dir) as (connection, _, _master):
        from ..gateway.webhooks import deliveries

        if state not in (None, *deliveries.STATES):
            raise ConfigurationError("BAD_STATE", f"a state is one of {', '.join(deliveries.STATES)}")
        for each in deliveries.page(connection, _find(connection, name), limit, None, state):
            row = {
                "id": each.name,
                "type": each.type,
                "state": each.state,
                "attempts": each.attempts,
                "last_status": each.last_status,
                "last_code": each.last_code,
                "next_at": each.next_at,
            }
            last = each.last_code or each.last_status or "-"
            line = f"{each.name}  {each.type}  {each.state}  attempts={each.attempts}  last={last}"
            print(json.dumps(row) if as_json else line)


@app.command("replay")
def replay(
    name: NameArgument,
    message: Annotated[
        str | None, typer.Argument(help="One delivery (msg_…); default: all that failed.")
    ] = None,
    since: Annotated[float, typer.Option(min=0, help="Only events from then on, Unix seconds.")] = 0,
    store: StoreOption = None,
    state_dir: StateOption = None,
) -> None:
    """Send deliveries again under their own ids: one, or all that were given up."""
    with _opened(store, state_dir) as (connection, _, _master):
        from ..gateway.webhooks import deliveries

        found = _find(connection, name)
        one = None if message is None else _octets(message, "msg_")
        count = deliveries.replay(connection, found, time.time(), message_id=one, since=since)
        if one is not None and count == 0:
            raise ConfigurationError("NO_SUCH_DELIVERY", "this webhook has no delivery of that id")
        OUT.print(f"due again: {count}")


@app.command("enable")
def enable(name: NameArgument, store: StoreOption = None, state_dir: StateOption = None) -> None:
    """Send to a disabled webhook again, what waited first."""
    _switch(name, True, store, state_dir)


@app.command("disable")
def disable(name: NameArgument, store: StoreOption = None, state_dir: StateOption = None) -> None:
    """Send nothing to a webhook until it is enabled again; what happens meanwhile is not kept for it."""
    _switch(name, False, store, state_dir)


@app.command("rotate")
def rotate(name: NameArgument, store: StoreOption = None, state_dir: StateOption = None) -> None:
    """Give a webhook a new key and print it, this once; the old one signs too for a day."""
    with _opened(store, state_dir) as (connection, settings, master):
        from ..gateway.webhooks import endpoints
        from ..gateway.webhooks.keys import shown

        found = endpoints.rotate(connection, _find(connection, name), time.time(), settings.old_key_s)
        print(shown(master.key(found.signing, found.endpoint_id, found.key_version)))


@app.command("delete")
def delete(name: NameArgument, store: StoreOption = None, state_dir: StateOption = None) -> None:
    """Remove a webhook with its deliveries."""
    with _opened(store, state_dir) as (connection, _, _master):
        from ..gateway.webhooks import endpoints

        endpoints.delete(connection, _find(connection, name))
        OUT.print("deleted")


def _switch(name: str, enabled: bool, store: str | None, state_dir: Any) -> None:
    with _opened(store, state_dir) as (connection, _, _master):
        from ..gateway.webhooks import endpoints

        found = _find(connection, name)
        if enabled:
            endpoints.change(connection, found, {"enabled": True})
        else:
            endpoints.disable(connection, found, "BY_OPERATOR", time.time())
        OUT.print("enabled" if enabled else "disabled")


@contextmanager
def _opened(store: str | None, state_dir: Any) -> Iterator[tuple[Connection, WebhookSettings, Master]]:
    """Yield a transaction on the store, the settings and the master secret."""
    with one_line_errors(), _extra():
        from ..gateway.webhooks.settings import webhook_settings

        with closing(_store(store, state_dir)) as opened:
            settings = webhook_settings()
            master = settings.master(read_settings(None, state_dir).state_dir, shared=not opened.is_sqlite)
            if master is None:
                raise ConfigurationError(
                    "NO_WEBHOOK_MASTER",
                    "set EPHEMERALML_WEBHOOK_MASTER_SECRET as the gateway and relays have it",
                )
            with opened.transaction() as connection:
                yield connection, settings, master


def _find(connection: Connection, name: str) -> Endpoint:
    from ..gateway.webhooks import endpoints

    found = endpoints.named(connection, _octets(name, "we_"))
    if found is None:
        raise ConfigurationError("NO_SUCH_WEBHOOK", "there is no webhook of that name")
    return found


def _octets(text: str, prefix: str) -> bytes:
    try:
        found = bytes.fromhex(text.removeprefix(prefix))
    except ValueError:
        found = b""
    if len(found) != 16 or not text.startswith(prefix):
        raise ConfigurationError("BAD_NAME", f"a name is {prefix} and 32 hexadecimal digits")
    return found
