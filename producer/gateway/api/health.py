"""Whether this process lives, and whether it can serve."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from ..store import identity
from .context import GatewayDep
from .problems import MEDIA_TYPE
from .shapes import Health

router: Final = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> Health:
    """Answer as long as the process serves."""
    return Health()


@router.get(
    "/readyz",
    responses={
        503: {
            "description": "The store cannot be used.",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    },
)
def ready(gateway: GatewayDep) -> Health:
    """Answer as long as the store can be read too."""
    with gateway.store.reading() as connection:
        identity.reply_to(connection)
    return Health()
