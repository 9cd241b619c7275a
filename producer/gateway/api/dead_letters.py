"""Dead letters over HTTP, for operators: which messages were given up and why, never what they hold.

A dead letter belongs to a pool, not to a tenant, so that only keys of the scope
``admin`` see any. Its message, ciphertext, stays where it is.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ....broker_config.dead_letters import DeadLetter, DeadLetters
from .context import Admin, GatewayDep
from .problems import responses

router: Final = APIRouter(prefix="/v1", tags=["fleet"])
MAX_PAGE: Final = 100


class DeadLetterShape(BaseModel):
    """A message that was given up."""

    id: str = Field(description="SHA-256 of the message, hexadecimal.")
    code: str = Field(description="Why.")
    deliveries: int = Field(description="How often it was delivered.")
    died_at: int = Field(description="Unix seconds.")
    jobs: int = Field(description="How many jobs ended as failed with it.")
    bytes: int = Field(description="Size of the message.")

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterShape:
        """Return the shape of a stored letter."""
        return cls(
            id=letter.id,
            code=letter.code,
            deliveries=letter.deliveries,
            died_at=letter.died_at,
            jobs=letter.jobs,
            bytes=len(letter.message),
        )


class DeadLetterPage(BaseModel):
    """Dead letters of a pool, in the order of their ids."""

    data: list[DeadLetterShape]
    has_more: bool


@router.get("/dead-letters", responses=responses())
def dead_letters(
    gateway: GatewayDep,
    key: Admin,
    pool: Annotated[str, Query(pattern="^[a-z0-9][a-z0-9-]{0,62}$")],
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
) -> DeadLetterPage:
    """List messages of a pool that no worker can answer (scope `admin`)."""
    letters = DeadLetters(gateway.blobs, pool).list()
    shown = [DeadLetterShape.of(letter) for letter in islice(letters, limit)]
    return DeadLetterPage(data=shown, has_more=next(letters, None) is not None)
