"""Tenants and their API keys. A key is shown once, when it is made; the store keeps its SHA-256."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection, Row, select, update

from ....wire.errors import ConfigurationError
from .models import api_keys, tenants

Scope = Literal["read", "write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
DEFAULT_MAX_JOBS: Final = 500_000
DEFAULT_MAX_BYTES: Final = 10 << 30
DEFAULT_RATE_PER_S: Final = 50.0
DEFAULT_BURST: Final = 200
#: ``eml_``, 10 hexadecimal digits that name the key, and 32 random bytes in base64url.
_KEY: Final = re.compile(r"eml_([0-9a-f]{10})_[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who shares the gateway, and within which limits.

    :param max_jobs: in flight. :param max_bytes: stored. :param rate_per_s: requests; ``rate_burst`` at once.
    """

    id: int
    name: str
    max_jobs: int = DEFAULT_MAX_JOBS
    max_bytes: int = DEFAULT_MAX_BYTES
    rate_per_s: float = DEFAULT_RATE_PER_S
    rate_burst: int = DEFAULT_BURST


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What may be known of a key: its public prefix, never the key. Times are Unix seconds."""

    prefix: str
    tenant: Tenant
    name: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


def ensure(connection: Connection, name: str, now: float) -> Tenant:
    """Return the tenant of a name, made with the default limits where there is none.

    :raises ConfigurationError: ``BAD_NAME``.
    """
    found = connection.execute(select(tenants.c.id).where(tenants.c.name == _checked(name))).scalar()
    if found is None:
        row = {
            "name": name,
            "created_at": now,
            "max_jobs": DEFAULT_MAX_JOBS,
            "max_bytes": DEFAULT_MAX_BYTES,
            "rate_per_s": DEFAULT_RATE_PER_S,
            "rate_burst": DEFAULT_BURST,
        }
        found = connection.execute(tenants.insert().values(row).returning(tenants.c.id)).scalar_one()
    return get(connection, found)


def named(connection: Connection, name: str) -> Tenant | None:
    """Return the tenant of a name, None where there is none.

    :raises ConfigurationError: ``BAD_NAME``.
    """
    found = connection.execute(select(tenants.c.id).where(tenants.c.name == _checked(name))).scalar()
    return None if found is None else get(connection, found)


def get(connection: Connection, tenant_id: int) -> Tenant:
    """Return a tenant by the store's number."""
    columns = (tenants.c.id, tenants.c.name, tenants.c.max_jobs, tenants.c.max_bytes)
    query = select(*columns, tenants.c.rate_per_s, tenants.c.rate_burst)
    return Tenant(*connection.execute(query.where(tenants.c.id == tenant_id)).one())


def set_limits(
    connection: Connection,
    tenant_id: int,
    *,
    max_jobs: int | None = None,
    max_bytes: int | None = None,
    rate_per_s: float | None = None,
    rate_burst: int | None = None,
) -> None:
    """Change the limits that are given."""
    given = {"max_jobs": max_jobs, "max_bytes": max_bytes, "rate_per_s": rate_per_s, "rate_burst": rate_burst}
    change = {name: value for name, value in given.items() if value is not None}
    if change:
        connection.execute(update(tenants).where(tenants.c.id == tenant_id).values(change))


def make_key(
    connection: Connection,
    tenant: Tenant,
    name: str,
    scopes: Collection[str],
    now: float,
    expires_at: float | None = None,
) -> str:
    """Make a key and return it: whoever has it acts for the tenant.

    :raises ConfigurationError: ``BAD_NAME`` or ``BAD_SCOPE``.
    """
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ConfigurationError("BAD_SCOPE", "scopes are of read, write, admin, at least one")
    prefix = secrets.token_hex(5)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    key = f"eml_{prefix}_{secret}"
    row: dict[str, object] = {
        "tenant_id": tenant.id,
        "prefix": prefix,
        "hash": _hash(key),
        "name": _checked(name),
        "scopes": " ".join(scope for scope in SCOPES if scope in scopes),
        "created_at": now,
        "expires_at": expires_at,
    }
    connection.execute(api_keys.insert().values(row))
    return key


def by_key(connection: Connection, key: str, now: float) -> ApiKey | None:
    """Return what a key is, if it is one of ours and neither expired nor revoked; in constant time."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    wanted = (api_keys.c.prefix == match[1]) & tenants.c.disabled.is_(False)
    query = select(api_keys).join(tenants, tenants.c.id == api_keys.c.tenant_id).where(wanted)
    row = connection.execute(query).first()
    if row is None or not hmac.compare_digest(bytes(row.hash), _hash(key)):
        return None
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    return _api_key(connection, row)


def keys(connection: Connection, tenant: str | None = None) -> list[ApiKey]:
    """Return all keys, or those of the tenant of a name, the oldest first."""
    query = select(api_keys).join(tenants, tenants.c.id == api_keys.c.tenant_id)
    if tenant is not None:
        query = query.where(tenants.c.name == tenant)
    rows = connection.execute(query.order_by(api_keys.c.id)).all()
    return [_api_key(connection, row) for row in rows]


def revoke(connection: Connection, prefix: str, now: float) -> bool:
    """End a key at once; return False where there is none of this prefix that was not revoked."""
    wanted = (api_keys.c.prefix == prefix) & api_keys.c.revoked_at.is_(None)
    return connection.execute(update(api_keys).where(wanted).values(revoked_at=now)).rowcount == 1


def _api_key(connection: Connection, row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.prefix,
        get(connection, row.tenant_id),
        row.name,
        frozenset(row.scopes.split()),
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            "BAD_NAME", "a name is 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit"
        )
    return name
