"""The main job, end to end, with real processes: workers, KMS, broker, model, receipts."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from pathlib import Path

from ephemeralml.broker_config.health import depth
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.producer import AsyncClient, InputItem, JobResult
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.pack import encode_message

from .conftest import Bench

SENTENCES = [f"Sentence number {n} speaks of the weather in town {n % 7}." for n in range(200)]
CANARY = "canary-5f3a9c71e0b2-ZEBRA-patient-name"


def items(count: int = 200) -> list[InputItem]:
    return [InputItem(str(n), (text,)) for n, text in enumerate(SENTENCES[:count])]


def test_all_jobs_answered_and_every_receipt_reaches_provenance(bench: Bench, tmp_path: Path) -> None:
    workers = [bench.worker(), bench.worker()]
    client = bench.client()
    fleet = client.trust_pool("minilm")
    assert len(fleet.workers) == 2
    with client.plan(fleet, items(), tmp_path / "t.ticket", pack_jobs=8) as ticket:
        client.push(ticket)
        results = list(client.results(ticket, 40))
    assert sorted(int(result.custom_id) for result in results) == list(range(200))
    assert {(result.status, result.assurance) for result in results} == {("succeeded", "provenance")}
    assert len({result.receipt for result in results}) == 200
    for worker in workers:
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.end() == 0
        assert "keys dropped" in worker.text


def test_async_client_gives_the_same_results(bench: Bench, tmp_path: Path) -> None:
    bench.worker()

    async def ask() -> list[JobResult]:
        client = AsyncClient(bench.client())
        ticket = await client.plan(await client.trust_pool("minilm"), items(5), tmp_path / "t.ticket")
        with ticket:
            await client.push(ticket)
            return [result async for result in client.results(ticket, 20)]

    results = asyncio.run(ask())
    assert sorted(result.custom_id for result in results) == ["0", "1", "2", "3", "4"]
    assert {(result.status, result.assurance) for result in results} == {("succeeded", "provenance")}


def test_sigkill_in_the_middle_loses_and_doubles_nothing(bench: Bench, tmp_path: Path) -> None:
    victim, _ = bench.worker("--concurrency", "1"), bench.worker("--concurrency", "1")
    client = bench.client()
    with client.plan(client.trust_pool("minilm"), items(), tmp_path / "t.ticket", pack_jobs=4) as ticket:
        client.push(ticket)
        seen: list[str] = []
        for result in client.results(ticket, 40):
            assert result.status == "succeeded"
            seen.append(result.custom_id)
            if len(seen) == 12:
                victim.popen.kill()
    assert victim.end() == -signal.SIGKILL
    assert sorted(map(int, seen)) == list(range(200))


def test_a_message_that_the_host_drops_is_asked_for_again(bench: Bench, tmp_path: Path) -> None:
    bench.worker()
    client = bench.client()
    with client.plan(client.trust_pool("minilm"), items(30), tmp_path / "t.ticket", pack_jobs=10) as ticket:
        names = list(ticket.pending_packs)
        with Submitter(bench.settings) as submitter:
            submitter.submit("minilm", encode_message(ticket.pending_packs[names[0]]))
        for name in names:
            ticket.submitted(name, time.time())  # the other two were taken, and never delivered
        results = list(client.results(ticket, 40))
    assert sorted(int(result.custom_id) for result in results) == list(range(30))


def test_worker_with_another_measurement_takes_nothing(bench: Bench) -> None:
    with Submitter(bench.settings) as submitter:
        submitter.submit("minilm", encode_message(b"a message that must stay"))
    worker = bench.start("--simulated-image", "another-image")
    assert worker.end(30) == 77
    assert "KMS_DENIED" in worker.text
    assert depth(bench.settings, "minilm").waiting == 1


def test_kms_down_takes_nothing_and_says_so_in_one_line(bench: Bench) -> None:
    with Submitter(bench.settings) as submitter:
        submitter.submit("minilm", encode_message(b"a message that must stay"))
    worker = bench.start(
        EPHEMERALML_WORKER_KMS_ENDPOINT="http://127.0.0.1:9", EPHEMERALML_WORKER_KMS_DEADLINE_SECONDS="2"
    )
    assert worker.end(40) == 69
    assert "KMS_UNAVAILABLE" in worker.text
    assert depth(bench.settings, "minilm").waiting == 1


def test_gated_worker_stops_at_once(bench: Bench) -> None:
    worker = bench.start("--simulated-image", "another-image", EPHEMERALML_WORKER_ON_DENIED="retry")
    worker.wait_for("key release refused")
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.end(10) == 0


def test_drain_exits_when_the_queue_is_empty(bench: Bench, tmp_path: Path) -> None:
    first = bench.worker()
    client = bench.client()
    fleet = client.trust_pool("minilm")
    first.popen.send_signal(signal.SIGTERM)
    assert first.end() == 0
    with client.plan(fleet, items(40), tmp_path / "t.ticket") as ticket:
        client.push(ticket)
        drained = bench.start("--drain")
        assert drained.end(40) == 0
        assert len(list(client.results(ticket, 10))) == 40


def test_command_line_submits_waits_and_writes_results(bench: Bench, tmp_path: Path) -> None:
    bench.worker()
    inputs = tmp_path / "in.jsonl"
    inputs.write_text('{"id": "a", "text": "one"}\n"two"\n{"id": "c", "inputs": ["three", "four"]}\n')
    code, text = bench.cli("submit", str(inputs), "--pool", "minilm", "--wait")
    assert code == 0, text
    rows = [json.loads(line) for line in (tmp_path / "in.jsonl.results.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "2", "c"]
    assert [len(row["outputs"]) for row in rows] == [1, 1, 2]
    assert {len(output["embedding"]) for row in rows for output in row["outputs"]} == {384}
    proofs = tmp_path / "in.jsonl.results.jsonl.proofs"
    receipt = proofs / f"{rows[0]['job_id']}.air"
    code, text = bench.cli(
        "verify", "receipt", str(receipt), "--public-key", rows[0]["receipt_key"], "--allow-evaluation"
    )
    assert code == 0, text
    flipped = tmp_path / "flipped.air"
    data = bytearray(receipt.read_bytes())
    data[200] ^= 1
    flipped.write_bytes(bytes(data))
    assert (
        bench.cli(
            "verify", "receipt", str(flipped), "--public-key", rows[0]["receipt_key"], "--allow-evaluation"
        )[0]
        == 2
    )


def test_client_that_was_killed_continues_with_its_ticket(bench: Bench, tmp_path: Path) -> None:
    announcer = bench.worker()
    client = bench.client()
    path = tmp_path / "t.ticket"
    with client.plan(client.trust_pool("minilm"), items(60), path, pack_jobs=4) as ticket:
        some = dict(list(ticket.pending_packs.items())[:7])
        with Submitter(bench.settings) as submitter:
            for name, pack in some.items():
                submitter.submit("minilm", encode_message(pack))
                ticket.submitted(name, time.time())
        for _, _result in zip(range(9), client.results(ticket, 20), strict=False):
            pass
    with path.open("ab") as file:
        file.write(b'{"replies":"cut short')
    code, text = bench.cli("results", str(path), "--out", str(tmp_path / "out.jsonl"))
    assert code == 0, text
    rows = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(map(int, rows)) == list(range(60))
    with Ticket.load(path) as again:
        assert not again.missing
        assert not again.pending_packs
    assert announcer.popen.poll() is None


def test_canary_is_nowhere_outside_client_and_tee(bench: Bench, tmp_path: Path) -> None:
    worker = bench.worker()
    client = bench.client()
    good = InputItem("good", (CANARY,))
    bad = InputItem("bad", (CANARY,), {"prompt": CANARY, "dimensions": CANARY})
    with client.plan(client.trust_pool("minilm"), [good, bad], tmp_path / "t.ticket") as ticket:
        client.push(ticket)
        results = {result.custom_id: result for result in client.results(ticket, 30)}
    assert results["good"].status == "succeeded"
    assert (results["bad"].status, results["bad"].code) == ("failed", "ENGINE_BAD_PARAMETERS")
    arguments = b"".join(
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)
    )
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    haystacks = {"arguments": arguments, "worker's output": worker.text.encode()}
    for folder in (bench.state, bench.lab.folder / "kms", tmp_path):
        for path in folder.rglob("*"):
            if path.is_file():
                haystacks[str(path)] = path.read_bytes()
    assert any("appendonly" in name or name.endswith((".aof", ".rdb")) for name in haystacks), (
        "no broker file was searched"
    )
    assert sum(map(len, haystacks.values())) > 10_000
    for name, content in haystacks.items():
        for form in _forms(CANARY):
            assert form not in content, f"the canary is in {name}"


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def _forms(text: str) -> list[bytes]:
    """Plain, hexadecimal, UTF-16 and base64 at each of its three alignments."""
    raw = text.encode()
    forms = [raw, raw.hex().encode(), raw.hex().upper().encode(), text.encode("utf-16-le")]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        forms.append(encoded[4:-4])
    return forms
