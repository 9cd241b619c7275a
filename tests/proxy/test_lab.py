"""The command itself in a laboratory: real worker, KMS, broker and MiniLM, each in its process."""

from __future__ import annotations

import base64
import signal
from pathlib import Path

import httpx
import openai
import pytest

from ..e2e.conftest import Bench, Process, bench, lab
from .test_batches import ended, jsonl, rows

__all__ = ["bench", "lab"]
MODEL = "all-MiniLM-L6-v2"


def start(bench: Bench, *arguments: str) -> tuple[Process, openai.OpenAI]:
    """Start a proxy and return it with OpenAI's client."""
    process = bench.start("--pool", "minilm", "--port", "0", *arguments, command="proxy")
    url = process.wait_for("ready: ").removeprefix("ready: ")
    token = Path(process.wait_for("token: ").removeprefix("token: "))
    assert token.stat().st_mode & 0o777 == 0o600
    return process, openai.OpenAI(base_url=url, api_key=token.read_text().strip(), max_retries=0)


def test_openai_s_client_is_answered_by_attested_workers(bench: Bench, tmp_path: Path) -> None:
    bench.worker()
    process, client = start(bench, "--alias", "text-embedding-3-small=minilm")
    texts = ["The cat sat on the mat.", "A cat was sitting on a rug.", "Interest rates rose again."]
    with client:
        answer = client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=texts)
        vectors = [item.embedding for item in answer.parse().data]
        near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
        assert near > 0.6
        assert far < 0.2
        with pytest.raises(openai.BadRequestError, match="longer than the model reads"):
            client.embeddings.create(model=MODEL, input="word " * 2000)
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
        assert caught.value.code == "unsupported_model"
        where = answer.headers["x-ephemeralml-receipt"]
        headers = {"authorization": f"Bearer {client.api_key}"}
        base = str(client.base_url).removesuffix("/v1/")
        with httpx.Client(base_url=base, headers=headers) as http:
            report = http.get(where).json()
            fleet = http.get("/attestation").json()
    assert fleet["assurance"]["security_modes"] == ["evaluation"]
    assert fleet["pools"][0]["workers"][0]["receipt_key"] == report["receipt_key"]
    (tmp_path / "r.air").write_bytes(base64.b64decode(report["receipt"]))
    arguments = ("--public-key", report["receipt_key"], "--allow-evaluation")
    assert bench.cli("verify", "receipt", str(tmp_path / "r.air"), *arguments)[0] == 0
    process.popen.send_signal(signal.SIGTERM)
    assert process.end() == 0
    assert "stopped" in process.text


def test_a_killed_proxy_continues_its_batch(bench: Bench) -> None:
    worker = bench.worker(EPHEMERALML_WORKER_BACKEND="noop")
    process, client = start(bench)
    with client:
        data = jsonl(
            {
                "custom_id": str(n),
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": MODEL, "input": "a text"},
            }
            for n in range(300)
        )
        file = client.files.create(file=("in.jsonl", data), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
        )
        process.popen.kill()
    assert process.end() == -signal.SIGKILL
    _, client = start(bench)
    with client:
        batch = ended(client, batch)
        assert batch.status == "completed"
        found = [int(row["custom_id"]) for row in rows(client, batch.output_file_id)]
    assert sorted(found) == list(range(300))
    assert worker.popen.poll() is None


def test_without_a_trusted_worker_it_says_so_in_one_line(bench: Bench) -> None:
    code, text = bench.cli("proxy", "--pool", "minilm", "--port", "0")
    assert code == 78
    assert text.startswith("error POOL_UNKNOWN")
    assert len(text.splitlines()) == 1
    code, text = bench.cli("proxy", "--pool", "minilm", "--port", "0", "--host", "0.0.0.0")  # noqa: S104
    assert (code, len(text.splitlines())) == (78, 1)
    assert text.startswith("error NOT_LOOPBACK")
