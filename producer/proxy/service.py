"""The proxy's work: run a call, keep its receipt, only then write its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from ...wire.errors import Error
from ..judge import JobResult
from ..session import Session
from ..stream import Delta
from .calls import Call
from .catalogue import Catalogue
from .chat import read_chat
from .embeddings import read_embeddings
from .errors import ApiError, api_error, result_error
from .receipts import ReceiptStore
from .settings import ProxySettings
from .sse import DONE, ChunkWriter, all_of, chained, event, to_json

EMBEDDINGS: Final = "/v1/embeddings"
CHAT: Final = "/v1/chat/completions"
ENDPOINTS: Final = (EMBEDDINGS, CHAT)


@dataclass(frozen=True)
class Answer:
    """A response's body as JSON bytes, and its headers."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Service:
    """Runs what the routes have read. Nothing leaves before its receipt was verified and kept."""

    settings: ProxySettings
    session: Session
    receipts: ReceiptStore
    catalogue: Catalogue

    def read(self, endpoint: str, value: object, custom_id: str) -> Call:
        """Read a request of one of :data:`ENDPOINTS`.

        :raises ApiError: it cannot be answered. :raises pydantic.ValidationError: it is not of its form.
        :raises Error: as :meth:`.trust.Trust.fleet`, or ``BAD_PARAMETERS``.
        """
        if endpoint == EMBEDDINGS:
            allow = self.settings.allow_truncation
            return read_embeddings(value, self.catalogue, custom_id, allow_truncation=allow)
        return read_chat(value, self.catalogue, custom_id, max_tokens=self.settings.max_output_tokens)

    async def answer(self, call: Call) -> Answer:
        """Run a call to its verified end.

        :raises ApiError: why there is no answer; with the receipt's address where the job has ended.
        :raises Error: as :meth:`.session.Session.run`, or the receipt cannot be kept.
        """
        response_id = call.response_id()
        result = await self.session.run(call.item, task=call.task, pool=call.pool)
        return await asyncio.to_thread(self._finish, call, response_id, result)

    def _finish(self, call: Call, response_id: str, result: JobResult) -> Answer:
        self.receipts.keep([(response_id, result)])
        headers = receipt_headers(response_id, result)
        try:
            body = self.render(call, response_id, result)
        except ApiError as error:
            error.extra = headers
            raise
        return Answer(to_json(body), headers)

    def render(self, call: Call, response_id: str, result: JobResult) -> dict[str, Any]:
        """Return a verified result as a response's body.

        :raises ApiError: the job did not succeed, or its answer must not be handed out.
        """
        error = result_error(result)
        if error is not None:
            raise error
        return call.render(result, response_id, int(time.time()))

    # ------------------------------------------------------------- streaming

    async def stream(self, call: Call) -> tuple[AsyncIterator[bytes], dict[str, str]]:
        """Begin a stream of events; returns when the first is there, so that refusals have a status.

        With ``after-receipt`` that is when the whole text is verified. With ``as-sealed`` texts go out as
        their chunks are opened, and the stream ends with an error where the result does not verify.

        :raises ApiError: :raises Error: as :meth:`answer`.
        """
        response_id, writer = call.response_id(), ChunkWriter(call)
        writer.response_id = response_id
        if self.settings.stream == "after-receipt":
            result = await self.session.run(call.item, task=call.task, pool=call.pool)
            answer = await asyncio.to_thread(self._finish, call, response_id, result)
            return all_of([*writer.whole(result), DONE]), dict(answer.headers)
        parameters = {**call.item.parameters, "stream": True}
        call = replace(call, item=replace(call.item, parameters=parameters))
        source = self._provisional(call, response_id, writer)
        first = await anext(source)
        return chained(first, source), {"x-request-id": response_id} | receipt_address(response_id)

    async def _provisional(self, call: Call, response_id: str, writer: ChunkWriter) -> AsyncIterator[bytes]:
        started = False
        try:
            async with aclosing(self.session.stream(call.item, pool=call.pool)) as events:
                async for found in events:
                    if isinstance(found, Delta):
                        lines = writer.delta(found)
                    else:
                        await asyncio.to_thread(self._finish, call, response_id, found)
                        lines = writer.end(found)
                    for line in lines:
                        started = True
                        yield line
        except (ApiError, Error) as error:
            if not started:
                raise
            told = error if isinstance(error, ApiError) else api_error(error)
            yield event(told.body)
            return
        yield DONE


def receipt_address(response_id: str) -> dict[str, str]:
    """Return the header that says where a response's receipt is, or will be."""
    return {"x-ephemeralml-receipt": f"/receipts/{response_id}"}


def receipt_headers(response_id: str, result: JobResult) -> dict[str, str]:
    """Return the headers of every answer to a job that has ended."""
    known = {"x-request-id": response_id, "x-ephemeralml-assurance": result.assurance}
    return known | receipt_address(response_id)
