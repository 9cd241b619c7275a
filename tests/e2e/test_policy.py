"""A signed policy around real processes: taken while they run, and the end of those it no longer wants."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ephemeralml.attestation.policy import TrustPolicy, load_policy
from ephemeralml.attestation.policy_bundle import PolicyStatement, canonical_policy, make_policy_bundle
from ephemeralml.attestation.policy_store import PolicyStore
from ephemeralml.wire.exit_codes import UNSOUND

from ..attestation.policy.samples import DAY, KEY, ROOT
from .conftest import Bench


def publish(store: PolicyStore, policy: TrustPolicy) -> None:
    """Sign the next version and put it in force."""
    now = int(time.time())
    newest = store.newest() if store.folder.exists() else None
    serial = 1 if newest is None else newest.statement.serial + 1
    previous = None if newest is None else newest.position.digest
    statement = PolicyStatement("lab", serial, now, now, now + DAY, canonical_policy(policy), previous)
    store.activate(make_policy_bundle(statement, KEY), now)


def test_a_policy_reaches_running_workers_and_clients(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))
    store = PolicyStore(tmp_path / "policies", ROOT)
    policy = load_policy(bench.lab.policy.read_bytes())
    publish(store, policy)
    worker = bench.worker(
        EPHEMERALML_WORKER_POLICY=str(store.folder),
        EPHEMERALML_WORKER_POLICY_ROOT=ROOT.hex(),
        EPHEMERALML_WORKER_POLICY_POLL_SECONDS="0",
    )
    inputs = tmp_path / "in.txt"
    inputs.write_text("one\ntwo\n")
    words = ["submit", str(inputs), "--pool", "minilm", "--wait"]
    words += ["--policy", str(store.folder), "--policy-root", ROOT.hex()]
    got, text = bench.cli(*words, "--ticket", str(tmp_path / "first"), "--out", str(tmp_path / "first.jsonl"))
    assert got == 0, text

    publish(store, policy.model_copy(update={"version": "without a model", "models": ()}))
    assert worker.end() == UNSOUND
    assert "policy: POLICY_ACTIVATED: lab#2 is in force after lab#1" in worker.lines
    assert any(line.startswith("policy: MODEL_NOT_ALLOWED") for line in worker.lines)
    assert "keys dropped" in worker.text
    got, text = bench.cli(*words, "--ticket", str(tmp_path / "second"))
    assert got == UNSOUND
    assert "MODEL_NOT_ALLOWED" in text
