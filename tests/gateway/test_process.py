"""The gateway as a process: commands, a kill in the middle of an upload, and what it leaves on disk."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.cli import build
from ephemeralml.producer.gateway.serve import serve
from ephemeralml.producer.gateway.settings import gateway_settings
from ephemeralml.producer.gateway.store import Store, identity, staging, tenants
from ephemeralml.producer.gateway.store.models import metadata
from ephemeralml.wire.errors import Error
from ephemeralml.wire.job import Job
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealer

from ..servers.postgres import Postgres
from .conftest import Site, make_site
from .process import Process
from .test_upload import rows
from .uploads import SealedBatch, answer

KEY = re.compile(r"eml_[0-9a-f]{10}_[A-Za-z0-9_-]{43}")
CANARY = "the quick brown canary sings at midnight"


def reply_to(store: Store) -> str:
    with store.reading() as connection:
        return identity.reply_to(connection)


def sealed(store: Store, jobs: int = 4, **changes: object) -> SealedBatch:
    """Return a batch for a gateway that runs now."""
    return SealedBatch(reply_to(store), jobs, now=int(time.time()), **changes)  # type: ignore[arg-type]


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/cbor-seq"}


def half(gateway: Process, key: str, body: bytes, sent: int) -> socket.socket:
    """Send a part of an upload and keep the connection open."""
    found = socket.create_connection(("127.0.0.1", urlsplit(gateway.url).port or 0))
    lines = [f"{name}: {value}" for name, value in headers(key).items()]
    request = ["POST /v1/batches HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""]
    found.sendall("\r\n".join(request).encode() + body[:sent])
    return found


def wait_for(condition: object, patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def make_key(store: Store) -> str:
    with store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", time.time())
        return tenants.make_key(connection, tenant, "test", ["read", "write"], time.time())


def test_killed_in_the_middle_leaves_nothing_that_shows(sqlite_template: Path, tmp_path: Path) -> None:
    store_url = f"sqlite:///{tmp_path / 'gateway.db'}"
    (tmp_path / "gateway.db").write_bytes(sqlite_template.read_bytes())
    store = Store(store_url)
    # More than is gathered before the first write, so that staged rows are there when it dies.
    batch = sealed(store, 12, ciphertext_bytes=1 << 20)
    body, key = batch.cbor(), make_key(store)
    with Process(tmp_path, store_url) as gateway, half(gateway, key, body, len(body) * 2 // 3):
        wait_for(lambda: rows(store)[2] > 0)
        gateway.kill()
    assert rows(store)[0] == 1
    with make_site(store, tmp_path) as again:
        again.clock.now = time.time()  # before its housekeeping begins
        client = again.client
        client.headers.update(headers(key))
        assert client.get("/v1/batches").json()["data"] == []
        assert client.get(f"/v1/batches/{batch.name}").status_code == 404
        early = client.post("/v1/batches", content=body)
        assert (early.status_code, early.json()["code"]) == (409, "UPLOAD_IN_PROGRESS")
        again.clock.now += staging.STAGED_SECONDS + 1
        assert client.post("/v1/batches", content=body).status_code == 201
    assert rows(store) == (1, 6, 12)
    store.close()


def test_client_that_hangs_up_leaves_nothing(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it hangs up or falls silent."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    (tmp_path / "gateway.db").write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("EPHEMERALML_GATEWAY_READ_TIMEOUT_S", "1")
    store = Store(url)
    body, key = sealed(store).cbor(), make_key(store)
    with Process(tmp_path, url) as gateway:
        half(gateway, key, body, 200).close()
        with half(gateway, key, body, 200) as silent:
            said = silent.recv(4096).decode()
        assert said.startswith("HTTP/1.1 408 ")
        wait_for(lambda: rows(store) == (0, 0, 0))
        whole = half(gateway, key, body, len(body))
        assert whole.recv(4096).startswith(b"HTTP/1.1 201 ")
        whole.close()
    assert gateway.process.returncode == 0
    store.close()


def use_with_canaries(client: Any, store: Store) -> SealedBatch:
    """Send real jobs that hold the canary, and call things by it where people do so by mistake."""
    reply_key = PrivateKey.from_seed("x25519", os.urandom(32)).public_key
    fleet_key = PrivateKey.from_seed("xwing", os.urandom(32)).public_key
    sealer = Sealer(fleet_key, "job", monotonic=time.monotonic)
    batch = sealed(store, 3)
    for place, header in enumerate(batch.headers):
        salt, nonce = os.urandom(32), os.urandom(16)
        job = Job("minilm", "embed", (CANARY,), {}, salt, nonce, reply_key, header.not_after)
        batch.sealed[place] = sealer.seal(header.encode(), job.encode())
    posted = client.post("/v1/batches", content=batch.cbor())
    assert posted.status_code == 201, posted.text
    answer(store, batch, [0, 1, 2])
    assert len(client.get(f"/v1/batches/{batch.name}/results").text.splitlines()) == 3
    for path in (f"/v1/{CANARY}", f"/v1/batches?after={CANARY}", f"/v1/blobs/{CANARY}"):
        assert client.get(path).status_code in (400, 404)
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {CANARY}"}).status_code == 401
    for body in (CANARY.encode(), batch.items()[0] + CANARY.encode()):
        assert client.post("/v1/batches", content=body).status_code in (400, 409)
    assert client.post("/v1/batches", headers={"Idempotency-Key": CANARY}).status_code == 400
    return batch


def assert_no_canary(store: Store, log: str, key: str, batch: SealedBatch, folder: Path) -> None:
    secret = key.split("_", 2)[2]
    assert f"key={key[4:14]}" in log
    with store.reading() as connection:
        stored = [repr(row) for table in metadata.sorted_tables for row in connection.execute(table.select())]
    # The search finds what is there.
    assert any(repr(batch.headers[0].job_id)[2:-1] in text for text in stored)
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for word in (CANARY, CANARY.split()[3], secret):
        assert word not in log
        assert not any(word in text for text in stored)
        assert not any(word.encode() in data for data in files)


def test_nothing_that_was_sealed_is_on_disk(sqlite_template: Path, tmp_path: Path) -> None:
    """Database file, its log and the process's log."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    (tmp_path / "gateway.db").write_bytes(sqlite_template.read_bytes())
    store = Store(url)
    key = make_key(store)
    with Process(tmp_path, url) as gateway:
        with httpx.Client(base_url=gateway.url, headers=headers(key)) as client:
            batch = use_with_canaries(client, store)
        assert_no_canary(store, gateway.log.read_text(), key, batch, tmp_path)
    store.close()


def test_nothing_that_was_sealed_is_in_the_store(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.clock.now = time.time()
    key = make_key(site.store)
    site.client.headers.update(headers(key))
    with caplog.at_level(logging.DEBUG, logger="ephemeralml"):
        batch = use_with_canaries(site.client, site.store)
    folder = Path(site.store.url.database or "").parent if site.store.is_sqlite else Path("/nowhere")
    assert_no_canary(site.store, caplog.text, key, batch, folder)


def command(*words: str) -> tuple[int, str, str]:
    """Run a command of the gateway's in this process."""
    done = CliRunner().invoke(build("gateway"), ["gateway", *words])
    return done.exit_code, done.stdout, done.stderr


def test_keys_by_command(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERALML_GATEWAY_STORE_URL", server.database())
    monkeypatch.setenv("EPHEMERALML_STATE_DIR", str(tmp_path))
    status, shown, _ = command("keys", "create", "acme")
    assert (status, shown) == (78, "")
    assert [command("migrate")[1].strip() for _ in range(2)] == ["migrated", "nothing to do"]
    made = command("keys", "create", "acme", "--scopes", "read", "--days", "1", "--max-jobs", "5")[1].strip()
    assert KEY.fullmatch(made)
    prefix = made[4:14]
    (listed,) = [json.loads(line) for line in command("keys", "list", "--json")[1].splitlines()]
    assert (listed["prefix"], listed["scopes"], listed["revoked_at"]) == (prefix, ["read"], None)
    assert listed["expires_at"] - listed["created_at"] == 86_400
    assert command("keys", "revoke", prefix)[0] == 0
    assert command("keys", "revoke", prefix)[0] == 78
    assert "revoked" in command("keys", "list", "--tenant", "acme")[1]
    assert command("keys", "create", "acme", "--scopes", "all")[0] == 78


@pytest.mark.parametrize(
    ("words", "variables", "code"),
    [
        ({"host": "192.0.2.1"}, {}, "NOT_LOOPBACK"),
        ({}, {"EPHEMERALML_GATEWAY_PORT": "x"}, "BAD_SETTINGS"),
        ({}, {"EPHEMERALML_GATEWAY_STORE_URL": "mysql://u:secret@h/d"}, "BAD_STORE_URL"),
        ({}, {"EPHEMERALML_GATEWAY_STORE_URL": "postgresql://u:secret@127.0.0.1:1/d"}, "STORE_UNAVAILABLE"),
    ],
)
def test_refuses_to_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, object],
    variables: dict[str, str],
    code: str,
) -> None:
    for name, value in ({"EPHEMERALML_STATE_DIR": str(tmp_path)} | variables).items():
        monkeypatch.setenv(name, value)
    broker = broker_settings()
    with pytest.raises(Error) as caught:
        serve(gateway_settings(**words), broker)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)
