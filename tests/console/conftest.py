"""A gateway as a process with something in its store, and a headless Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.broker_config.dead_letters import DeadLetter, DeadLetters
from ephemeralml.producer.gateway.store import Store, batches, identity, migrate, replies, tenants
from ephemeralml.producer.gateway.store.tenants import Tenant
from ephemeralml.producer.gateway.webhooks import deliveries, endpoints
from ephemeralml.producer.gateway.webhooks.keys import Master
from ephemeralml.wire.announcement import Announcement, AnnouncementBody, ModelIdentity, newest_prefix
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.job import EngineInfo
from ephemeralml.wire.private_keys import PrivateKey

from ..gateway.process import Process
from ..gateway.uploads import POOL, SealedBatch, number_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: What a browser would run if any of it were taken for markup.
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LETTER = DeadLetter(b"sealed and dead", "TOO_MANY_DELIVERIES", 5, 1_800_000_000, 32)


@dataclass
class Shown:
    """What the console has to show."""

    gateway: Process
    store: Store
    blobs: LocalBlobStore
    reader: str
    writer: str
    operator: str
    running: SealedBatch
    done: SealedBatch
    hostile: SealedBatch
    receipt_key: bytes

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"{self.gateway.url}/console/"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A gateway with batches of every kind, two workers, a dead letter and a webhook."""
    folder = tmp_path_factory.mktemp("console")
    store_url = f"sqlite:///{folder / 'gateway.db'}"
    store, blobs = Store(store_url), LocalBlobStore(folder / "blobs")
    migrate(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPHEMERALML_BLOB_URL", f"file://{folder / 'blobs'}")
        gateway = Process(folder, store_url)
    with gateway:
        yield fill(gateway, store, blobs)
    store.close()


def fill(gateway: Process, store: Store, blobs: LocalBlobStore) -> Shown:
    """Put something of each kind into a gateway's store."""
    now = time.time()
    with store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", now)
        reader, writer, operator = (
            tenants.make_key(connection, tenant, "console", scopes, now)
            for scopes in (["read"], ["read", "write"], ["read", "admin"])
        )
        reply_to = identity.reply_to(connection)
    made = {
        "done": SealedBatch(reply_to, 240, pack_jobs=40, now=int(now), input_root=bytes(range(32))),
        "running": SealedBatch(reply_to, 500, pack_jobs=50, now=int(now), metadata={"run": "nightly"}),
        "hostile": SealedBatch(reply_to, 4, now=int(now), metadata={"who <b>": HOSTILE}),
        "failed": SealedBatch(reply_to, 60, pack_jobs=30, now=int(now)),
        "waiting": SealedBatch(reply_to, 1000, pack_jobs=100, now=int(now)),
    }
    made["hostile"].custom_ids = [f"{HOSTILE}{index}"[-128:] for index in range(4)]
    for batch in made.values():
        headers = {"Content-Type": "application/cbor-seq", "Authorization": f"Bearer {writer}"}
        answered = httpx.post(f"{gateway.url}/v1/batches", content=batch.cbor(), headers=headers)
        assert answered.status_code == 201, answered.text
    end(store, made["done"], range(240), "succeeded")
    end(store, made["running"], range(310), "succeeded")
    end(store, made["running"], range(310, 322), "failed")
    end(store, made["running"], range(322, 330), "expired")
    end(store, made["hostile"], range(2), "rejected")
    end(store, made["failed"], range(30), "succeeded")
    with store.transaction() as connection:
        for name, states in {
            "done": ("in_progress", "finalizing", "completed"),
            "running": ("in_progress",),
            "failed": ("in_progress", "failed"),
        }.items():
            for state in states:
                code = "NO_WORKERS" if state == "failed" else None
                batches.move(connection, number_of(store, made[name]), state, now, code=code)  # type: ignore[arg-type]
    keys = [announce(blobs, POOL, model) for model in ("all-MiniLM-L6-v2", HOSTILE)]
    DeadLetters(blobs, POOL).add(LETTER)
    add_webhook(store, tenant, now)
    return Shown(
        gateway,
        store,
        blobs,
        reader,
        writer,
        operator,
        made["running"],
        made["done"],
        made["hostile"],
        keys[0],
    )


def end(store: Store, batch: SealedBatch, indexes: range, status: str) -> None:
    """Store replies to jobs as a relay does."""
    number = number_of(store, batch)
    with store.transaction() as connection:
        found = [batch.reply(index, status) for index in indexes]
        assert len(replies.record(connection, number, found, time.time())) == len(found)


def announce(blobs: LocalBlobStore, pool: str, model: str) -> bytes:
    """Announce a worker with simulated evidence; return its receipt key."""
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    attester = SimulatedAttester(DevelopmentRoot.create(), development_pcrs("image"))
    body = AnnouncementBody(
        pool,
        os.urandom(16),
        PrivateKey.generate().public_key,
        1,
        public,
        ModelIdentity(model, "2", sha256(b"manifest")),
        ("embed",),
        EngineInfo("noop", "noop", "f32", "1"),
        int(time.time()),
        int(time.time()) + 86_400,
        "evaluation",
    )
    bundle = BundleAttester(attester).bundle(public_key=public, user_data=sha256(body.encode()))
    name = newest_prefix(pool) + body.worker_id.hex()
    blobs.put(name, Announcement(body.encode(), bundle, b"no certificate here").encode())
    return public


def add_webhook(store: Store, tenant: Tenant, now: float) -> None:
    """Make an endpoint with one delivery that was taken, one that failed, and one on its way."""
    with store.transaction() as connection:
        endpoint = endpoints.create(
            connection,
            tenant.id,
            "https://hooks.example.com/ephemeralml",
            Master(bytes(32)),
            now,
            wanted=["batch.completed"],
            description=HOSTILE[:100],
            limit=5,
        )
        kinds = ("batch.completed", "batch.expired", "batch.cancelled")
        deliveries.add(connection, [deliveries.row(endpoint, kind, now) for kind in kinds])
        claimed = deliveries.claim(connection, now, 60, limit=3)
        deliveries.attempted(connection, claimed[0], now, status=200, code="", next_at=None)
        deliveries.attempted(connection, claimed[1], now, status=503, code="HTTP_503", next_at=now + 30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        _missing("there is no Chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def page(browser: Browser, shown: Shown) -> Iterator[Page]:
    """An empty tab; whatever the page complains of fails the test."""
    context = browser.new_context(
        viewport={"width": 1200, "height": 820}, locale="en-GB", timezone_id="Europe/Vienna"
    )
    made = context.new_page()
    made.set_default_timeout(30_000)
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    # The browser notes every answer of 4xx itself; what else it notes is ours.
    made.on("console", lambda line: faults.append(line.text) if _is_fault(line.type, line.text) else None)
    yield made
    context.close()
    assert not faults


def _is_fault(kind: str, text: str) -> bool:
    return kind in ("error", "warning") and not text.startswith("Failed to load resource")


def sign_in(page: Page, shown: Shown, key: str) -> None:
    """Enter a key as a user does."""
    page.goto(shown.url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Batches").wait_for()


def asset_folder() -> Path:
    """Return where the page's files lie."""
    from ephemeralml.producer.gateway.api.console import FOLDER

    return FOLDER
