"""Attempts of the hostile demo notice when they get through: each is shown a system that lets them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer.cli import demo_on_keys, demo_on_messages, demo_scene
from ephemeralml.producer.cli.demo_host import Host
from ephemeralml.producer.cli.demo_scene import MARK, Met, NotMet, Scene, altered, flipped, succeeded
from ephemeralml.wire.errors import KeyReleaseError
from ephemeralml.wire.header import JobHeader
from ephemeralml.wire.pack import SealedJob, SealedReply, encode_jobs
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealer

JOB_ID = bytes(range(16))


def test_the_host_finds_what_lies_anywhere(tmp_path: Path) -> None:
    with broker_running(broker_settings(state_dir=tmp_path / "state")) as settings:
        with redis_client(settings) as client:
            client.rpush("a-list", f"{MARK} list")
            client.hset("a-hash", "field", f"{MARK} hash")
            client.set("a-string", f"{MARK} string")
        folder = tmp_path / "files" / "deep"
        folder.mkdir(parents=True)
        (folder / "file").write_text(f"{MARK} file")
        log = tmp_path / "worker.log"
        log.write_text(f"{MARK} log")
        blobs = LocalBlobStore(tmp_path / "blobs")
        seen = b"".join(Host(settings, blobs).sees([tmp_path / "files"], [log]).values())
    for place in ("list", "hash", "string", "file", "log"):
        assert f"{MARK} {place}".encode() in seen, place


def ticket(key: PrivateKey) -> Any:
    """Return a ticket of one job, as far as attempts look at it."""
    header = JobHeader(JOB_ID, "minilm", key.public_key.key_id, "reply." + "0" * 32, 2_000_000_000).encode()
    sealed = Sealer(key.public_key, "job", monotonic=lambda: 0.0).seal(header, b"content")
    packs = {"0": encode_jobs("minilm", [SealedJob(header, sealed)])}
    head = SimpleNamespace(reply_to="reply." + "0" * 32, pool="minilm")
    return SimpleNamespace(packs=packs, head=head, jobs={JOB_ID.hex(): None})


@dataclass
class Stub:
    """Stands for a scene, and for its host, whose readings it holds."""

    seen: list[dict[str, bytes]]
    key: PrivateKey = field(default_factory=PrivateKey.generate)

    @property
    def lab(self) -> Any:
        """Its laboratory."""
        return SimpleNamespace(state=Path("state"), folder=Path("folder"))

    @property
    def host(self) -> Any:
        """The host."""
        return SimpleNamespace(
            put=lambda *_: None,
            take_replies=lambda *_: [],
            put_replies=lambda *_: None,
            sees=lambda *_: self.seen.pop(0),
        )

    @contextmanager
    def intercepted(self) -> Iterator[tuple[Any, bytes]]:
        """Yield a job."""
        yield ticket(self.key), b"entry"


PUBLIC = {"queue": b"header " + JOB_ID}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([PUBLIC, {**PUBLIC, "log": b"x" + MARK.encode()}], "an input can be read"),
        ([{**PUBLIC, "blob": MARK.encode().hex().encode()}, PUBLIC], "an input can be read"),
        ([{"queue": b"nothing"}, PUBLIC], "does not even find"),
        ([PUBLIC, {}], "does not even find"),
    ],
)
def test_reading_is_noticed_and_so_is_a_search_that_finds_nothing(
    seen: list[dict[str, bytes]], words: str
) -> None:
    with pytest.raises(NotMet, match=words):
        demo_on_messages.read_everything(cast("Scene", Stub(seen)))


def test_a_job_that_opens_to_the_hosts_key_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub([PUBLIC, PUBLIC])
    assert demo_on_messages.read_everything(cast("Scene", stub)).code == "SEALING_FAILED"
    monkeypatch.setattr(PrivateKey, "generate", lambda: stub.key)
    stub.seen = [PUBLIC, PUBLIC]
    with pytest.raises(NotMet, match="opened with a key of the host"):
        demo_on_messages.read_everything(cast("Scene", stub))


def refuse() -> object:
    raise KeyReleaseError("KMS_DENIED", "no")


def test_a_released_key_is_noticed() -> None:
    assert demo_on_keys._refused(refuse, "no") == Met("KMS_DENIED", "no")
    with pytest.raises(NotMet, match="released the key"):
        demo_on_keys._refused(lambda: b"seed", "no")


@pytest.mark.parametrize("line", ["", "ready: all is well", "Traceback"])
def test_a_worker_that_ends_without_a_refusal_is_noticed(line: str) -> None:
    scene = cast("Scene", SimpleNamespace(start_worker=lambda _: line))
    with pytest.raises(NotMet, match="planted"):
        demo_on_keys._worker_refuses(scene)


def test_a_client_that_would_seal_to_the_host_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, bytes] = {}
    genuine = SimpleNamespace(encode=lambda: b"genuine")
    monkeypatch.setattr(demo_on_keys, "_announced", lambda _: (genuine, "name"))
    scene: Any = SimpleNamespace(
        host=SimpleNamespace(blobs=SimpleNamespace(put=kept.__setitem__)),
        client=SimpleNamespace(trust_pool=lambda _: kept["name"]),
    )
    forged: Any = SimpleNamespace(encode=lambda: b"forged")
    with pytest.raises(NotMet, match="would seal to the host"):
        demo_on_keys._refused_fleet(scene, forged)
    assert kept == {"name": b"genuine"}, "the genuine announcement is not back"


def scene(**parts: Any) -> Scene:
    """Return a scene of stubs."""
    given = {name: parts.get(name, SimpleNamespace()) for name in ("lab", "client", "fleet", "host")}
    return Scene(**given, start_worker=lambda _: "")


def judged_by(monkeypatch: pytest.MonkeyPatch, judge: Callable[..., object]) -> None:
    monkeypatch.setattr(demo_scene, "Judge", lambda *_: SimpleNamespace(judge=judge))
    monkeypatch.setattr(demo_scene, "Opener", lambda *_: None)


def test_a_judge_that_lets_a_forged_reply_pass_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    judged_by(monkeypatch, lambda *_: "handed out")
    client = SimpleNamespace(trust=None, now=lambda: 0.0, discarded=0)
    stub: Any = SimpleNamespace(head=None, reply_key=None, jobs={JOB_ID.hex(): None})
    with pytest.raises(NotMet, match="let it pass"):
        scene(client=client).refusal(stub, SealedReply(JOB_ID, b"outcome"))


def test_a_job_that_was_run_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = SimpleNamespace(attestation_doc_hash=b"", status="succeeded", code="")
    unverified = SimpleNamespace(claimed=outcome, verify=lambda _: outcome)
    monkeypatch.setattr(demo_scene, "read_outcome", lambda _: unverified)
    worker = SimpleNamespace(body=SimpleNamespace(receipt_key=b""))
    client = SimpleNamespace(trust=SimpleNamespace(worker=lambda *_: worker))
    host = SimpleNamespace(take_replies=lambda _: [SealedReply(JOB_ID, b"outcome")])
    with pytest.raises(NotMet, match="was run"):
        scene(client=client, host=host).refused_by_worker("reply." + "0" * 32)
    outcome.status, outcome.code = "rejected", "CANNOT_OPEN"
    assert scene(client=client, host=host).refused_by_worker("x").code == "CANNOT_OPEN"


def test_answers_that_are_missing_or_not_successes_are_noticed() -> None:
    good: Any = SimpleNamespace(status="succeeded")
    bad: Any = SimpleNamespace(status="failed")
    succeeded([good, good], 2)
    for results in ([], [good], [good, bad]):
        with pytest.raises(NotMet):
            succeeded(results, 2)
    with pytest.raises(NotMet, match="no result"):
        altered(SealedReply(JOB_ID, b"outcome"))


def test_one_bit_is_changed() -> None:
    data = secrets.token_bytes(40)
    assert sum((a ^ b).bit_count() for a, b in zip(data, flipped(data), strict=True)) == 1
