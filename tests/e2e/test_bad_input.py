"""Bad input gets one clear line and a stable exit code; nothing submitted is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from ephemeralml.broker_config.health import depth

from .conftest import Bench

CASES = {
    "empty": (b"", "in.jsonl", 65, "INPUT_EMPTY"),
    "not json": (b'{"text": "one"}\nnot json\n', "in.jsonl", 65, "INPUT_NOT_JSON: line 2"),
    "10 MB line": (b"x" * 10_000_000, "in.txt", 65, "INPUT_LINE_TOO_LONG: line 1"),
    "duplicate id": (b'{"id":"a","text":"x"}\n{"id":"a","text":"y"}\n', "in.jsonl", 65, "INPUT_DUPLICATE_ID"),
    "unknown key": (b'{"txt": "x"}\n', "in.jsonl", 65, "INPUT_BAD_ITEM: line 1"),
    "not utf-8": (b"\xff\xfe\n", "in.txt", 65, "INPUT_NOT_UTF8"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_file(bench: Bench, tmp_path: Path, name: str) -> None:
    content, file_name, code, message = CASES[name]
    path = tmp_path / file_name
    path.write_bytes(content)
    got, text = bench.cli("submit", str(path), "--pool", "minilm", "--wait")
    assert (got, len(text.splitlines())) == (code, 1), text
    assert message in text
    assert not list(tmp_path.glob("*.ticket"))


def test_unknown_pool_unreachable_broker_and_wrong_arguments(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("one\n")
    for arguments, code, message in (
        (["--pool", "nobody"], 78, "POOL_UNKNOWN"),
        (["--pool", "Not A Pool"], 65, "BAD_POOL"),
        (["--pool", "minilm", "--broker", "redis://127.0.0.1:9/0"], 69, "BROKER_UNREACHABLE"),
        (["--pool", "minilm", "--policy", str(tmp_path / "none.json")], 78, "POLICY_UNREADABLE"),
    ):
        got, text = bench.cli("submit", str(path), *arguments)
        assert (got, len(text.splitlines())) == (code, 1), text
        assert message in text
    assert bench.cli("results", str(tmp_path / "none.ticket"))[0] == 78


@pytest.mark.parametrize("arguments", [["submit"], ["submit", "--nothing"], ["nothing"], ["verify"], []])
def test_misuse_exits_1_and_says_how_to_use_it(bench: Bench, arguments: list[str]) -> None:
    got, text = bench.cli(*arguments)
    assert got == 1, text
    assert "Traceback" not in text
    assert "Usage: ephemeralml" in text


def test_policy_of_another_laboratory_is_refused_before_anything_is_submitted(
    bench: Bench, tmp_path: Path
) -> None:
    bench.worker()
    policy = tmp_path / "policy.json"
    policy.write_text(
        bench.lab.policy.read_text()
        .replace('"manifest_hash":"', '"manifest_hash":"')
        .replace(bench.lab.about["model"]["manifest_hash"], "ab" * 32)
    )
    path = tmp_path / "in.txt"
    path.write_text("one\n")
    got, text = bench.cli("submit", str(path), "--pool", "minilm", "--policy", str(policy))
    assert (got, len(text.splitlines())) == (2, 1), text
    assert "MODEL_NOT_ALLOWED" in text
    assert depth(bench.settings, "minilm").waiting == 0


def test_timeout_without_workers_is_resumable(bench: Bench, tmp_path: Path) -> None:
    worker = bench.worker()
    client = bench.client()
    fleet = client.trust_pool("minilm")
    worker.popen.terminate()
    assert worker.end() == 0
    from ephemeralml.producer.inputs import InputItem

    path = tmp_path / "t.ticket"
    client.plan(fleet, [InputItem("1", ("one",))], path).close()
    got, text = bench.cli("results", str(path), "--timeout", "1")
    assert got == 75, text
    bench.worker()
    got, text = bench.cli("results", str(path), "--timeout", "30")
    assert got == 0, text
