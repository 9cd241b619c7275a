"""Files and batches by OpenAI's client; a proxy that is killed continues them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from ephemeralml.broker_config.settings import BrokerSettings
from ephemeralml.producer.proxy import batch_runner

from .conftest import Stand, serving
from .host import MODEL, Host


def lines(count: int, **body: Any) -> bytes:
    return jsonl(
        {
            "custom_id": f"item-{n}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": MODEL.id, "input": f"text {n}"} | body,
        }
        for n in range(count)
    )


def jsonl(values: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def submit(client: openai.OpenAI, data: bytes, endpoint: Any = "/v1/embeddings") -> Batch:
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + 60
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < deadline, batch.status
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def rows(client: openai.OpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_is_answered_whole(client: openai.OpenAI) -> None:
    batch = ended(client, submit(client, lines(50, encoding_format="base64")))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed) == (50, 50)
    assert batch.error_file_id is None
    found = rows(client, batch.output_file_id)
    assert sorted(row["custom_id"] for row in found) == sorted(f"item-{n}" for n in range(50))
    assert all(isinstance(row["response"]["body"]["data"][0]["embedding"], str) for row in found)


def test_lists_are_paged(client: openai.OpenAI) -> None:
    made = [ended(client, submit(client, lines(1))).id for _ in range(3)]
    page = client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == [made[2], made[1]]
    assert page.has_more
    assert page.get_next_page().data[0].id == made[0]
    assert [batch.id for batch in client.batches.list(limit=1)][:3] == made[::-1]
    files = client.files.list(purpose="batch_output", order="asc")
    assert len(files.data) >= 3
    assert {file.purpose for file in files} == {"batch_output"}
    with pytest.raises(openai.NotFoundError):
        client.batches.list(after="batch_none")


def test_each_result_of_a_batch_has_its_receipt(client: openai.OpenAI, http: httpx.Client) -> None:
    batch = ended(client, submit(client, lines(3)))
    for row in rows(client, batch.output_file_id):
        assert http.get(f"/receipts/{row['response']['request_id']}").json()["assurance"] == "provenance"


def test_single_failures_leave_the_others(client: openai.OpenAI) -> None:
    data = lines(2) + lines(3, dimensions=9999).splitlines(keepends=True)[2]
    batch = ended(client, submit(client, data))
    assert batch.request_counts is not None
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)
    (row,) = rows(client, batch.error_file_id)
    assert (row["custom_id"], row["response"]["status_code"]) == ("item-2", 400)
    assert row["response"]["body"]["error"]["code"] == "ENGINE_BAD_PARAMETERS"


def test_chat_in_a_batch(client: openai.OpenAI) -> None:
    body = {"model": MODEL.id, "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body}
    batch = ended(client, submit(client, jsonl([line]), "/v1/chat/completions"))
    (row,) = rows(client, batch.output_file_id)
    assert row["response"]["body"]["choices"][0]["message"]["content"] == "user:hi "
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (1, 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not json\n", "invalid_json_line"),
        (b'{"custom_id": "a"}\n', "invalid_json_line"),
        (b"\n\n", "empty_file"),
        (lines(1) + lines(1), "duplicate_custom_id"),
        (lines(1, model="gpt-7"), "model_not_found"),
        (lines(1, surprise=1), "unknown_parameter"),
        (lines(1, input=[1, 2, 3]), "unsupported_input"),
        (lines(1).replace(b"/v1/embeddings", b"/v1/responses"), "invalid_url"),
        (lines(1, input="x" * (1 << 20)), "line_too_long"),
    ],
)
def test_a_bad_line_refuses_the_batch_before_anything_is_sealed(
    client: openai.OpenAI, shared: Stand, data: bytes, code: str
) -> None:
    packs = len(shared.host.packs)
    batch = ended(client, submit(client, data))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == code
    assert len(shared.host.packs) == packs


def test_files_are_kept_private_and_can_be_deleted(client: openai.OpenAI, shared: Stand) -> None:
    file = client.files.create(file=("../../etc/in.jsonl", b"{}\n"), purpose="batch")
    assert file.filename == "in.jsonl"
    folder = shared.proxy.settings.folder
    assert (folder / "files" / file.id).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert client.files.retrieve(file.id).bytes == 3
    assert client.files.delete(file.id).deleted
    assert not (folder / "files" / file.id).exists()
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"--x\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--x--\r\n", None),
        (b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n{}", None),
        (b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n{}\r\n--x--\r\n", None),
        (
            b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n{}\r\n"
            b"--x\r\nContent-Disposition: form-data; name=purpose\r\n\r\nfine-tune\r\n--x--\r\n",
            None,
        ),
    ],
    ids=["nothing", "json", "no file", "cut short", "no purpose", "another purpose"],
)
def test_bad_uploads_leave_nothing(http: httpx.Client, shared: Stand, body: bytes, kind: str | None) -> None:
    folder = shared.proxy.settings.folder / "files"
    before = set(folder.iterdir())
    kind = kind or "multipart/form-data; boundary=x"
    answer = http.post("/v1/files", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert set(folder.iterdir()) == before


def test_a_batch_that_is_cancelled_ends_with_what_there_is(
    stand: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_runner, "CANCEL_SECONDS", 0.5)
    served = stand()
    served.host.meddle = lambda replies: replies[:2]
    with served.openai as client:
        batch = submit(client, lines(5))
        deadline = time.monotonic() + 30
        while len(served.host.packs) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        with pytest.raises(openai.ConflictError):
            client.files.delete(batch.input_file_id)
        assert client.batches.cancel(batch.id).status == "cancelling"
        batch = ended(client, batch)
        assert batch.status == "cancelled"
        assert len(rows(client, batch.output_file_id)) == 2
        assert {row["error"]["code"] for row in rows(client, batch.error_file_id)} == {"batch_cancelled"}
        assert list(served.host.blobs.list(f"cancel/{served.host.pool}/"))
        assert client.batches.cancel(batch.id).status == "cancelled"
    assert not list((served.proxy.settings.folder / "tickets").iterdir())


@pytest.mark.parametrize("seed", range(2))
def test_a_proxy_that_is_stopped_at_any_point_continues(
    broker: BrokerSettings, tmp_path: Path, seed: int
) -> None:
    """Stopped and started until the batch is done: nothing is lost, nothing is double."""
    random = Random(seed)  # noqa: S311 - the same points each time
    with Host(tmp_path, broker, pool="p" + os.urandom(4).hex()) as host:
        with serving(host, tmp_path / "proxy") as proxy, Stand(host, proxy).openai as client:
            batch = submit(client, lines(40))
        for _ in range(2):
            with serving(host, tmp_path / "proxy"):
                time.sleep(random.uniform(0, 0.2))
        with serving(host, tmp_path / "proxy") as proxy, Stand(host, proxy).openai as client:
            batch = ended(client, batch)
            assert batch.status == "completed"
            found = [row["custom_id"] for row in rows(client, batch.output_file_id)]
        assert sorted(found) == sorted(f"item-{n}" for n in range(40))
        assert len(list((tmp_path / "proxy" / "files").iterdir())) == 2
