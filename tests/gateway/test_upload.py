"""Uploads are taken whole or not at all, whatever comes in whatever pieces."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from ephemeralml.producer.gateway.store import Store, batches, identity, staging, tenants
from ephemeralml.producer.gateway.store.models import batches as batch_table
from ephemeralml.producer.gateway.store.models import jobs, packs
from ephemeralml.producer.gateway.upload import Form, Receiver, UploadLimits
from ephemeralml.producer.gateway.upload.check import SKEW_S
from ephemeralml.producer.gateway.upload.lines import read_line, to_base64, unbase64
from ephemeralml.producer.gateway.upload.split import (
    MAX_ITEM_BYTES,
    MAX_LINE_BYTES,
    CborSplitter,
    LineSplitter,
)
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import DeliveryError, Error, MalformedError
from ephemeralml.wire.sequence import item_size

from .conftest import Site
from .uploads import NOW, SealedBatch

LIMITS = UploadLimits(1 << 20, 100)


def receiver(site: Site, form: Form = "cbor", key: str | None = None) -> Receiver:
    with site.store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", NOW)
    return Receiver(site.store, tenant, form, LIMITS, site.clock, key=key)


def take(site: Site, body: bytes, form: Form = "cbor", step: int = 1 << 20) -> batches.Batch:
    """Send a body in pieces, as the API does."""
    taking = receiver(site, form)
    try:
        for start in range(0, len(body), step):
            taking.feed(body[start : start + step])
        return taking.finish()[0]
    finally:
        taking.abort()


def rows(store: Store) -> tuple[int, ...]:
    """Count what lies in the tables, hidden or not."""
    with store.reading() as connection:
        tables = (batch_table, packs, jobs)
        return tuple(
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
        )


@pytest.mark.parametrize("form", ["cbor", "ndjson"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_pieces_do_not_matter(lite: Site, form: Form, step: int) -> None:
    batch = lite.batch(5)
    taken = take(lite, batch.cbor() if form == "cbor" else batch.ndjson(), form, step)
    assert (taken.batch_id, taken.jobs, taken.state) == (batch.batch_id, 5, "validating")
    assert rows(lite.store)[2] == 5


def test_jobs_come_in_any_order_and_need_no_names(lite: Site) -> None:
    batch = lite.batch(6, named=False)
    batch.headers.reverse()
    assert take(lite, batch.cbor()).jobs == 6


@pytest.mark.parametrize("form", ["cbor", "ndjson"])
def test_truncated_upload_leaves_nothing(site: Site, form: Form) -> None:
    """Cut at random places, among them every boundary of an item."""
    batch = site.batch(6)
    body = batch.cbor() if form == "cbor" else batch.ndjson()
    ends = [0]
    for item in batch.items() if form == "cbor" else body.splitlines(keepends=True):
        ends.append(ends[-1] + len(item))
    draw = random.Random(7)  # noqa: S311 - the same cuts every time
    # A last line may lack its newline.
    last = len(body) - (1 if form == "ndjson" else 0)
    cuts = {*ends[:-1], *(draw.randrange(last) for _ in range(25))}
    for cut in sorted(cuts):
        with pytest.raises(MalformedError) as caught:
            take(site, body[:cut], form)
        expected = {"TRUNCATED_UPLOAD"} | ({"EMPTY_UPLOAD"} if cut == 0 else set())
        assert caught.value.code in (expected if form == "cbor" else expected | {"BAD_JSON"}), cut
        assert rows(site.store) == (0, 0, 0)
    assert take(site, body, form).jobs == 6


WRONG: dict[str, Callable[[SealedBatch], object]] = {
    "WRONG_POOL": lambda batch: batch.change(3, pool="other"),
    "WRONG_REPLY_TO": lambda batch: batch.change(3, reply_to="reply." + "0" * 32),
    "WRONG_BATCH": lambda batch: batch.change(3, batch_id=bytes(16)),
    "ALREADY_EXPIRED": lambda batch: batch.change(3, not_after=NOW),
    "DEADLINE_TOO_LATE": lambda batch: batch.change(3, not_after=NOW + 3600 + SKEW_S + 1),
    "INDEX_OUT_OF_RANGE": lambda batch: batch.change(3, index=5),
    "DUPLICATE_INDEX": lambda batch: batch.change(3, index=0),
    "DUPLICATE_JOB_ID": lambda batch: batch.change(3, job_id=batch.headers[0].job_id),
    "DUPLICATE_CUSTOM_ID": lambda batch: batch.custom_ids.__setitem__(3, "item-0"),
    "BAD_CUSTOM_ID": lambda batch: batch.custom_ids.__setitem__(3, "two\nlines"),
}


@pytest.mark.parametrize("form", ["cbor", "ndjson"])
@pytest.mark.parametrize("code", WRONG)
def test_one_bad_job_refuses_all(lite: Site, form: Form, code: str) -> None:
    batch = lite.batch(5)
    WRONG[code](batch)
    with pytest.raises(MalformedError) as caught:
        take(lite, batch.cbor() if form == "cbor" else batch.ndjson(), form)
    assert caught.value.code == code
    assert rows(lite.store) == (0, 0, 0)


def test_job_outside_a_batch_is_refused(lite: Site) -> None:
    batch = lite.batch(2).change(1, batch_id=None, index=None)
    with pytest.raises(MalformedError, match="WRONG_BATCH"):
        take(lite, batch.cbor())


def head(**changes: object) -> dict[object, object]:
    """Return a head's fields with some changed, or left out where None."""
    numbers = {
        "version": 1,
        "pool": 2,
        "batch_id": 3,
        "jobs": 4,
        "window_s": 5,
        "root": 6,
        "metadata": 7,
        "more": 8,
    }
    fields: dict[object, object] = {1: 1, 2: "minilm", 3: bytes(16), 4: 1, 5: 3600}
    for name, value in changes.items():
        fields[numbers[name]] = value
    return {key: value for key, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (head(version=2), "UNKNOWN_VERSION"),
        (head(pool="A"), "BAD_POOL"),
        (head(batch_id=bytes(15)), "OUT_OF_BOUNDS"),
        (head(jobs=0), "EMPTY_BATCH"),
        (head(jobs=101), "TOO_MANY_JOBS"),
        (head(jobs=50_001), "TOO_MANY_JOBS"),
        (head(window_s=59), "BAD_WINDOW"),
        (head(window_s=14 * 86_400 + 1), "BAD_WINDOW"),
        (head(root=bytes(31)), "OUT_OF_BOUNDS"),
        (head(metadata={"a": 1}), "BAD_METADATA"),
        (head(metadata={"": "a"}), "BAD_METADATA"),
        (head(metadata={str(number): "a" for number in range(17)}), "BAD_METADATA"),
        (head(metadata={"a": "\x00"}), "BAD_METADATA"),
        (head(more=1), "UNKNOWN_FIELD"),
        (head(jobs=None), "MISSING_FIELD"),
        ([], "NOT_A_MAP"),
    ],
)
def test_head_is_held_to_its_form(lite: Site, fields: object, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        take(lite, encode(fields))
    assert caught.value.code == code
    assert rows(lite.store) == (0, 0, 0)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (encode([b"x", None]), "CBOR_TRUNCATED"),
        (encode([1, None]), "WRONG_TYPE"),
        (encode([b"", []]), "CBOR_TRUNCATED"),
        (encode([b"x"]), "WRONG_TYPE"),
        (b"\xc1\x00", "CBOR_BAD_TYPE"),
        (b"\x9f\xff", "CBOR_BAD_TYPE"),
        (b"\x18\x01", "CBOR_NOT_DETERMINISTIC"),
        (b"\x81" * 6 + b"\x00", "CBOR_TOO_DEEP"),
        (b"\x99\xff\xff" + bytes(3000), "CBOR_TOO_LARGE"),
        (b"\x5a\xff\xff\xff\xff", "ITEM_TOO_LARGE"),
    ],
)
def test_item_is_held_to_its_form(lite: Site, item: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        take(lite, lite.batch(2).items()[0] + item)
    assert caught.value.code == code
    assert rows(lite.store) == (0, 0, 0)


def test_names_are_counted(lite: Site) -> None:
    batch = lite.batch(2)
    pack = batch.items()[1]
    short = pack[:-6].replace(b"\x82fitem-0", b"\x81fitem-0")
    with pytest.raises(MalformedError):
        take(lite, batch.items()[0] + short)


def line(batch: SealedBatch, **changes: object) -> bytes:
    """Return a job's line with some fields changed, or left out where None."""
    fields = json.loads(batch.ndjson().splitlines()[1]) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"header": None}, "MISSING_FIELD"),
        ({"header": 1}, "MISSING_FIELD"),
        ({"iv": to_base64(bytes(11))}, "OUT_OF_BOUNDS"),
        ({"ciphertext": to_base64(bytes(15))}, "OUT_OF_BOUNDS"),
        ({"recipient": to_base64(bytes(4097))}, "OUT_OF_BOUNDS"),
        ({"ciphertext": "AAAA="}, "BAD_BASE64"),
        ({"ciphertext": "AB"}, "BAD_BASE64"),
        ({"ciphertext": "A+/A"}, "BAD_BASE64"),
        ({"ciphertext": "é"}, "BAD_BASE64"),
        ({"more": 1}, "UNKNOWN_FIELD"),
    ],
)
def test_line_is_held_to_its_form(changes: dict[str, object], code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_line(line(SealedBatch("reply." + "0" * 32, 1), **changes))
    assert caught.value.code == code


@given(data=st.binary(max_size=100))
def test_base64_has_one_form(data: bytes) -> None:
    assert unbase64(to_base64(data)) == data


@given(items=st.lists(st.binary(max_size=70), max_size=5), sizes=st.lists(st.integers(1, 40), max_size=20))
def test_sequence_is_cut_alike_in_any_pieces(items: list[bytes], sizes: list[int]) -> None:
    wholes = [encode([item, ["a", None, {1: item}]]) for item in items]
    body, splitter = b"".join(wholes), CborSplitter()
    found: list[bytes] = []
    for size in [*sizes, len(body) + 1]:
        found += splitter.feed(body[:size])
        body = body[size:]
    assert found == wholes
    assert list(splitter.end()) == []


@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=6),
    step=st.integers(1, 9),
)
def test_lines_are_cut_alike_in_any_pieces(lines: list[bytes], step: int) -> None:
    body, splitter = b"\n".join(lines), LineSplitter()
    found: list[bytes] = []
    for start in range(0, len(body), step):
        found += splitter.feed(body[start : start + step])
    found += splitter.end()
    assert found == [part for part in lines if part.strip()]


@given(data=st.binary(max_size=200))
def test_junk_is_sized_or_refused(data: bytes) -> None:
    """Sizes never point backwards, so that a reader always gets on."""
    try:
        size, whole = item_size(data, MAX_ITEM_BYTES)
    except MalformedError:
        return
    assert size <= len(data) if whole else len(data) < size


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data(), form=st.sampled_from(["cbor", "ndjson"]))
def test_damage_raises_our_errors_only(lite: Site, draw: st.DataObject, form: Form) -> None:
    batch = lite.batch(2)
    body = bytearray(batch.cbor() if form == "cbor" else batch.ndjson())
    place = draw.draw(st.integers(0, len(body) - 1))
    body[place] ^= draw.draw(st.integers(1, 255))
    before = rows(lite.store)
    try:
        take(lite, bytes(body), form)
    except Error:
        assert rows(lite.store) == before


def test_line_and_item_are_bounded() -> None:
    splitter = LineSplitter()
    for _ in range(MAX_LINE_BYTES >> 20):
        assert list(splitter.feed(bytes(1 << 20))) == []
    with pytest.raises(MalformedError, match="ITEM_TOO_LARGE"):
        list(splitter.feed(b"x"))
    with pytest.raises(MalformedError, match="ITEM_TOO_LARGE"):
        list(CborSplitter().feed(b"\x5a" + (MAX_ITEM_BYTES + 1).to_bytes(4, "big")))


def test_body_is_bounded(lite: Site) -> None:
    taking = receiver(lite)
    taking.feed(b"\x5a" + LIMITS.max_bytes.to_bytes(4, "big") + bytes(LIMITS.max_bytes - 5))
    with pytest.raises(MalformedError, match="UPLOAD_TOO_LARGE"):
        taking.feed(b"x")
    taking.abort()


def test_running_upload_is_hidden_and_alone(site: Site) -> None:
    batch = site.batch(4)
    items = batch.items()
    first = receiver(site, key="k")
    first.feed(items[0] + items[1])
    with site.store.reading() as connection:
        assert batches.by_batch_id(connection, batch.batch_id) is None
        assert batches.page(connection, 1, 10) == []
    for same in (receiver(site, key="k"), receiver(site)):
        with pytest.raises(DeliveryError, match="UPLOAD_IN_PROGRESS"):
            same.feed(batch.cbor())
        same.abort()
    # Its process is gone: after a while another may take its place, and its own bytes come too late.
    site.clock.now += staging.STAGED_SECONDS + 1
    assert take(site, batch.change(0, not_after=NOW + 900).cbor()).jobs == 4
    with pytest.raises(DeliveryError, match="UPLOAD_LOST"):
        first.feed(items[2])
    first.abort()
    assert rows(site.store) == (1, 2, 4)


def test_slow_upload_keeps_its_place(lite: Site) -> None:
    taking, items = receiver(lite), lite.batch(4, window_s=86_400).items()
    for item in items:
        taking.feed(item)
        lite.clock.now += staging.STAGED_SECONDS * 0.9
        with lite.store.transaction() as connection:
            assert staging.sweep(connection, lite.clock.now) == 0
    assert taking.finish()[0].jobs == 4


def test_sweep_removes_what_was_left(site: Site) -> None:
    left, taken = receiver(site), site.batch(1)
    left.feed(b"".join(site.batch(4).items()[:2]))
    take(site, taken.cbor())
    with site.store.transaction() as connection:
        assert staging.sweep(connection, NOW + 1) == 0
        assert staging.sweep(connection, NOW + staging.STAGED_SECONDS + 1) == 1
        assert identity.reply_to(connection) == site.reply_to
    assert rows(site.store) == (1, 1, 1)
