"""An operator rotates and revokes while a client's jobs are in flight; workers, KMS and broker are real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ephemeralml.attestation.key_release.stored import key_name, orders_prefix
from ephemeralml.broker_config.blobs import make_blob_store
from ephemeralml.producer.cli.keys import app, read_operator_key
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL
from ephemeralml.wire.errors import ConfigurationError
from ephemeralml.wire.exit_codes import CONFIGURATION, TIMED_OUT

from .conftest import Bench

QUICK = {"EPHEMERALML_WORKER_KEY_POLL_SECONDS": "0.2", "EPHEMERALML_WORKER_BACKEND": "noop"}


def run(bench: Bench, *arguments: str) -> Result:
    """Run ``ephemeralml keys`` in this process."""
    return CliRunner().invoke(app, [*arguments, "--pool", POOL], env=bench.environment)


def keys(bench: Bench, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = run(bench, *arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_rotation_loses_no_job_and_revocation_opens_none(bench: Bench, tmp_path: Path) -> None:
    operator = ("--key", str(bench.lab.operator_key))
    worker = bench.worker(**QUICK)
    client = bench.client()
    fleet = client.trust_pool(POOL)
    first = fleet.epoch
    items = [InputItem("a", ("one",)), InputItem("b", ("two",))]
    in_flight = client.plan(fleet, items, tmp_path / "in-flight.ticket")
    late = client.plan(fleet, items, tmp_path / "late.ticket")

    code, told = keys(bench, "rotate", *operator)
    assert (code, told["moved"], told["current"]) == (0, True, first + 1)
    assert [(row["epoch"], row["state"], row["workers"]) for row in told["keys"]] == [
        (first + 1, "current", 1),
        (first, "draining", 0),
    ]
    with in_flight:
        client.push(in_flight)
        assert [result.status for result in client.results(in_flight, 20)] == ["succeeded"] * 2
    with client.plan(fleet, items, tmp_path / "new.ticket") as ticket:  # an old view of the pool is renewed
        client.push(ticket)
        assert [result.status for result in client.results(ticket, 20)] == ["succeeded"] * 2

    code, told = keys(bench, "revoke", *operator, "--epoch", str(first))
    assert (code, told["keys"][-1]["state"]) == (0, "revoked")
    worker.wait_for(f"keys: epoch {first} dropped: KEY_REVOKED")
    with late:
        client.push(late)
        assert {(result.status, result.code) for result in client.results(late, 20)} == {
            ("rejected", "KEY_REVOKED")
        }
    code, told = keys(bench, "revoke", *operator, "--epoch", str(first + 1))
    assert (code, told["current"]) == (0, first + 2)
    assert not make_blob_store(bench.settings).exists(key_name(POOL, first + 1))


def test_orders_that_nobody_obeys_end_in_one_line(bench: Bench, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(b"s" * 32)
    own = ("--key", str(bench.lab.operator_key))
    refused = run(bench, "rotate", "--key", str(stranger))
    assert (refused.exit_code, "NOT_AN_OPERATOR" in refused.stderr) == (CONFIGURATION, True)
    unknown = run(bench, "rotate", *own)
    assert (unknown.exit_code, "NO_CURRENT_EPOCH" in unknown.stderr) == (CONFIGURATION, True)
    assert list(make_blob_store(bench.settings).list(orders_prefix(POOL))) == []
    bench.worker(**{**QUICK, "EPHEMERALML_WORKER_KEY_POLL_SECONDS": "60"})
    late = run(bench, "rotate", *own, "--timeout", "0")
    assert (late.exit_code, "the order stands" in late.stderr) == (TIMED_OUT, True)
    listed = run(bench, "list")
    assert (listed.exit_code, "current" in listed.stdout) == (0, True)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"s" * 31, "32 bytes"), (b"s" * 33, "32")]
)
def test_an_operators_key_that_is_none_ends_in_one_line(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "operator.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_operator_key(path)
    assert caught.value.code == "OPERATOR_KEY_UNUSABLE"
