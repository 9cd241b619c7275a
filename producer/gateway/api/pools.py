"""Pools, workers and their evidence, as workers put them into the blob store. Nothing here is verified.

Clients verify: they fetch announcements and evidence here and judge them by their own policy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathField

from ....broker_config.blobs import BlobStore
from ....wire.announcement import Announcement, newest_prefix
from ....wire.errors import DeliveryError, Error
from ..store import identity
from .context import GatewayDep, Reader
from .problems import Refusal, responses
from .shapes import Blobs, Pool, Pools, Worker

router: Final = APIRouter(prefix="/v1", tags=["fleet"])

#: Namespaces of the blob store that are public: announcements, archived ones, and signed orders. Packs,
#: results and wrapped keys lie in others, which no route reads.
_PUBLIC: Final = r"(announcements|evidence|orders)/[a-z0-9][a-z0-9-]{0,62}/"
_KEY: Final = re.compile(_PUBLIC + r"[a-z0-9][a-z0-9._-]{0,126}")
_PREFIX: Final = re.compile(_PUBLIC)
MAX_WORKERS: Final = 1000
MAX_KEYS: Final = 10_000

PoolName = Annotated[str, PathField(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]


@router.get("/pools", responses=responses())
def pools(gateway: GatewayDep, key: Reader) -> Pools:
    """List pools that announce workers."""
    reply_to = _reply_to(gateway)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in _names(gateway.blobs, "announcements/"):
        found[name.split("/")[1]].append(name)
    return Pools(
        data=[
            Pool(name=pool, reply_to=reply_to, workers=_workers(gateway.blobs, names))
            for pool, names in sorted(found.items())
        ]
    )


@router.get("/pools/{pool}", responses=responses())
def pool_of(gateway: GatewayDep, key: Reader, pool: PoolName) -> Pool:
    """Show a pool: its workers' announcements, and where its jobs must have their replies sent to."""
    names = _names(gateway.blobs, newest_prefix(pool))
    if not names:
        raise Refusal("POOL_NOT_FOUND", "no worker of this pool has announced itself")
    return Pool(name=pool, reply_to=_reply_to(gateway), workers=_workers(gateway.blobs, names))


@router.get("/fleet", responses=responses())
def fleet(gateway: GatewayDep, key: Reader) -> list[Worker]:
    """List every worker that has announced itself."""
    return _workers(gateway.blobs, _names(gateway.blobs, "announcements/"))


@router.get("/blobs", responses=responses())
def blobs(
    gateway: GatewayDep,
    key: Reader,
    prefix: Annotated[str, Query(max_length=100, description="e.g. `announcements/POOL/`, `orders/POOL/`")],
) -> Blobs:
    """List public blobs: `announcements/POOL/`, `evidence/POOL/` or `orders/POOL/`."""
    if _PREFIX.fullmatch(prefix) is None:
        raise Refusal("NOT_FOUND", "public prefixes are announcements/POOL/, evidence/POOL/, orders/POOL/")
    return Blobs(data=_names(gateway.blobs, prefix))


@router.get(
    "/blobs/{blob:path}",
    responses={
        200: {"description": "The blob.", "content": {"application/octet-stream": {}}},
        **responses(),
    },
    response_class=Response,
)
def blob(gateway: GatewayDep, key: Reader, blob: Annotated[str, PathField(max_length=200)]) -> Response:
    """Get a public blob: an announcement, archived evidence (`evidence/POOL/HASH`) or a signed order."""
    if _KEY.fullmatch(blob) is None:
        raise Refusal("NOT_FOUND", "there is nothing here")
    return Response(gateway.blobs.get(blob), media_type="application/octet-stream")


def _reply_to(gateway: GatewayDep) -> str:
    with gateway.store.reading() as connection:
        return identity.reply_to(connection)


def _names(store: BlobStore, prefix: str) -> list[str]:
    found = sorted(name for name in store.list(prefix) if _KEY.fullmatch(name))
    return found[:MAX_KEYS]


def _workers(store: BlobStore, names: list[str]) -> list[Worker]:
    """Read announcements; what is none, or was replaced at this moment, is left out."""
    found = []
    for name in names[:MAX_WORKERS]:
        try:
            found.append(_worker(name, Announcement.decode(store.get(name))))
        except DeliveryError as error:
            if error.code != "BLOB_MISSING":
                raise
        except Error:
            continue
    return found


def _worker(name: str, announcement: Announcement) -> Worker:
    body = announcement.body
    return Worker(
        worker_id=body.worker_id.hex(),
        announcement=name,
        epoch=body.epoch,
        key_id=body.fleet_key.key_id.hex(),
        model=body.model.id,
        model_version=body.model.version,
        model_hash=body.model.manifest_hash.hex(),
        tasks=list(body.tasks),
        platform=announcement.bundle.platform,
        evidence_hash=announcement.bundle.evidence_hash.hex(),
        security_mode=body.security_mode,
        issued_at=body.issued_at,
        not_after=body.not_after,
    )
