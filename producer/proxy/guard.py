"""What every request passes before anything reads it: host, origin, token and size.

A page in the user's browser can send requests to loopback. It cannot hide its ``Origin``, and after
DNS rebinding its ``Host`` is not ours; it does not know the token either.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import ApiError
from .settings import is_loopback
from .token import is_token

LOG: Final = logging.getLogger("ephemeralml.proxy")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Answers without a token: that the proxy lives, nothing else.
OPEN_PATHS: Final = frozenset({"/healthz"})
UPLOADS: Final = frozenset({"/v1/files"})


@dataclass(frozen=True)
class Guard:
    """An ASGI application around another one.

    :param token: None where no token is asked for. :param hosts: names by which the proxy may be called,
        beside those of the loopback. :param max_body: bytes; :param max_upload: bytes, of files.
    """

    app: App
    token: str | None
    hosts: frozenset[str]
    max_body: int
    max_upload: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on with a bounded body."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        limit = self.max_upload if scope["path"] in UPLOADS else self.max_body
        refusal = self._refusal(scope["path"], headers, limit)
        if refusal is not None:
            await _answer(refusal, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, _bounded(receive, limit), watched)
        except Exception as error:  # a fault of ours; its text may hold anything
            LOG.error("an unexpected %s", type(error).__name__)
            if not started:
                fault = ApiError(500, "An unexpected fault.", type="server_error", code="UNEXPECTED")
                await _answer(fault, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes], limit: int) -> ApiError | None:
        if not self._ours(headers.get(b"host", b"")):
            return ApiError(403, "The Host header names another host.", code="BAD_HOST", retry=False)
        if b"origin" in headers:
            return ApiError(403, "Requests of web pages are not taken.", code="BROWSER_REFUSED", retry=False)
        known = (
            self.token is None or path in OPEN_PATHS or is_token(headers.get(b"authorization"), self.token)
        )
        if not known:
            message = (
                "Incorrect API key provided; the proxy's own token is in the file that it named at start."
            )
            return ApiError(401, message, code="invalid_api_key", retry=False)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            return _too_large(limit)
        return None

    def _ours(self, host: bytes) -> bool:
        name = host.decode("latin-1")
        if name.startswith("["):
            name, _, rest = name[1:].partition("]")
        else:
            name, _, rest = name.partition(":")
            rest = f":{rest}" if rest else ""
        if rest and not (rest.startswith(":") and rest[1:].isdigit()):
            return False
        return is_loopback(name.lower()) or name.lower() in self.hosts


def _bounded(receive: Receive, limit: int) -> Receive:
    """Count a body while it comes: a length may be left out, or be wrong."""
    left = limit

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes.", code="body_too_large", retry=False)


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
