"""What one request comes down to, live or in a batch: a job for a pool, and how its answer is written."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from ...wire.job import Task
from ..inputs import InputItem
from ..judge import JobResult

#: Writes a verified result as a response's body; from result, response id and creation (Unix seconds).
Render = Callable[[JobResult, str, int], dict[str, Any]]


class Body(BaseModel):
    """A request's body: unknown fields are refused, values are not bent into shape."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


@dataclass(frozen=True)
class Call:
    """One request that was read and found good.

    :param model: as it was asked for. :param prefix: of response ids.
    :param render: raises :class:`.errors.ApiError` where the verified result must not be handed out as an
        answer. :param stream: tokens are wanted as they come.
    """

    task: Task
    model: str
    pool: str
    item: InputItem = field(repr=False)
    prefix: str
    render: Render = field(repr=False)
    stream: bool = False
    include_usage: bool = False

    def response_id(self, job_id: bytes | None = None) -> str:
        """Return an id under which response and receipt are known, by default one that is new."""
        return self.prefix + (secrets.token_hex(16) if job_id is None else job_id.hex())
