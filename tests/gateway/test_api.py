"""The API: uploads, states, lists, streams that go on, cancel, delete."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

import pytest

from ephemeralml.producer.gateway.store import batches, events, packs, tenants
from ephemeralml.producer.gateway.upload.split import CborSplitter
from ephemeralml.receipts.batch_verify import read_batch
from ephemeralml.receipts.outcome import peek_outcome
from ephemeralml.wire.encoding import decode
from ephemeralml.wire.pack import decode_jobs, decode_replies

from .conftest import Site
from .uploads import NOW, answer, number_of

CBOR = {"Content-Type": "application/cbor-seq"}
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.mark.parametrize("form", ["cbor", "ndjson"])
def test_batch_is_taken_whole(site: Site, form: str) -> None:
    batch = site.batch(5, metadata={"team": "search"}, input_root=bytes(32))
    body, kind = (batch.cbor(), CBOR) if form == "cbor" else (batch.ndjson(), LINES)
    answered = site.client.post("/v1/batches", content=body, headers=kind | site.auth())
    assert answered.status_code == 201, answered.text
    assert answered.headers["location"] == f"/v1/batches/{batch.name}"
    shown = site.client.get(f"/v1/batches/{batch.name}", headers=site.auth()).json()
    assert shown == answered.json()
    assert shown["status"] == "validating"
    assert shown["counts"]["pending"] == shown["counts"]["total"] == 5
    assert shown["metadata"] == {"team": "search"}
    assert shown["expires_at"] == NOW + 3600
    with site.store.transaction() as connection:
        claimed = packs.claim(connection, NOW, 30)
    jobs = [job for pack in claimed for job in decode_jobs(pack.data)[1]]
    assert [job.header for job in jobs] == [header.encode() for header in batch.headers]
    assert [job.sealed for job in jobs] == batch.sealed


def test_batch_goes_through_its_states(site: Site) -> None:
    batch = site.batch(4)
    name = site.upload(batch)
    with site.store.transaction() as connection:
        packs.submitted(connection, [pack.id for pack in packs.claim(connection, NOW, 30)], NOW + 1)
    assert site.client.get(f"/v1/batches/{name}", headers=site.auth()).json()["status"] == "in_progress"
    answer(site.store, batch, [0, 1])
    answer(site.store, batch, [2], "failed")
    answer(site.store, batch, [3], "rejected")
    with site.store.transaction() as connection:
        assert batches.move(connection, number_of(site.store, batch), "finalizing", NOW + 20)
        number = number_of(site.store, batch)
        batches.keep_statement(connection, number, b"statement", NOW + 21)
        assert batches.move(connection, number, "completed", NOW + 22, event="batch.completed")
        assert not batches.move(connection, number, "expired", NOW + 23)
        assert [event.type for event in events.claim(connection, NOW + 24, 30)] == ["batch.completed"]
    shown = site.client.get(f"/v1/batches/{name}", headers=site.auth()).json()
    assert (shown["status"], shown["completed_at"]) == ("completed", NOW + 22)
    counts = {"succeeded": 2, "failed": 1, "rejected": 1, "expired": 0, "cancelled": 0}
    assert shown["counts"] == counts | {"total": 4, "pending": 0}
    statement = site.client.get(f"/v1/batches/{name}/statement", headers=site.auth())
    assert (statement.content, statement.headers["content-type"]) == (b"statement", "application/cose")


def test_list_goes_page_by_page(site: Site) -> None:
    names = [site.upload(site.batch(1)) for _ in range(5)]
    site.upload(site.batch(1), "umbrella")
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = site.client.get("/v1/batches", params={"limit": "2"} | after, headers=site.auth()).json()
        found += [batch["id"] for batch in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert found == names[::-1]


def test_idempotency_key(site: Site) -> None:
    batch, key = site.batch(3), {"Idempotency-Key": "one"}

    def post(body: bytes) -> Any:
        return site.client.post("/v1/batches", content=body, headers=CBOR | key | site.auth())

    first, again = post(batch.cbor()), post(batch.cbor())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = post(site.batch(3).cbor())
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    shorter = post(batch.cbor()[:-1])
    assert (shorter.status_code, shorter.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert len(site.client.get("/v1/batches", headers=site.auth()).json()["data"]) == 1
    # Another tenant's keys are its own.
    theirs = site.client.post(
        "/v1/batches", content=site.batch(1).cbor(), headers=CBOR | key | site.auth("umbrella")
    )
    assert theirs.status_code == 201


def test_batch_id_is_taken_once(site: Site) -> None:
    batch = site.batch(2)
    site.upload(batch)
    for tenant in ("acme", "umbrella"):
        answered = site.client.post("/v1/batches", content=batch.cbor(), headers=CBOR | site.auth(tenant))
        assert (answered.status_code, answered.json()["code"]) == (409, "BATCH_EXISTS")


def test_content_digest(lite: Site) -> None:
    body = lite.batch(1).cbor()
    good = base64.b64encode(hashlib.sha256(body).digest()).decode()
    for digest, status in ((base64.b64encode(bytes(32)).decode(), 400), ("AAAA", 400), (good, 201)):
        header = {"Content-Digest": f"sha-512=:AAAA:, sha-256=:{digest}:"}
        answered = lite.client.post("/v1/batches", content=body, headers=CBOR | header | lite.auth())
        assert answered.status_code == status, answered.text


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/json"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (CBOR | {"Content-Encoding": "gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (CBOR | {"Content-Length": "999999999999"}, 413, "UPLOAD_TOO_LARGE"),
        (CBOR | {"Idempotency-Key": "a b"}, 400, "BAD_REQUEST"),
        (CBOR | {"Idempotency-Key": "k" * 129}, 400, "BAD_REQUEST"),
    ],
)
def test_request_is_refused_before_its_body(
    lite: Site, headers: dict[str, str], status: int, code: str
) -> None:
    answered = lite.client.post("/v1/batches", content=b"", headers=headers | lite.auth())
    assert (answered.status_code, answered.json()["code"]) == (status, code)
    assert answered.headers["content-type"] == "application/problem+json"


def test_results_go_on_from_any_point(site: Site) -> None:
    batch = site.batch(7)
    name = site.upload(batch)
    answer(site.store, batch, [4, 0, 2])
    answer(site.store, batch, [6], "failed")
    answer(site.store, batch, [1, 5, 3])
    order = [4, 0, 2, 6, 1, 5, 3]
    whole = site.client.get(f"/v1/batches/{name}/results", headers=site.auth())
    assert whole.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in whole.text.splitlines()]
    assert [line["index"] for line in lines] == order
    assert [line["seen"] for line in lines] == list(range(1, 8))
    assert [line["custom_id"] for line in lines] == [f"item-{index}" for index in order]
    assert [line["status"] == "failed" for line in lines] == [index == 6 for index in order]
    assert [line["ciphertext"] is None for line in lines] == [index == 6 for index in order]
    for after in range(9):
        rest = site.client.get(f"/v1/batches/{name}/results", params={"after": after}, headers=site.auth())
        assert [json.loads(line) for line in rest.text.splitlines()] == lines[after:]
        packed = site.client.get(
            f"/v1/batches/{name}/results",
            params={"after": after},
            headers=site.auth() | {"Accept": "application/cbor-seq"},
        )
        seen = after
        for item in CborSplitter().feed(packed.content):
            match decode(item):
                case [int() as first, bytes() as pack]:
                    assert first == seen
                case _:
                    pytest.fail("not an item of results")
            for reply in decode_replies(pack)[1]:
                assert peek_outcome(reply.outcome).index == order[seen]
                seen += 1
        assert seen == max(7, after)


def test_outcomes_hold_no_results(site: Site) -> None:
    batch = site.batch(3, input_root=bytes(32))
    name = site.upload(batch)
    answer(site.store, batch, [2, 0])
    early = site.client.get(f"/v1/batches/{name}/outcomes", params={"order": "index"}, headers=site.auth())
    assert (early.status_code, early.json()["code"]) == (409, "BATCH_UNFINISHED")
    answer(site.store, batch, [1])
    lines = site.client.get(f"/v1/batches/{name}/outcomes", headers=site.auth()).text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [2, 0, 1]
    assert all("ciphertext" not in json.loads(line) for line in lines)
    packed = site.client.get(
        f"/v1/batches/{name}/outcomes",
        params={"after": 1},
        headers=site.auth() | {"Accept": "application/cbor-seq"},
    ).content
    found = [decode(item) for item in CborSplitter().feed(packed)]
    assert [(item[0], item[1]) for item in found] == [(1, 0), (2, 1)]  # type: ignore[index]
    file = site.client.get(f"/v1/batches/{name}/outcomes", params={"order": "index"}, headers=site.auth())
    head, outcomes = read_batch(io.BytesIO(file.content))
    assert (head.batch_id, head.count) == (batch.batch_id, 3)
    assert [peek_outcome(outcome).index for outcome in outcomes] == [0, 1, 2]


def test_reader_may_wait(site: Site) -> None:
    batch = site.batch(1)
    name = site.upload(batch)
    nothing = site.client.get(f"/v1/batches/{name}/results", params={"wait": 0.3}, headers=site.auth())
    assert (nothing.status_code, nothing.content) == (200, b"")
    answer(site.store, batch, [0])
    found = site.client.get(f"/v1/batches/{name}/results", params={"wait": 30}, headers=site.auth())
    assert len(found.text.splitlines()) == 1


def test_cancel_leaves_an_event_once(site: Site) -> None:
    batch = site.batch(2)
    name = site.upload(batch)
    for _ in range(2):
        answered = site.client.post(f"/v1/batches/{name}/cancel", headers=site.auth())
        assert (answered.status_code, answered.json()["status"]) == (200, "cancelling")
    with site.store.transaction() as connection:
        assert [event.type for event in events.claim(connection, NOW, 30)] == ["batch.cancelling"]
        # Its packs still go out: a worker signs that their jobs were cancelled.
        assert len(packs.claim(connection, NOW, 30)) == 1
    answer(site.store, batch, [0, 1], "cancelled")
    with site.store.transaction() as connection:
        assert batches.move(connection, number_of(site.store, batch), "cancelled", NOW + 5)
    assert site.client.post(f"/v1/batches/{name}/cancel", headers=site.auth()).json()["status"] == "cancelled"


def test_ended_batch_is_not_cancelled_but_deleted(site: Site) -> None:
    batch = site.batch(1)
    name = site.upload(batch)
    refused = site.client.delete(f"/v1/batches/{name}", headers=site.auth())
    assert (refused.status_code, refused.json()["code"]) == (409, "BATCH_ACTIVE")
    answer(site.store, batch, [0])
    with site.store.transaction() as connection:
        assert batches.move(connection, number_of(site.store, batch), "completed", NOW)
    late = site.client.post(f"/v1/batches/{name}/cancel", headers=site.auth())
    assert (late.status_code, late.json()["code"]) == (409, "BATCH_ENDED")
    assert site.client.delete(f"/v1/batches/{name}", headers=site.auth()).status_code == 204
    assert site.client.get(f"/v1/batches/{name}", headers=site.auth()).status_code == 404
    assert site.client.get("/v1/me", headers=site.auth()).json()["bytes_stored"] == 0


@pytest.mark.parametrize(
    ("limits", "code"), [({"max_jobs": 7}, "QUOTA_JOBS"), ({"max_bytes": 1500}, "QUOTA_BYTES")]
)
def test_quotas(site: Site, limits: dict[str, int], code: str) -> None:
    with site.store.transaction() as connection:
        tenants.set_limits(connection, tenants.ensure(connection, "acme", NOW).id, **limits)
    batch = site.batch(5)
    site.upload(batch)
    over = site.client.post("/v1/batches", content=site.batch(5).cbor(), headers=CBOR | site.auth())
    assert (over.status_code, over.json()["code"]) == (429, code)
    assert over.json()["retriable"]
    assert int(over.headers["retry-after"]) > 0
    assert len(site.client.get("/v1/batches", headers=site.auth()).json()["data"]) == 1
    site.upload(site.batch(1), "umbrella")


def test_rate_is_per_tenant(lite: Site) -> None:
    with lite.store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", NOW)
        tenants.set_limits(connection, tenant.id, rate_per_s=0.5, rate_burst=2)
    statuses = [lite.client.get("/v1/me", headers=lite.auth()).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = lite.client.get("/v1/me", headers=lite.auth())
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("RATE_LIMITED", "2")
    assert lite.client.get("/v1/me", headers=lite.auth("umbrella")).status_code == 200
    lite.clock.now += 2
    assert lite.client.get("/v1/me", headers=lite.auth()).status_code == 200


def test_store_that_is_gone_is_said_so(lite: Site) -> None:
    with lite.store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE api_keys")
        connection.exec_driver_sql("DROP TABLE identity")
    for path in ("/v1/me", "/readyz"):
        answered = lite.client.get(path, headers=lite.auth())
        assert (answered.status_code, answered.json()["code"]) == (503, "STORE_UNAVAILABLE")
    assert lite.client.get("/healthz").status_code == 200
