"""Every route against every kind of caller: who may not see a thing cannot tell that it is there."""

from __future__ import annotations

import os

import pytest
from fastapi.routing import APIRoute

from ephemeralml.producer.gateway.store import tenants

from .conftest import Site
from .uploads import NOW, SealedBatch, answer

#: Routes that need no key, because they say nothing of anybody.
OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/console"),
    ("GET", "/console/"),
    ("GET", "/console/{name}"),
}
#: Routes and the scope that they need; a route that is missing here fails the tests.
SCOPES = {
    ("POST", "/v1/batches"): "write",
    ("GET", "/v1/batches"): "read",
    ("GET", "/v1/batches/{name}"): "read",
    ("POST", "/v1/batches/{name}/cancel"): "write",
    ("DELETE", "/v1/batches/{name}"): "write",
    ("GET", "/v1/batches/{name}/results"): "read",
    ("GET", "/v1/batches/{name}/outcomes"): "read",
    ("GET", "/v1/batches/{name}/statement"): "read",
    ("GET", "/v1/me"): "read",
    ("GET", "/v1/pools"): "read",
    ("GET", "/v1/pools/{pool}"): "read",
    ("GET", "/v1/fleet"): "read",
    ("GET", "/v1/blobs"): "read",
    ("GET", "/v1/blobs/{blob:path}"): "read",
    ("GET", "/v1/dead-letters"): "admin",
    ("POST", "/v1/webhooks"): "write",
    ("GET", "/v1/webhooks"): "read",
    ("GET", "/v1/webhooks/{name}"): "read",
    ("PATCH", "/v1/webhooks/{name}"): "write",
    ("DELETE", "/v1/webhooks/{name}"): "write",
    ("POST", "/v1/webhooks/{name}/rotate"): "write",
    ("POST", "/v1/webhooks/{name}/test"): "write",
    ("GET", "/v1/webhooks/{name}/deliveries"): "read",
    ("POST", "/v1/webhooks/{name}/deliveries/{message}/replay"): "write",
    ("POST", "/v1/webhooks/{name}/replay"): "write",
}
OF_A_BATCH = [route for route in SCOPES if route[1].startswith("/v1/batches/{name}")]
OF_AN_ENDPOINT = [route for route in SCOPES if route[1].startswith("/v1/webhooks/{name}")]
STRANGER = "batch_" + "0" * 32
NO_ENDPOINT = "we_" + "0" * 32


def url(path: str, name: str = STRANGER) -> str:
    """Fill a route's template."""
    if name == STRANGER and "webhooks" in path:
        name = NO_ENDPOINT
    filled = path.replace("{name}", name).replace("{message}", "msg_" + "0" * 32)
    return filled.replace("{pool}", "minilm").replace("{blob:path}", "evidence/minilm/aa")


def routes(site: Site) -> set[tuple[str, str]]:
    """Return what the app really serves below the paths of this package."""
    found: set[tuple[str, str]] = set()
    stack = list(site.client.app.routes)  # type: ignore[attr-defined]
    while stack:
        route = stack.pop()
        stack += getattr(getattr(route, "original_router", None), "routes", [])
        if isinstance(route, APIRoute):
            found |= {(method, route.path) for method in route.methods or ()}
    return found


def test_every_route_is_in_the_matrix(lite: Site) -> None:
    assert routes(lite) == SCOPES.keys() | OPEN


@pytest.mark.parametrize(("method", "path"), SCOPES)
def test_no_key_no_answer(lite: Site, method: str, path: str) -> None:
    with lite.store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", NOW)
        expired = tenants.make_key(connection, tenant, "old", ["read", "write", "admin"], NOW - 10, NOW - 1)
        revoked = tenants.make_key(connection, tenant, "gone", ["read", "write", "admin"], NOW - 10)
        tenants.revoke(connection, revoked[4:14], NOW - 1)
    good = lite.keys["acme"]
    wrong = good[:-1] + ("A" if good[-1] != "A" else "Q")
    for key in (
        None,
        "Bearer x",
        f"Bearer {expired}",
        f"Bearer {revoked}",
        f"Bearer {wrong}",
        f"Basic {good}",
    ):
        headers = {} if key is None else {"Authorization": key}
        answered = lite.client.request(method, url(path), headers=headers)
        assert (answered.status_code, answered.json()["code"]) == (401, "UNAUTHENTICATED")
        assert answered.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), SCOPES)
def test_scope_is_needed(lite: Site, method: str, path: str) -> None:
    needed = SCOPES[method, path]
    others = [scope for scope in tenants.SCOPES if scope != needed]
    with lite.store.transaction() as connection:
        key = tenants.make_key(connection, tenants.ensure(connection, "acme", NOW), "k", others, NOW)
    answered = lite.client.request(method, url(path), headers={"Authorization": f"Bearer {key}"})
    assert (answered.status_code, answered.json()["code"]) == (403, "SCOPE_MISSING")


@pytest.mark.parametrize(("method", "path"), OF_A_BATCH)
def test_other_tenants_batch_is_not_there(site: Site, method: str, path: str) -> None:
    """The same answer, but for the request's id, whether another tenant has the batch or nobody has."""
    batch = site.batch(2, input_root=bytes(32))
    site.upload(batch)
    answer(site.store, batch, [0, 1])
    theirs, nobodys = (
        site.client.request(method, url(path, name), headers=site.auth("umbrella"))
        for name in (batch.name, STRANGER)
    )
    assert (theirs.status_code, theirs.json()["code"]) == (404, "BATCH_NOT_FOUND")
    assert theirs.content == nobodys.content
    assert {*theirs.headers} == {*nobodys.headers}
    mine = site.client.request("GET", url("/v1/batches/{name}", batch.name), headers=site.auth())
    assert (mine.status_code, mine.json()["status"]) == (200, "validating")


@pytest.mark.parametrize(("method", "path"), OF_AN_ENDPOINT)
def test_other_tenants_endpoint_is_not_there(site: Site, method: str, path: str) -> None:
    wanted = {"url": "https://example.com/hook"}
    made = site.client.post("/v1/webhooks", json=wanted, headers=site.auth())
    assert made.status_code == 201, made.text
    body = {"enabled": False} if method == "PATCH" else {"since": 1} if path.endswith("}/replay") else None
    theirs, nobodys = (
        site.client.request(method, url(path, name), json=body, headers=site.auth("umbrella"))
        for name in (made.json()["id"], NO_ENDPOINT)
    )
    assert theirs.status_code == 404, theirs.text
    assert theirs.content == nobodys.content
    mine = site.client.get(f"/v1/webhooks/{made.json()['id']}", headers=site.auth()).json()
    assert mine["enabled"]


def test_lists_and_cursors_do_not_cross(site: Site) -> None:
    batch = site.batch(2)
    site.upload(batch)
    for path in ("/v1/batches", "/v1/webhooks"):
        assert site.client.get(path, headers=site.auth("umbrella")).json()["data"] == []
    for name in (batch.name, STRANGER):
        answered = site.client.get("/v1/batches", params={"after": name}, headers=site.auth("umbrella"))
        assert (answered.status_code, answered.json()["code"]) == (404, "BATCH_NOT_FOUND")
    me = site.client.get("/v1/me", headers=site.auth("umbrella")).json()
    assert (me["jobs_in_flight"], me["bytes_stored"]) == (0, 0)


def test_disabled_tenant_is_out(lite: Site) -> None:
    with lite.store.transaction() as connection:
        connection.exec_driver_sql("UPDATE tenants SET disabled = 1 WHERE name = 'acme'")
    assert lite.client.get("/v1/me", headers=lite.auth()).status_code == 401
    assert lite.client.get("/v1/me", headers=lite.auth("umbrella")).status_code == 200


@pytest.mark.parametrize(
    "key",
    [
        "blobs/../gateway.db",
        "fleet-keys/minilm/1",
        "sha256/" + "0" * 64,
        "batches/" + "0" * 64,
        "cancel/minilm/" + "0" * 32,
        "announcements/minilm",
        "announcements/minilm/../../sha256/aa",
        "evidence/minilm/a/b",
        "Evidence/minilm/aa",
    ],
)
def test_only_public_blobs_are_read(lite: Site, key: str) -> None:
    lite.blobs.put("sha256/" + "0" * 64, b"a pack")
    lite.blobs.put("batches/" + "0" * 64, b"an answer")
    lite.blobs.put("fleet-keys/minilm/1", b"a wrapped key")
    answered = lite.client.get(f"/v1/blobs/{key}", headers=lite.auth())
    assert (answered.status_code, answered.json()["code"]) == (404, "NOT_FOUND")
    for prefix in (key, "sha256/", "", "announcements/", "fleet-keys/minilm/", "evidence/minilm/aa/"):
        listed = lite.client.get("/v1/blobs", params={"prefix": prefix}, headers=lite.auth())
        assert listed.status_code == 404, prefix


def test_public_blobs_come_as_they_are(lite: Site) -> None:
    junk = os.urandom(50)
    lite.blobs.put("evidence/minilm/aa", junk)
    lite.blobs.put("announcements/minilm/bb", junk)
    assert lite.client.get("/v1/blobs/evidence/minilm/aa", headers=lite.auth()).content == junk
    missing = lite.client.get("/v1/blobs/evidence/minilm/ab", headers=lite.auth())
    assert (missing.status_code, missing.json()["code"]) == (404, "BLOB_MISSING")
    listed = lite.client.get("/v1/blobs", params={"prefix": "evidence/minilm/"}, headers=lite.auth())
    assert listed.json() == {"data": ["evidence/minilm/aa"]}
    # What is no announcement is no worker, and harms no other.
    assert lite.client.get("/v1/pools/minilm", headers=lite.auth()).json()["workers"] == []
    assert lite.client.get("/v1/fleet", headers=lite.auth()).json() == []
    nobody = lite.client.get("/v1/pools/other", headers=lite.auth())
    assert (nobody.status_code, nobody.json()["code"]) == (404, "POOL_NOT_FOUND")


def test_reply_queue_is_told(lite: Site) -> None:
    assert isinstance(lite.batch(1), SealedBatch)
    lite.blobs.put("announcements/minilm/bb", b"x")
    for path in ("/v1/me", "/v1/pools/minilm"):
        assert lite.client.get(path, headers=lite.auth()).json()["reply_to"] == lite.reply_to
    assert lite.client.get("/v1/pools", headers=lite.auth()).json()["data"][0]["name"] == "minilm"
