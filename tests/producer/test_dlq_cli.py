"""The dead letters' commands, on a broker of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ephemeralml.broker_config import BrokerSettings, broker_running, broker_settings
from ephemeralml.broker_config.blobs import make_blob_store
from ephemeralml.broker_config.dead_letters import DeadLetter, DeadLetters
from ephemeralml.broker_config.health import depth
from ephemeralml.broker_config.ledger import Ledger
from ephemeralml.producer.cli.dlq import app
from ephemeralml.wire.pack import encode_jobs, encode_message

from ..vectors import wire_samples

POOL = "minilm"
JOBS = wire_samples.sealed_jobs()
READABLE = DeadLetter(encode_message(encode_jobs(POOL, JOBS)), "ATTEMPTS_EXHAUSTED", 4, 1_700_000_000, 1)
JUNK = DeadLetter(b"junk", "CBOR_TRUNCATED", 1, 1_600_000_000, 0)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerSettings]:
    with broker_running(broker_settings(state_dir=tmp_path)) as settings:
        letters = DeadLetters(make_blob_store(settings), POOL)
        letters.add(READABLE)
        letters.add(JUNK)
        yield settings


def call(broker: BrokerSettings, *arguments: str, answer: str = "") -> Result:
    where = ["--pool", POOL, "--state-dir", str(broker.state_dir)]
    return CliRunner().invoke(app, [*arguments, *where], input=answer)


def left(broker: BrokerSettings) -> set[str]:
    return {letter.id for letter in DeadLetters(make_blob_store(broker), POOL).list()}


def test_letters_are_listed_with_the_oldest_first(broker: BrokerSettings) -> None:
    found = [json.loads(line) for line in call(broker, "list", "--json").output.splitlines()]
    assert [row["id"] for row in found] == [JUNK.id, READABLE.id]
    assert found[1] | {"bytes": 0} == {
        "id": READABLE.id,
        "died_at": "2023-11-14 22:13:20 UTC",
        "code": "ATTEMPTS_EXHAUSTED",
        "deliveries": 4,
        "failed": 1,
        "bytes": 0,
    }
    assert "CBOR_TRUNCATED" in call(broker, "list").output


def test_a_letter_shows_what_is_public_of_its_jobs(broker: BrokerSettings) -> None:
    shown = json.loads(call(broker, "show", READABLE.id[:8], "--json").output)
    assert len(shown["jobs"]) == len(JOBS)
    assert shown["jobs"][0]["reply_to"].startswith("reply.")
    assert shown["jobs"][2] == {"unreadable": "CBOR_BAD_TYPE"}
    assert json.loads(call(broker, "show", JUNK.id, "--json").output)["jobs"] == []
    assert "ATTEMPTS_EXHAUSTED" in call(broker, "show", READABLE.id).output


def test_a_requeued_letter_is_on_the_queue_and_no_longer_dead(broker: BrokerSettings) -> None:
    assert call(broker, "requeue", READABLE.id[:16]).exit_code == 0
    assert depth(broker, POOL).waiting == 1
    assert left(broker) == {JUNK.id}


def test_purge_asks_first_and_forgets_the_ledger(broker: BrokerSettings) -> None:
    blobs = make_blob_store(broker)
    Ledger(blobs, POOL).start(READABLE.id, bytes(32))
    assert call(broker, "purge", answer="n\n").exit_code == 1
    assert left(broker) == {JUNK.id, READABLE.id}
    assert call(broker, "purge", JUNK.id, "--yes").exit_code == 0
    assert left(broker) == {READABLE.id}
    assert call(broker, "purge", answer="y\n").exit_code == 0
    assert not left(broker)
    assert not list(blobs.list(f"ledger/{POOL}/"))
    assert "no dead letters" in call(broker, "list").output


@pytest.mark.parametrize(("ident", "code"), [("0" * 64, "LETTER_UNKNOWN"), ("abc", "LETTER_AMBIGUOUS")])
def test_letters_that_are_not_there(broker: BrokerSettings, ident: str, code: str) -> None:
    found = call(broker, "show", ident)
    assert found.exit_code == 78
    assert code in found.output
