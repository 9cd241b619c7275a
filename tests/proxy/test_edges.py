"""Whom the proxy serves, what it refuses, and in which words."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ephemeralml.producer.cli import proxy as command
from ephemeralml.producer.proxy.database import Database
from ephemeralml.producer.proxy.receipts import ReceiptStore
from ephemeralml.producer.proxy.server import open_proxy
from ephemeralml.producer.proxy.settings import DEFAULT_PORT, ProxySettings, is_loopback, read_aliases
from ephemeralml.producer.proxy.token import is_token, load_token
from ephemeralml.wire.errors import ConfigurationError

from .conftest import Stand
from .host import MODEL

Make = Callable[..., Stand]
CHAT = {"model": MODEL.id, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": ""}, 401, "invalid_api_key"),
        ({"authorization": "Bearer eml-wrong"}, 401, "invalid_api_key"),
        ({"authorization": "Basic {token}"}, 401, "invalid_api_key"),
        ({"host": "evil.example"}, 403, "BAD_HOST"),
        ({"host": "127.0.0.1.evil.example:80"}, 403, "BAD_HOST"),
        ({"host": "localhost@evil.example"}, 403, "BAD_HOST"),
        ({"host": "[::1]evil"}, 403, "BAD_HOST"),
        ({"host": "127.0.0.1:80:80"}, 403, "BAD_HOST"),
        ({"origin": "https://evil.example"}, 403, "BROWSER_REFUSED"),
        ({"origin": "null"}, 403, "BROWSER_REFUSED"),
        ({"host": "localhost:1234"}, 200, None),
        ({"host": "[::1]:1234"}, 200, None),
        ({"authorization": "bearer {token}"}, 200, None),
    ],
)
def test_who_is_served(
    http: httpx.Client, shared: Stand, headers: dict[str, str], status: int, code: str | None
) -> None:
    given = {name: value.format(token=shared.proxy.token) for name, value in headers.items()}
    answer = http.get("/v1/models", headers=given)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert (answer.json()["error"]["code"] if code else None) == code


def test_a_preflight_of_a_browser_is_refused(http: httpx.Client) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert http.options("/v1/embeddings", headers=headers).status_code == 403


def test_only_health_is_open_and_says_nothing(shared: Stand) -> None:
    with httpx.Client(base_url=shared.proxy.url.removesuffix("/v1")) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        for path in ("/v1/models", "/attestation", "/receipts/x", "/v1/files", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": MODEL.id}, "input", "missing_required_parameter"),
        ({"input": "x"}, "model", "missing_required_parameter"),
        ({"model": 5, "input": "x"}, "model", "invalid_value"),
        ({"model": "gpt-7", "input": "x"}, "model", "model_not_found"),
        ({"model": MODEL.id, "input": ""}, "input", "invalid_value"),
        ({"model": MODEL.id, "input": []}, "input", "invalid_value"),
        ({"model": MODEL.id, "input": ["a", ""]}, "input", "invalid_value"),
        ({"model": MODEL.id, "input": ["a", True]}, "input", "invalid_value"),
        ({"model": MODEL.id, "input": [1, 2]}, "input", "unsupported_input"),
        ({"model": MODEL.id, "input": [[1, 2], [3]]}, "input", "unsupported_input"),
        ({"model": MODEL.id, "input": ["x"] * 2049}, "input", "invalid_value"),
        ({"model": MODEL.id, "input": "x", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"model": MODEL.id, "input": "x", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"model": MODEL.id, "input": "x", "surprise": 1}, "surprise", "unknown_parameter"),
    ],
)
def test_embeddings_that_cannot_be_answered(
    http: httpx.Client, shared: Stand, body: dict[str, Any], param: str, code: str
) -> None:
    packs = len(shared.host.packs)
    answer = http.post("/v1/embeddings", json=body)
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert len(shared.host.packs) == packs


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "Eve"}]}, "messages[0]"),
        ({"n": 17}, "n"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"audio_please": 1}, "audio_please"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_chats_that_cannot_be_answered(http: httpx.Client, more: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT | more)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "more", [{"temperature": 7}, {"seed": -1}, {"max_tokens": 10**9}, {"stop": ["x"] * 17}]
)
def test_parameters_out_of_bounds_are_named(http: httpx.Client, more: dict[str, Any]) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT | more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_PARAMETERS")
    assert next(iter(more)) in answer.json()["error"]["message"]


def test_what_changes_nothing_is_taken(http: httpx.Client) -> None:
    more: dict[str, Any] = {
        "user": "u",
        "metadata": {"a": "b"},
        "tools": [],
        "response_format": {"type": "text"},
        "n": None,
    }
    assert http.post("/v1/chat/completions", json=CHAT | more).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b'"x"', b'{"a": NaN}', b"\xff", b"[" * 100_000],
    ids=["nothing", "text", "list", "string", "nan", "not utf-8", "deep"],
)
def test_bodies_that_are_no_json_object(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/embeddings", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_bodies_are_bounded_with_and_without_a_length(stand: Make) -> None:
    served = stand(max_body_bytes=2000, max_file_bytes=3000)
    with served.http() as http:
        for content in (b"x" * 2001, (b"x" * 500 for _ in range(5))):
            answer = http.post("/v1/embeddings", content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        large = {"file": ("a", b"x" * 3001)}
        answer = http.post("/v1/files", files=large, data={"purpose": "batch"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    assert not list((served.proxy.settings.folder / "files").iterdir())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/embeddings", 405), ("GET", "/receipts/emb-0", 404)],
)
def test_unknown_paths_answer_in_the_same_form(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_long_inputs_are_refused_or_said(stand: Make) -> None:
    body = {"model": MODEL.id, "input": ["short", "word " * 300]}
    served = stand()
    with served.http() as http:
        answer = http.post("/v1/embeddings", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert http.get(answer.headers["x-ephemeralml-receipt"]).json()["status"] == "succeeded"


def test_long_inputs_are_answered_where_that_is_wanted(stand: Make) -> None:
    served = stand(allow_truncation=True)
    with served.http() as http:
        answer = http.post("/v1/embeddings", json={"model": MODEL.id, "input": ["short", "word " * 300]})
        assert answer.json()["ephemeralml"] == {"truncated": [1]}


def test_attestation_shows_what_is_trusted(http: httpx.Client, shared: Stand) -> None:
    report = http.get("/attestation").json()
    assert report["policy"]["version"] == shared.host.switch.policy.version
    assert report["assurance"]["level"] == "provenance"
    (pool,) = report["pools"]
    assert pool["model"]["manifest_sha256"] == MODEL.manifest_hash.hex()
    assert [worker["platform"] for worker in pool["workers"]] == ["simulated"]


def test_a_failed_job_has_a_signed_outcome(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"model": MODEL.id, "input": "x", "dimensions": 9999})
    report = http.get(answer.headers["x-ephemeralml-receipt"]).json()
    assert (report["status"], report["code"], report["receipt"]) == ("failed", "ENGINE_BAD_PARAMETERS", None)
    assert http.get(answer.headers["x-ephemeralml-receipt"] + "/air").status_code == 404


def test_an_answer_whose_receipt_cannot_be_kept_is_not_given(stand: Make) -> None:
    served = stand()
    served.proxy.service.receipts.database.run("DROP TABLE receipts")
    with served.http() as http:
        answer = http.post("/v1/embeddings", json={"model": MODEL.id, "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "PROXY_STORE_UNAVAILABLE")


def test_receipts_are_kept_within_bounds(tmp_path: Path, http: httpx.Client, shared: Stand) -> None:
    for _ in range(3):
        assert http.post("/v1/embeddings", json={"model": MODEL.id, "input": "x"}).status_code == 200
    store = shared.proxy.service.receipts
    rows = store.database.rows("SELECT id, size, created FROM receipts ORDER BY created, id")
    newest = [row[0] for row in rows[-2:]]
    ReceiptStore(store.database, 2, 10**9, 1).prune()
    assert [row[0] for row in store.database.rows("SELECT id FROM receipts ORDER BY created, id")] == newest
    ReceiptStore(store.database, 9, rows[-1][1], 1).prune()
    assert [row[0] for row in store.database.rows("SELECT id FROM receipts")] == newest[-1:]
    ReceiptStore(store.database, 9, 10**9, 1, now=lambda: float(rows[-1][2]) + 86_401).prune()
    assert store.database.rows("SELECT count(*) FROM receipts") == [(0,)]
    assert store.database.rows("SELECT count(*) FROM evidence") == [(0,)]


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.nip.io", ""])  # noqa: S104
def test_only_loopback_is_listened_on(host: str, tmp_path: Path) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="NOT_LOOPBACK"):
        ProxySettings(pools=("p",), folder=tmp_path, host=host)
    assert ProxySettings(pools=("p",), folder=tmp_path, host=host, dangerous_not_loopback=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("aliases", [["x"], ["=p"], ["a=p", "a=p"], ["a="], ["a=other"]])
def test_aliases_are_names_of_pools_that_are_served(aliases: list[str], tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"BAD_ALIAS|BAD_POOL"):
        ProxySettings(pools=("p",), folder=tmp_path, aliases=read_aliases(aliases))


def test_the_token_stays_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = load_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(path) == token
    assert load_token(path, renew=True) != token
    assert is_token(f"Bearer {load_token(path)}".encode(), load_token(path))
    assert not is_token(None, token)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="TOKEN_EXPOSED"):
        load_token(path)


def test_without_a_token_only_when_that_is_said(stand: Make) -> None:
    served = stand(dangerous_no_token=True)
    assert served.proxy.token is None
    with httpx.Client(base_url=served.proxy.url) as client:
        assert client.get("/models").status_code == 200
        assert client.get("/models", headers={"host": "evil.example"}).status_code == 403


def test_two_proxies_do_not_share_a_folder(stand: Make) -> None:
    served = stand()
    with (
        pytest.raises(ConfigurationError, match="PROXY_RUNNING"),
        open_proxy(served.proxy.settings, served.host.client()),
    ):
        raise AssertionError("it started")


def test_a_port_in_use_is_said(stand: Make, tmp_path: Path) -> None:
    served = stand()
    port = served.proxy.listener.getsockname()[1]
    settings = ProxySettings(pools=(served.host.pool,), folder=tmp_path / "other", port=port)
    with pytest.raises(ConfigurationError, match="PORT_UNUSABLE"), open_proxy(settings, served.host.client()):
        raise AssertionError("it started")


def test_a_folder_of_another_version_is_not_opened(tmp_path: Path) -> None:
    database = Database(tmp_path / "proxy.db")
    database.run("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(ConfigurationError, match="PROXY_FOLDER_VERSION"):
        Database(tmp_path / "proxy.db")
    (tmp_path / "bad.db").write_text("not a database, surely not one of SQLite's, that is certain " * 20)
    with pytest.raises(ConfigurationError, match="PROXY_FOLDER_UNUSABLE"):
        Database(tmp_path / "bad.db")


def test_the_default_port_is_stated_once() -> None:
    assert command.DEFAULT_PORT == DEFAULT_PORT
    assert json.dumps(DEFAULT_PORT) in (command.proxy.__doc__ or "")


def test_an_unexpected_fault_says_nothing_of_the_request(
    stand: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = stand()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary-text")

    monkeypatch.setattr(served.proxy.service.session, "run", fail)
    with served.http() as http:
        answer = http.post("/v1/embeddings", json={"model": MODEL.id, "input": "canary-text"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "UNEXPECTED")
    assert "canary-text" not in answer.text + caplog.text
