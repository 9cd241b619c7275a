"""Webhooks over HTTP: endpoints, their keys, trials, deliveries, replay."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from ....wire.errors import ConfigurationError, MalformedError
from ..api.context import Gateway, GatewayDep, Reader, Writer
from ..api.problems import Refusal, responses
from . import deliveries, endpoints
from .deliveries import Delivery
from .endpoints import EVENTS, MAX_DESCRIPTION, TEST, Endpoint
from .guard import MAX_URL_CHARS, read_url
from .keys import Master, shown
from .settings import WebhookSettings

router: Final = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
MAX_PAGE: Final = 100

EventName = Literal["job.completed", "job.failed", "batch.completed", "batch.expired", "batch.cancelled"]
EndpointName = Annotated[str, Path(pattern="^we_[0-9a-f]{32}$")]
MessageName = Annotated[str, Path(pattern="^msg_[0-9a-f]{32}$")]


class NewEndpoint(BaseModel, extra="forbid"):
    """An endpoint to be made."""

    url: str = Field(max_length=MAX_URL_CHARS, description="https://… of the public internet.")
    events: list[EventName] = Field(
        default=["batch.completed", "batch.expired", "batch.cancelled"], min_length=1
    )
    signing: Literal["v1", "v1a"] = Field(default="v1", description="v1: HMAC-SHA256; v1a: Ed25519.")
    description: str = Field(default="", max_length=MAX_DESCRIPTION)


class EndpointChange(BaseModel, extra="forbid"):
    """What to change of an endpoint."""

    url: str | None = Field(default=None, max_length=MAX_URL_CHARS)
    events: list[EventName] | None = Field(default=None, min_length=1)
    description: str | None = Field(default=None, max_length=MAX_DESCRIPTION)
    enabled: bool | None = None


class EndpointShape(BaseModel):
    """An endpoint. Times are Unix seconds."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    description: str
    events: list[str]
    signing: Literal["v1", "v1a"]
    public_key: str | None = Field(description="whpk_…, where it signs with v1a.")
    key_version: int
    enabled: bool
    disabled_reason: str | None = Field(
        description="GONE: it answered 410. FAILING: it took nothing for days."
    )
    disabled_at: int | None
    failing_since: int | None = Field(description="No attempt has succeeded since.")
    created_at: int


class EndpointSecret(EndpointShape):
    """An endpoint with its key, which is shown this once."""

    key: str = Field(description="whsec_… (secret) or whpk_… (public): what the receiver verifies with.")


class Endpoints(BaseModel):
    """All endpoints of the tenant."""

    data: list[EndpointShape]


class DeliveryShape(BaseModel):
    """A delivery: one event on its way to one endpoint."""

    id: str = Field(description="What is sent as webhook-id.")
    type: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    happened_at: int
    next_at: int | None
    last_at: int | None
    last_status: int | None = Field(description="HTTP status of the last attempt; 0: no answer.")
    last_code: str | None


class Deliveries(BaseModel):
    """Deliveries, the newest first."""

    data: list[DeliveryShape]
    has_more: bool
    last_id: str | None = Field(description="Give it as `after` for the next page.")


class Replayed(BaseModel):
    """How many deliveries are due again."""

    replayed: int


def _settings(request: Request) -> tuple[WebhookSettings, Master]:
    """Return what the app was given: ``app.state.webhooks``.

    :raises Refusal: ``WEBHOOKS_OFF``.
    """
    found: tuple[WebhookSettings, Master] | None = getattr(request.app.state, "webhooks", None)
    if found is None:
        raise Refusal("WEBHOOKS_OFF", "this gateway has no master secret for webhooks")
    return found


def _shape(endpoint: Endpoint, master: Master) -> dict[str, object]:
    public = None
    if endpoint.signing == "v1a":
        public = shown(master.key("v1a", endpoint.endpoint_id, endpoint.key_version))
    return {
        "id": endpoint.name,
        "url": endpoint.url,
        "description": endpoint.description,
        "events": list(endpoint.events),
        "signing": endpoint.signing,
        "public_key": public,
        "key_version": endpoint.key_version,
        "enabled": endpoint.enabled,
        "disabled_reason": endpoint.disabled_reason,
        "disabled_at": _seconds(endpoint.disabled_at),
        "failing_since": _seconds(endpoint.failing_since),
        "created_at": int(endpoint.created_at),
    }


def _secret(endpoint: Endpoint, master: Master) -> EndpointSecret:
    key = shown(master.key(endpoint.signing, endpoint.endpoint_id, endpoint.key_version))
    return EndpointSecret.model_validate(_shape(endpoint, master) | {"key": key})


def _seconds(value: float | None) -> int | None:
    return None if value is None else int(value)


def _delivery(delivery: Delivery) -> DeliveryShape:
    return DeliveryShape(
        id=delivery.name,
        type=delivery.type,
        state=delivery.state,
        attempts=delivery.attempts,
        happened_at=int(delivery.happened_at),
        next_at=_seconds(delivery.next_at),
        last_at=_seconds(delivery.last_at),
        last_status=delivery.last_status,
        last_code=delivery.last_code,
    )


def _check_url(url: str, settings: WebhookSettings) -> None:
    try:
        read_url(url, allow_loopback_http=settings.allow_loopback_http)
    except ConfigurationError as error:  # the caller's mistake, not the gateway's
        raise MalformedError(error.code, error.message) from None


def _find(gateway: Gateway, tenant_id: int, name: str) -> Endpoint:
    with gateway.store.reading() as connection:
        found = endpoints.find(connection, tenant_id, bytes.fromhex(name.removeprefix("we_")))
    if found is None:
        raise Refusal("WEBHOOK_NOT_FOUND", "there is no such webhook")
    return found


@router.post("", status_code=201, responses=responses())
def create(request: Request, gateway: GatewayDep, key: Writer, wanted: NewEndpoint) -> EndpointSecret:
    """Make an endpoint. Its key is shown in this answer only."""
    settings, master = _settings(request)
    _check_url(wanted.url, settings)
    with gateway.store.transaction() as connection:
        made = endpoints.create(
            connection,
            key.tenant.id,
            wanted.url,
            master,
            gateway.now(),
            wanted=wanted.events,
            signing=wanted.signing,
            description=wanted.description,
            limit=settings.max_endpoints,
        )
    return _secret(made, master)


@router.get("", responses=responses())
def list_endpoints(request: Request, gateway: GatewayDep, key: Reader) -> Endpoints:
    """List the tenant's endpoints, the oldest first."""
    _, master = _settings(request)
    with gateway.store.reading() as connection:
        found = endpoints.of_tenant(connection, key.tenant.id)
    return Endpoints(data=[EndpointShape.model_validate(_shape(each, master)) for each in found])


@router.get("/{name}", responses=responses())
def show(request: Request, gateway: GatewayDep, key: Reader, name: EndpointName) -> EndpointShape:
    """Show an endpoint."""
    _, master = _settings(request)
    return EndpointShape.model_validate(_shape(_find(gateway, key.tenant.id, name), master))


@router.patch("/{name}", responses=responses())
def change(
    request: Request, gateway: GatewayDep, key: Writer, name: EndpointName, wanted: EndpointChange
) -> EndpointShape:
    """Change an endpoint; enabling one again sends what waited."""
    settings, master = _settings(request)
    found = _find(gateway, key.tenant.id, name)
    values: dict[str, object] = wanted.model_dump(exclude_none=True)
    if wanted.url is not None:
        _check_url(wanted.url, settings)
    if wanted.events is not None:
        values["events"] = " ".join(each for each in EVENTS if each in wanted.events)
    with gateway.store.transaction() as connection:
        endpoints.change(connection, found, values)
    return EndpointShape.model_validate(_shape(_find(gateway, key.tenant.id, name), master))


@router.delete("/{name}", status_code=204, responses=responses())
def delete(gateway: GatewayDep, key: Writer, name: EndpointName) -> Response:
    """Remove an endpoint with its deliveries."""
    found = _find(gateway, key.tenant.id, name)
    with gateway.store.transaction() as connection:
        endpoints.delete(connection, found)
    return Response(status_code=204)


@router.post("/{name}/rotate", responses=responses())
def rotate(request: Request, gateway: GatewayDep, key: Writer, name: EndpointName) -> EndpointSecret:
    """Give an endpoint a new key, shown in this answer only; the old one signs too for a day."""
    settings, master = _settings(request)
    found = _find(gateway, key.tenant.id, name)
    with gateway.store.transaction() as connection:
        found = endpoints.rotate(connection, found, gateway.now(), settings.old_key_s)
    return _secret(found, master)


@router.post("/{name}/test", status_code=202, responses=responses())
def test(gateway: GatewayDep, key: Writer, name: EndpointName) -> DeliveryShape:
    """Send `webhook.test` to an endpoint; a relay delivers it."""
    found = _find(gateway, key.tenant.id, name)
    row = deliveries.row(found, TEST, gateway.now(), data={"endpoint": found.name})
    with gateway.store.transaction() as connection:
        deliveries.add(connection, [row])
        (made,) = deliveries.page(connection, found, 1)
    return _delivery(made)


@router.get("/{name}/deliveries", responses=responses())
def list_deliveries(
    gateway: GatewayDep,
    key: Reader,
    name: EndpointName,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    after: Annotated[str | None, Query(pattern="^msg_[0-9a-f]{32}$")] = None,
    state: Annotated[Literal["pending", "delivered", "failed"] | None, Query()] = None,
) -> Deliveries:
    """List an endpoint's deliveries, the newest first."""
    found = _find(gateway, key.tenant.id, name)
    last = None if after is None else _message(after)
    with gateway.store.reading() as connection:
        if last is not None and deliveries.find(connection, found, last) is None:
            raise _no_delivery()
        rows = deliveries.page(connection, found, limit + 1, last, state)
    shown_rows = [_delivery(each) for each in rows[:limit]]
    return Deliveries(
        data=shown_rows, has_more=len(rows) > limit, last_id=shown_rows[-1].id if shown_rows else None
    )


@router.post("/{name}/deliveries/{message}/replay", status_code=202, responses=responses())
def replay_one(gateway: GatewayDep, key: Writer, name: EndpointName, message: MessageName) -> Replayed:
    """Send a delivery again, under its own webhook-id."""
    found = _find(gateway, key.tenant.id, name)
    with gateway.store.transaction() as connection:
        count = deliveries.replay(connection, found, gateway.now(), message_id=_message(message), since=0)
    if count == 0:
        raise _no_delivery()
    return Replayed(replayed=count)


@router.post("/{name}/replay", status_code=202, responses=responses())
def replay(
    gateway: GatewayDep,
    key: Writer,
    name: EndpointName,
    since: Annotated[int, Query(ge=0, le=1 << 40, description="Unix seconds.")] = 0,
) -> Replayed:
    """Send all deliveries again that were given up."""
    found = _find(gateway, key.tenant.id, name)
    with gateway.store.transaction() as connection:
        count = deliveries.replay(connection, found, gateway.now(), message_id=None, since=since)
    return Replayed(replayed=count)


def _message(name: str) -> bytes:
    return bytes.fromhex(name.removeprefix("msg_"))


def _no_delivery() -> Refusal:
    return Refusal("DELIVERY_NOT_FOUND", "there is no such delivery")
