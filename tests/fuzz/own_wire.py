"""Fuzz targets of the wire formats: what is read is written back to the same bytes, or refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ephemeralml.wire.announcement import Announcement, AnnouncementBody
from ephemeralml.wire.cose import decode_sign1, sign1
from ephemeralml.wire.encoding import decode, decode_tolerant, encode
from ephemeralml.wire.errors import MalformedError
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.job import Job, Response, Result
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import (
    PackReference,
    decode_jobs,
    decode_message,
    decode_replies,
    encode_jobs,
    encode_message,
    encode_replies,
)
from ephemeralml.wire.sealing import Sealed, Sealer

from ..receipts import samples as receipts
from ..vectors import wire_samples as samples
from .target import Target

TAGS = (18, 61, 96)


def there_and_back(read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Callable[[bytes], None]:
    """Return an act that holds the format to one encoding per meaning."""

    def act(data: bytes) -> None:
        assert write(read(data)) == data, "two byte strings are read as one thing"

    return act


def settled(read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Callable[[bytes], None]:
    """Return an act for formats that have several encodings of one thing: writing settles on one."""

    def act(data: bytes) -> None:
        found = read(data)
        assert read(write(found)) == found, "what is written is read as another thing"

    return act


def _strict(data: bytes) -> object:
    return decode(data, tags=TAGS)


def _tolerant(data: bytes) -> None:
    """A value that was read has exactly one deterministic form."""
    once = encode(decode_tolerant(data, tags=TAGS))
    assert encode(decode(once, tags=TAGS, max_bytes=1 << 24)) == once


def _announcement(data: bytes) -> None:
    found = Announcement.decode(data)
    assert found.encode() == data
    assert found.body.encode() == found.body_bytes


def _announcements() -> list[bytes]:
    return [
        Announcement(samples.announcement_body(suite).encode(), samples.bundle(), b"birth").encode()
        for suite in samples.SUITES
    ]


@cache
def _sealed() -> list[bytes]:
    found = []
    for suite in samples.SUITES:
        sealed = Sealer(samples.public_key(suite), "job", monotonic=lambda: 0.0).seal(b"header", b"secret")
        found.append(encode([b"header", sealed.recipient, sealed.iv, sealed.ciphertext]))
    return found


def _open(data: bytes) -> None:
    match decode(data):
        case [bytes() as header, bytes() as recipient, bytes() as iv, bytes() as ciphertext]:
            opener = Opener([samples.private_key(suite) for suite in samples.SUITES], "job")
            assert opener.open(header, Sealed(recipient, iv, ciphertext)) == b"secret"
            assert data in _sealed(), "a changed message opens"
        case _:
            raise MalformedError("NOT_A_MESSAGE")


def _cbor() -> list[bytes]:
    return [
        *(job.encode() for job in samples.jobs().values()),
        encode_jobs("minilm", samples.sealed_jobs()),
        *_announcements(),
        b"\xbf\x61a\x9f\x01\xff\x61b\x5f\x41a\x41b\xff\xff",
        encode({"a": 1.5, "b": [None, True, -1], 3: b"bytes"}),
        sign1(b"payload", receipts.KEY, protected={1: -8}),
    ]


TARGETS = (
    Target("cbor-strict", _cbor, there_and_back(_strict, encode)),
    Target("cbor-tolerant", _cbor, _tolerant),
    Target("cose-sign1", lambda: [sign1(b"payload", receipts.KEY, protected={1: -8})], decode_sign1),
    Target(
        "pack-jobs",
        lambda: [encode_jobs("minilm", samples.sealed_jobs())],
        settled(decode_jobs, lambda found: encode_jobs(*found)),
    ),
    Target(
        "pack-replies",
        lambda: [encode_replies("minilm", samples.sealed_replies())],
        settled(decode_replies, lambda found: encode_replies(*found)),
    ),
    Target(
        "message",
        lambda: [encode_message(b"pack"), encode_message(PackReference(bytes(32), 5))],
        there_and_back(decode_message, encode_message),
    ),
    Target(
        "job-header",
        lambda: [header.encode() for header in samples.job_headers().values()],
        there_and_back(JobHeader.decode, JobHeader.encode),
    ),
    Target(
        "reply-header",
        lambda: [header.encode() for header in samples.reply_headers().values()],
        there_and_back(ReplyHeader.decode, ReplyHeader.encode),
    ),
    Target(
        "job",
        lambda: [job.encode() for job in samples.jobs().values()],
        there_and_back(Job.decode, Job.encode),
    ),
    Target(
        "response",
        lambda: [response.encode() for response in samples.responses().values()],
        there_and_back(Response.decode, Response.encode),
    ),
    Target(
        "result",
        lambda: [Result(response.encode(), b"receipt").encode() for response in samples.responses().values()],
        there_and_back(Result.decode, Result.encode),
    ),
    Target("opener", _sealed, _open),
    Target("announcement", _announcements, _announcement),
    Target(
        "announcement-body",
        lambda: [samples.announcement_body(suite).encode() for suite in samples.SUITES],
        there_and_back(AnnouncementBody.decode, AnnouncementBody.encode),
    ),
)
