"""One line for each request: ids, status and time. Never a query, a header's value, or a body."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import LOG, internal

REQUEST_ID: Final = b"x-request-id"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Broken(Exception):
    """A stream could not be finished. Carries nothing, because the server logs it."""


class RequestLog:
    """Names each request, answers with that name, and logs the route's template in place of its path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name, begun, status = secrets.token_hex(8), time.monotonic(), 499
        state: dict[str, Any] = scope.setdefault("state", {})

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, named)
        except Exception as error:
            if status != 499:
                raise _Broken from None  # the answer has begun: only its end can say that it is not whole
            await internal(error)(scope, receive, named)
        finally:
            LOG.info(
                "request=%s tenant=%s key=%s %s %s status=%d ms=%d",
                name,
                state.get("tenant", "-"),
                state.get("key", "-"),
                scope["method"] if scope["method"] in METHODS else "OTHER",
                getattr(scope.get("route"), "path", "-"),
                status,
                (time.monotonic() - begun) * 1000,
            )
