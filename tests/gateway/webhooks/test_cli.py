"""``ephemeralml webhooks`` on both stores: every command, and what each says to wrong input."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from ephemeralml.cli import main
from ephemeralml.producer.gateway.store import Store
from ephemeralml.producer.gateway.webhooks import deliveries, endpoints
from ephemeralml.producer.gateway.webhooks.signing import read_verifying_key
from ephemeralml.wire.exit_codes import CONFIGURATION, UNAVAILABLE

URL = "https://hooks.example.com/a"
Run = Callable[..., list[str]]


@pytest.fixture
def run(
    store_url: str,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command on the store; return its lines, or the error's after a refusal with ``status``."""
    monkeypatch.setenv("EPHEMERALML_GATEWAY_STORE_URL", store_url)
    monkeypatch.setenv("EPHEMERALML_STATE_DIR", str(tmp_path / "state"))
    if not store.is_sqlite:
        monkeypatch.setenv("EPHEMERALML_WEBHOOK_MASTER_SECRET", "A" * 43 + "=")

    def run(*words: str, status: int = 0) -> list[str]:
        with patch.object(sys, "argv", ["ephemeralml", "webhooks", *words]), pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == status, said.err
        return (said.err if status else said.out).splitlines()

    return run


def made(run: Run, *more: str) -> tuple[str, str]:
    """Make a webhook; return its name and key."""
    name, key = run("create", "acme", URL, *more)
    return name, key


def test_a_webhook_from_its_making_to_its_end(run: Run, store: Store) -> None:
    name, key = made(run, "--events", "batch.completed, job.failed")
    assert re.fullmatch(r"we_[0-9a-f]{32}", name)
    read_verifying_key(key)
    (line,) = run("list", "acme")
    assert line.split() == [name, "enabled", "job.failed,batch.completed", URL]
    assert key not in line
    (message,) = run("test", name)
    (shown,) = run("deliveries", name, "--json")
    assert json.loads(shown) | {"next_at": 0} == {
        "id": message,
        "type": "webhook.test",
        "state": "pending",
        "attempts": 0,
        "last_status": None,
        "last_code": None,
        "next_at": 0,
    }
    assert run("deliveries", name, "--state", "failed") == []
    with store.transaction() as connection:
        (claimed,) = deliveries.claim(connection, time.time() + 1, 60, limit=1)
        deliveries.attempted(connection, claimed, time.time(), status=503, code="HTTP_503", next_at=None)
    (failed,) = run("deliveries", name, "--state", "failed")
    assert failed == f"{message}  webhook.test  failed  attempts=1  last=HTTP_503"
    assert run("replay", name, "--since", str(time.time() + 99)) == ["due again: 0"]
    assert run("replay", name, message) == ["due again: 1"]
    assert run("deliveries", name, "--state", "pending") != []
    assert run("disable", name) == ["disabled"]
    assert json.loads(run("list", "acme", "--json")[0])["disabled_reason"] == "BY_OPERATOR"
    assert run("enable", name) == ["enabled"]
    assert json.loads(run("list", "acme", "--json")[0])["enabled"] is True
    assert run("delete", name) == ["deleted"]
    assert run("list", "acme") == []


@pytest.mark.parametrize(("signing", "form"), [("v1", "whsec_"), ("v1a", "whpk_")])
def test_a_rotated_key_is_another_and_the_old_one_signs_too(
    run: Run, store: Store, signing: str, form: str
) -> None:
    name, key = made(run, "--signing", signing)
    (new,) = run("rotate", name)
    assert key.startswith(form)
    assert new.startswith(form)
    assert new != key
    with store.reading() as connection:
        found = endpoints.named(connection, bytes.fromhex(name[3:]))
    assert found is not None
    assert found.key_version == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "acme", "http://hooks.example.com"), "BAD_WEBHOOK_URL"),
        (("create", "acme", "https://127.0.0.1/x"), "WEBHOOK_ADDRESS_REFUSED"),
        (("create", "acme", URL, "--events", "job.done"), "BAD_EVENTS"),
        (("create", "acme", URL, "--signing", "v2"), "BAD_SIGNING"),
        (("create", "no such name!", URL), "BAD_NAME"),
        (("list", "nobody"), "NO_SUCH_TENANT"),
        (("test", "we_" + "0" * 32), "NO_SUCH_WEBHOOK"),
        (("delete", "we_" + "0" * 32), "NO_SUCH_WEBHOOK"),
        (("rotate", "we_123"), "BAD_NAME"),
        (("enable", "0" * 32), "BAD_NAME"),
        (("deliveries", "NAME", "--state", "gone"), "BAD_STATE"),
        (("replay", "NAME", "msg_" + "0" * 32), "NO_SUCH_DELIVERY"),
        (("replay", "NAME", "0" * 32), "BAD_NAME"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(run: Run, words: tuple[str, ...], code: str) -> None:
    name, key = made(run)
    before = run("list", "acme", "--json")
    (line,) = run(*(name if word == "NAME" else word for word in words), status=CONFIGURATION)
    assert line.startswith(f"error {code}: ")
    assert key not in line
    assert run("list", "acme", "--json") == before
    run("list", "nobody", status=CONFIGURATION)  # asking made no tenant


def test_no_more_webhooks_than_the_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERALML_WEBHOOK_MAX_ENDPOINTS", "1")
    made(run)
    (line,) = run("create", "acme", URL, status=UNAVAILABLE)
    assert line.startswith("error QUOTA_WEBHOOKS: ")


def test_a_shared_store_needs_the_shared_secret(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EPHEMERALML_WEBHOOK_MASTER_SECRET", raising=False)
    if store.is_sqlite:
        made(run)  # its secret lies beside it
        return
    (line,) = run("create", "acme", URL, status=CONFIGURATION)
    assert line.startswith("error NO_WEBHOOK_MASTER: ")
