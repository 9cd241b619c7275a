"""Files and batches by OpenAI's client; a proxy that is killed continues them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pytest
from openai.types import Batch

from .conftest import Stand
from .host import MODEL


def lines(count: int, **body: Any) -> bytes:
    return jsonl(
        {
            "custom_id": f"item-{n}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": MODEL.id, "input": f"text {n}", **body},
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
