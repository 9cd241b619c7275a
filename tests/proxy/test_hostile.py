"""What a host may do to answers: the proxy hands out nothing that does not verify."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import httpx
import openai
import pytest

from ephemeralml.producer.proxy.server import open_proxy
from ephemeralml.producer.proxy.settings import ProxySettings
from ephemeralml.wire.announcement import ModelIdentity, newest_prefix
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, ConfigurationError
from ephemeralml.wire.header import ReplyHeader
from ephemeralml.wire.job import Embedding, Response, Result
from ephemeralml.wire.pack import SealedReply
from ephemeralml.wire.sealing import Sealer
from ephemeralml.workers.pipeline import Reply

from .conftest import Stand
from .host import IMAGE, MODEL, Host

Make = Callable[..., Stand]


def meddling(host: Host, change: Callable[[SealedReply], SealedReply]) -> None:
    host.meddle = lambda replies: [Reply(reply.reply_to, change(reply.sealed)) for reply in replies]


def flip(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def another_result(host: Host) -> Callable[[SealedReply], SealedReply]:
    """A host that knows the reply key (it is in no message) seals a result of its own making."""

    def change(reply: SealedReply) -> SealedReply:
        job = host.jobs[-1]
        header = ReplyHeader(reply.job_id, host.pool, job.reply_key.key_id).encode()
        response = Response(
            reply.job_id,
            MODEL.id,
            MODEL.manifest_hash,
            "embed",
            (Embedding(bytes(1536), 1, False),),
            host.pipeline.identity.engine,
            job.salt,
        )
        sealer = Sealer(job.reply_key, "result", monotonic=time.monotonic)
        sealed = sealer.seal(header, Result(response.encode(), b"no receipt").encode())
        return SealedReply(reply.job_id, reply.outcome, header, sealed)

    return change


def flipped_outcome(_: Host) -> Callable[[SealedReply], SealedReply]:
    return lambda reply: replace(reply, outcome=flip(reply.outcome, -1))


def flipped_result(_: Host) -> Callable[[SealedReply], SealedReply]:
    def change(reply: SealedReply) -> SealedReply:
        assert reply.sealed is not None
        sealed = replace(reply.sealed, ciphertext=flip(reply.sealed.ciphertext, 40))
        return replace(reply, sealed=sealed)

    return change


def no_result(_: Host) -> Callable[[SealedReply], SealedReply]:
    return lambda reply: SealedReply(reply.job_id, reply.outcome)


def other_model(host: Host) -> Callable[[SealedReply], SealedReply]:
    """A genuine worker of the same image answers with another model than the one that was asked."""
    host.pipeline.identity = replace(
        host.pipeline.identity, model=ModelIdentity(MODEL.id, "2", sha256(b"another manifest"))
    )
    return lambda reply: reply


def unannounced_worker(host: Host) -> Callable[[SealedReply], SealedReply]:
    """A worker with a key of its own, whose evidence nobody has seen."""
    host.pipeline.identity = replace(host.pipeline.identity, evidence_hash=os.urandom(32))
    return lambda reply: reply


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (flipped_outcome, "SIG_FAILED"),
        (flipped_result, "SEALING_FAILED"),
        (no_result, "RESULT_MISSING"),
        (another_result, "RECEIPT_HASH_MISMATCH"),
        (other_model, "MODEL_HASH_MISMATCH"),
        (unannounced_worker, "EVIDENCE_UNKNOWN"),
    ],
)
def test_an_answer_that_does_not_verify_is_none(
    stand: Make, attack: Callable[[Host], Callable[[SealedReply], SealedReply]], code: str
) -> None:
    served = stand()
    meddling(served.host, attack(served.host))
    with served.openai as client, served.hastened(), pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model=MODEL.id, input="x")
    assert (caught.value.status_code, caught.value.type) == (503, "trust_error")
    assert caught.value.code == code
    assert served.proxy.service.receipts.database.rows("SELECT count(*) FROM receipts") == [(0,)]


def test_answers_swapped_between_two_callers_reach_neither(stand: Make) -> None:
    served = stand()
    held: list[Reply] = []

    def swap(replies: list[Reply]) -> list[Reply]:
        held.extend(replies)
        if len(held) < 2:
            return []
        first, second = held
        crossed = [
            replace(first.sealed, job_id=second.sealed.job_id),
            replace(second.sealed, job_id=first.sealed.job_id),
        ]
        return [Reply(first.reply_to, reply) for reply in crossed]

    served.host.meddle = swap
    codes: list[str | None] = []

    def ask(text: str) -> None:
        with served.openai as client, pytest.raises(openai.InternalServerError) as caught:
            client.embeddings.create(model=MODEL.id, input=text)
        codes.append(caught.value.code)

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("one", "two")]
    with served.hastened():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == ["OUTCOME_MISMATCH", "OUTCOME_MISMATCH"]


def test_a_forged_answer_does_not_keep_the_real_one_out(stand: Make) -> None:
    served = stand()
    served.host.meddle = lambda replies: [
        message
        for reply in replies
        for message in (Reply(reply.reply_to, replace(reply.sealed, outcome=b"junk")), reply, reply)
    ]
    with served.openai as client:
        assert client.embeddings.create(model=MODEL.id, input="x").data


def test_nobody_answers(stand: Make) -> None:
    served = stand(host={"deaf": True}, timeout_s=1)
    with served.openai as client, pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model=MODEL.id, input="x")
    assert (caught.value.status_code, caught.value.code) == (504, "JOB_UNANSWERED")


def test_a_policy_that_ends_stops_answers_at_once_even_those_under_way(stand: Make) -> None:
    served = stand()

    def end(replies: list[Reply]) -> list[Reply]:
        served.host.switch.ended = True
        return replies

    served.host.meddle = end
    with served.openai as client, served.http() as http:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as caught:
                client.embeddings.create(model=MODEL.id, input="x")
            assert (caught.value.status_code, caught.value.code) == (503, "POLICY_EXPIRED")
            assert caught.value.response.headers["x-should-retry"] == "false"
        assert http.get("/healthz").status_code == 503
        assert http.get("/attestation").json()["error"]["code"] == "POLICY_EXPIRED"


def test_workers_that_a_new_policy_does_not_want_are_not_asked(stand: Make) -> None:
    served = stand()
    nothing = served.host.switch.policy.model_copy(update={"models": ()})
    with served.openai as client:
        assert client.embeddings.create(model=MODEL.id, input="x").data
        served.host.switch.policy = nothing
        packs = len(served.host.packs)
        with pytest.raises(openai.InternalServerError) as caught:
            client.embeddings.create(model=MODEL.id, input="x")
    assert caught.value.code == "NO_TRUSTED_WORKER"
    assert len(served.host.packs) == packs


def test_stale_evidence_is_not_sealed_to(stand: Make) -> None:
    served = stand()
    served.host.ahead = served.host.switch.policy.max_evidence_age_s + 3700
    with served.openai as client, pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model=MODEL.id, input="x")
    assert caught.value.code == "NO_TRUSTED_WORKER"


@pytest.mark.parametrize("wrong", ["nobody", "image"])
def test_without_trust_it_does_not_start(stand: Make, broker: object, wrong: str) -> None:
    served = stand()
    host = served.host
    for name in list(host.blobs.list(newest_prefix(host.pool))):
        host.blobs.delete(name)
    if wrong == "image":
        host.worker(image=IMAGE + "-modified")
    settings = ProxySettings(pools=(host.pool,), folder=host.folder / "second", port=0)
    expected = ConfigurationError if wrong == "nobody" else AppraisalError
    with pytest.raises(expected), open_proxy(settings, host.client()):
        raise AssertionError("it started")
    assert not (host.folder / "second").exists()


def test_no_text_stays_behind(stand: Make, tmp_path: object) -> None:
    """Outside of files and batches the proxy's folder and the broker hold no plaintext."""
    served = stand()
    canary = "canary-91c7-ZEBRA"
    with served.openai as client:
        client.embeddings.create(model=MODEL.id, input=canary)
        client.chat.completions.create(model=MODEL.id, messages=[{"role": "user", "content": canary}])
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=MODEL.id, input=canary, dimensions=9999)
        assert canary not in json.dumps(caught.value.body)
    forms = [canary.encode(), canary.encode().hex().encode(), base64.b64encode(canary.encode())[:-4]]
    searched = 0
    for path in served.host.folder.rglob("*"):
        if path.is_file():
            searched += 1
            data = path.read_bytes()
            assert not any(form in data for form in forms), path.name
    assert searched >= 4


def test_a_caller_that_leaves_is_forgotten_and_its_generation_cancelled(stand: Make) -> None:
    served = stand(host={"deaf": True})
    body = {"model": MODEL.id, "messages": [{"role": "user", "content": "a long story"}]}
    with served.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.5)
    session = served.proxy.service.session
    deadline = time.monotonic() + 20
    prefix = f"cancel/{served.host.pool}/"
    while session.pending or not list(served.host.blobs.list(prefix)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
