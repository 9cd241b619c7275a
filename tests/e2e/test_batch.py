"""A batch through real processes: two workers run it, one of them seals it, the client verifies."""

from __future__ import annotations

from pathlib import Path

import pytest

from ephemeralml.producer import InputItem
from ephemeralml.producer.batch import batch_file, seal_batch
from ephemeralml.receipts.batch_verify import read_batch
from ephemeralml.wire.errors import ConfigurationError

from .conftest import Bench


def test_a_batch_is_sealed_by_a_worker_and_verified_offline(bench: Bench, tmp_path: Path) -> None:
    bench.worker()
    bench.worker()
    client = bench.client()
    items = [InputItem(str(n), (f"Item {n} of the batch.",)) for n in range(60)]
    with client.plan(client.trust_pool("minilm"), items, tmp_path / "t", pack_jobs=4, batch=True) as ticket:
        client.push(ticket)
        with pytest.raises(ConfigurationError, match="BATCH_UNFINISHED"):
            batch_file(ticket)
        assert {result.status for result in client.results(ticket, 40)} == {"succeeded"}
        sealed = seal_batch(client, ticket, 40)
    assert sealed.verification.statement.counts == {"succeeded": 60}
    (tmp_path / "s").write_bytes(sealed.statement)
    (tmp_path / "o").write_bytes(sealed.file)
    with (tmp_path / "o").open("rb") as file:
        assert len(list(read_batch(file)[1])) == 60
    words = ["verify", "batch", str(tmp_path / "s"), "--outcomes", str(tmp_path / "o"), "--item", "59"]
    code, text = bench.cli(*words, "--public-key", sealed.receipt_key.hex())
    assert code == 0, text
    assert "sound" in text
