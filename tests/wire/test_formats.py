"""Headers, jobs, responses, results, packs, messages and announcements: there and back, and closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.wire.announcement import Announcement, AnnouncementBody
from ephemeralml.wire.bundle import EvidenceBundle
from ephemeralml.wire.encoding import decode, encode, sha256
from ephemeralml.wire.errors import MalformedError
from ephemeralml.wire.fields import Fields
from ephemeralml.wire.header import JobHeader, ReplyHeader, check_pool
from ephemeralml.wire.job import MAX_RECEIPT_BYTES, Job, Response, Result
from ephemeralml.wire.pack import (
    MAX_PACK_BYTES,
    PackReference,
    SealedJob,
    SealedReply,
    decode_jobs,
    decode_message,
    decode_replies,
    encode_jobs,
    encode_message,
    encode_replies,
)

from ..vectors import wire_samples as samples
from . import strategies as some
from .strategies import only_malformed, refuses

Reader = Callable[[bytes], object]
Writer = Callable[[Any], bytes]
FORMATS: dict[str, tuple[bytes, Reader, Writer]] = {
    "job header": (samples.job_headers()["batch"].encode(), JobHeader.decode, JobHeader.encode),
    "reply header": (samples.reply_headers()["batch"].encode(), ReplyHeader.decode, ReplyHeader.encode),
    "job": (samples.jobs()["generate"].encode(), Job.decode, Job.encode),
    "job of a batch": (samples.jobs()["embed-batch"].encode(), Job.decode, Job.encode),
    "embeddings": (samples.responses()["embed"].encode(), Response.decode, Response.encode),
    "completions": (samples.responses()["generate"].encode(), Response.decode, Response.encode),
    "result": (Result(b"response", b"receipt").encode(), Result.decode, Result.encode),
    "announcement body": (
        samples.announcement_body("x25519").encode(),
        AnnouncementBody.decode,
        AnnouncementBody.encode,
    ),
    "announcement": (
        Announcement(samples.announcement_body("x25519").encode(), samples.bundle(), b"birth").encode(),
        Announcement.decode,
        Announcement.encode,
    ),
    "message": (encode_message(b"pack"), decode_message, encode_message),
    "reference": (encode_message(PackReference(bytes(32), 5)), decode_message, encode_message),
}
MAPS = sorted(FORMATS.keys() - {"announcement", "message", "reference"})


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_bytes_are_malformed_or_another_message(name: str) -> None:
    data, read, write = FORMATS[name]
    assert write(read(data)) == data
    only_malformed(read, write, data)


@pytest.mark.parametrize("name", FORMATS)
@given(value=some.values)
def test_no_other_value_is_read(name: str, value: object) -> None:
    _, read, write = FORMATS[name]
    data = encode(value)
    try:
        result = read(data)
    except MalformedError:
        return
    assert write(result) == data


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_closed(name: str) -> None:
    data, read, _ = FORMATS[name]
    fields = cast("dict[object, object]", decode(data))
    for extra in (0, 99, -1, "1", b"\1"):
        refuses("UNKNOWN_FIELD", read, encode({**fields, extra: 1}))
    for key in fields:
        without = {other: value for other, value in fields.items() if other != key}
        if not (name == "job of a batch" and key == 10):
            refuses("MISSING_FIELD", read, encode(without))
    refuses("UNKNOWN_VERSION", read, encode({**fields, 1: 2}))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("other", [None, True, 1.5, [], {}, [[]], [{}], {1: 1}], ids=repr)
def test_fields_have_their_types(name: str, other: object) -> None:
    data, read, _ = FORMATS[name]
    fields = cast("dict[object, object]", decode(data))
    for key, value in fields.items():
        if type(value) is type(other):
            continue
        refuses("WRONG_TYPE", read, encode({**fields, key: other}))


@given(some.job_headers)
def test_job_headers(header: JobHeader) -> None:
    assert JobHeader.decode(header.encode()) == header


@given(some.reply_headers)
def test_reply_headers(header: ReplyHeader) -> None:
    assert ReplyHeader.decode(header.encode()) == header


@given(some.jobs)
def test_jobs(job: Job) -> None:
    assert Job.decode(job.encode()) == job
    assert Job.decode(job.encode()).encode() == job.encode()


@given(some.responses)
def test_responses(response: Response) -> None:
    assert Response.decode(response.encode()) == response


@given(some.octets(1, 99), some.octets(1, 99))
def test_results(response: bytes, receipt: bytes) -> None:
    assert Result.decode(Result(response, receipt).encode()) == Result(response, receipt)


def test_a_result_bounds_its_receipt() -> None:
    assert Result.decode(Result(b"r", bytes(MAX_RECEIPT_BYTES)).encode()).response == b"r"
    refuses("OUT_OF_BOUNDS", Result.decode, Result(b"r", bytes(MAX_RECEIPT_BYTES + 1)).encode())


@given(some.bodies, some.bundles, st.binary(max_size=40))
def test_announcements(body: AnnouncementBody, bundle: EvidenceBundle, birth: bytes) -> None:
    announcement = Announcement(body.encode(), bundle, birth)
    again = Announcement.decode(announcement.encode())
    assert again == announcement
    assert again.body == body
    assert again.digest == sha256(body.encode())


@pytest.mark.parametrize("pool", ["", "-a", "A", "a.b", "a_b", "a\n", "a" * 64, "ä", "jobs/..", "a b"])
def test_pools_that_are_none(pool: str) -> None:
    refuses("BAD_POOL", check_pool, pool)
    refuses("BAD_POOL", encode_jobs, pool, samples.sealed_jobs())
    refuses("BAD_POOL", encode_replies, pool, samples.sealed_replies())


def test_salt_changes_both_hashes() -> None:
    """The salt is in the hashed bytes, so that a small input cannot be guessed from a receipt."""
    first, second = (
        decode(samples.jobs()["embed"].encode()),
        decode(samples.responses()["embed"].encode()),
    )
    for fields, key in ((first, 6), (second, 8)):
        assert isinstance(fields, dict)
        assert fields[key] == samples.filled(0x80, 32)


# ---------------------------------------------------------------- packs


@given(some.pools, st.lists(some.sealed_jobs, min_size=1, max_size=9))
def test_job_packs(pool: str, jobs: list[SealedJob]) -> None:
    data = encode_jobs(pool, jobs)
    assert decode_jobs(data) == (pool, tuple(jobs))
    fields = cast("dict[int, list[object]]", decode(data))
    assert len(fields[3]) == len({job.sealed.recipient for job in jobs})


@given(some.pools, st.lists(some.sealed_replies, min_size=1, max_size=9))
def test_reply_packs(pool: str, replies: list[SealedReply]) -> None:
    data = encode_replies(pool, replies)
    assert decode_replies(data) == (pool, tuple(replies))
    fields = cast("dict[int, list[object]]", decode(data))
    assert len(fields[3]) == len({reply.sealed.recipient for reply in replies if reply.sealed})


@given(some.octets(0, 99))
def test_messages(pack: bytes) -> None:
    assert decode_message(encode_message(pack)) == pack
    reference = PackReference(sha256(pack), len(pack) + 1)
    assert decode_message(encode_message(reference)) == reference


@pytest.mark.parametrize("read", [decode_jobs, decode_replies])
def test_mutated_packs_are_only_malformed(read: Callable[[bytes], object]) -> None:
    jobs = encode_jobs("minilm", samples.sealed_jobs())
    replies = encode_replies("minilm", samples.sealed_replies())
    for data in (jobs, replies):
        for changed in some.mutations(data, 1500):
            try:
                read(changed)
            except MalformedError:
                continue


def test_one_bad_header_does_not_harm_its_neighbours() -> None:
    good = samples.sealed_jobs()
    for bad in (b"\xff", b"\x00", b"\x81" * 1000, encode({1: 99}), bytes(1024)):
        jobs = [good[0], SealedJob(bad, good[1].sealed), good[1]]
        _, read = decode_jobs(encode_jobs("minilm", jobs))
        assert [job.header for job in read] == [good[0].header, bad, good[1].header]
        assert JobHeader.decode(read[0].header) == JobHeader.decode(read[2].header)
        with pytest.raises(MalformedError):
            JobHeader.decode(read[1].header)


def test_packs_hold_1_to_1024_entries() -> None:
    job, reply = samples.sealed_jobs()[0], samples.sealed_replies()[1]
    assert len(decode_jobs(encode_jobs("a", [job] * 1024))[1]) == 1024
    assert len(decode_replies(encode_replies("a", [reply] * 1024))[1]) == 1024
    for count in (0, 1025):
        refuses("PACK_SIZE", encode_jobs, "a", [job] * count)
        refuses("PACK_SIZE", encode_replies, "a", [reply] * count)


def test_a_pack_of_placeholders_stays_small_in_memory() -> None:
    """128 MiB of one-byte entries is refused before they become objects."""
    size = MAX_PACK_BYTES - 64
    data = b"\xa4\x01\x01\x02\x61a\x03\x80\x04\x9a" + size.to_bytes(4, "big") + b"\x80" * size
    assert len(data) <= MAX_PACK_BYTES
    refuses("CBOR_TOO_LARGE", decode_jobs, data)


def test_a_reader_accepts_recipients_that_nobody_names() -> None:
    fields = cast("dict[object, Any]", decode(encode_jobs("a", samples.sealed_jobs()[:1])))
    fields[3] = [*fields[3], b"unused", *fields[3]]
    assert decode_jobs(encode(fields))[1] == tuple(samples.sealed_jobs()[:1])


# ---------------------------------------------------------------- fields


def test_fields_say_what_is_wrong_without_saying_the_content() -> None:
    secret = "a secret sentence"
    fields = Fields({1: secret, 2: secret.encode(), 3: 7, 4: [secret]}, "thing", range(1, 6))
    for call in (
        lambda: fields.text(1, 1, 3),
        lambda: fields.octets(2, 3),
        lambda: fields.uint(1),
        lambda: fields.items(4, 2, 3),
        lambda: fields.required(5, str),
        lambda: fields.version(3, 1),
        lambda: Fields({secret: secret}, "thing", (1,)),
        lambda: Fields(secret, "thing", (1,)),
    ):
        with pytest.raises(MalformedError) as caught:
            call()
        assert secret not in str(caught.value)
    assert fields.optional(5, str) is None
    assert fields.optional(3, int) == 7
    refuses("WRONG_TYPE", Fields({1: True}, "thing", (1,)).uint, 1)


def test_text_is_bounded_in_bytes_not_characters() -> None:
    fields = Fields({1: "ü" * 10}, "thing", (1,))
    assert fields.text(1, 1, 20) == "ü" * 10
    refuses("OUT_OF_BOUNDS", fields.text, 1, 1, 19)
