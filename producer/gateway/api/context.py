"""What the routes share: store, blobs, settings, clock, and who is asking."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ....broker_config.blobs import BlobStore
from ..settings import GatewaySettings
from ..store import Store, tenants
from ..store.tenants import ApiKey, Scope, Tenant
from .problems import Refusal

MAX_BUCKETS: Final = 10_000


class Buckets:
    """Token buckets, one per tenant: so many requests at once, so many per second in the long run.

    Each gateway process counts for itself.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._levels: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def take(self, tenant: Tenant) -> float:
        """Take one token; return 0, or the seconds until there will be one."""
        now = self._now()
        with self._lock:
            level, seen = self._levels.pop(tenant.id, (float(tenant.rate_burst), now))
            level = min(tenant.rate_burst, level + max(0.0, now - seen) * tenant.rate_per_s)
            wait = 0.0 if level >= 1 else (1 - level) / tenant.rate_per_s
            self._levels[tenant.id] = (level if wait else level - 1, now)
            if len(self._levels) > MAX_BUCKETS:
                self._levels.popitem(last=False)
        return wait


@dataclass
class Gateway:
    """The state of one gateway process.

    :param now: a clock, Unix seconds.
    """

    store: Store
    blobs: BlobStore
    settings: GatewaySettings
    now: Callable[[], float]
    buckets: Buckets = field(init=False)

    def __post_init__(self) -> None:
        self.buckets = Buckets(self.now)


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that a request came to."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(gateway_of)]
_BEARER: Final = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer eml_…`")


def _caller(
    request: Request,
    gateway: GatewayDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> ApiKey:
    now = gateway.now()
    found = None
    if credentials is not None:
        with gateway.store.reading() as connection:
            found = tenants.by_key(connection, credentials.credentials, now)
    if found is None:
        raise Refusal(
            "UNAUTHENTICATED",
            "an API key is needed: Authorization: Bearer eml_…",
            headers={"WWW-Authenticate": "Bearer"},
        )
    request.state.tenant = found.tenant.name
    request.state.key = found.prefix
    wait = gateway.buckets.take(found.tenant)
    if wait:
        raise Refusal(
            "RATE_LIMITED",
            "more requests than this tenant may make",
            retriable=True,
            headers={"Retry-After": str(math.ceil(wait))},
        )
    return found


def _needs(scope: Scope) -> Callable[[ApiKey], ApiKey]:
    def check(key: Annotated[ApiKey, Depends(_caller)]) -> ApiKey:
        if scope not in key.scopes:
            raise Refusal("SCOPE_MISSING", f"the API key has not the scope {scope}")
        return key

    return check


#: Whose request it is, once the key was found, within its rate, and of the scope.
Reader = Annotated[ApiKey, Depends(_needs("read"))]
Writer = Annotated[ApiKey, Depends(_needs("write"))]
Admin = Annotated[ApiKey, Depends(_needs("admin"))]
