"""Byte strings that a reader of the wire formats must refuse, each with the code of its refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from ephemeralml.wire.announcement import Announcement, AnnouncementBody
from ephemeralml.wire.cose import decode_sign1
from ephemeralml.wire.encoding import Tag, decode, encode
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.job import Job, Response, Result
from ephemeralml.wire.keys import PublicKey
from ephemeralml.wire.pack import decode_jobs, decode_message, decode_replies, encode_jobs, encode_replies
from ephemeralml.wire.padding import pad, unpad

from . import wire_samples as samples

READERS: dict[str, Callable[[bytes], object]] = {
    "encoding": decode,
    "padding": unpad,
    "public-key": lambda data: PublicKey.from_map(decode(data)),
    "job-header": JobHeader.decode,
    "reply-header": ReplyHeader.decode,
    "job": Job.decode,
    "response": Response.decode,
    "result": Result.decode,
    "job-pack": decode_jobs,
    "reply-pack": decode_replies,
    "message": decode_message,
    "announcement": Announcement.decode,
    "announcement-body": AnnouncementBody.decode,
    "sign1": decode_sign1,
}
Case = tuple[str, str, bytes, str]
_DROP = object()


def _changed(data: bytes, **changes: object) -> bytes:
    """Return a map with fields (written ``f7``) changed, added or dropped."""
    fields = dict(cast("dict[object, object]", decode(data)))
    for name, value in changes.items():
        fields[int(name[1:])] = value
    return encode({key: value for key, value in fields.items() if value is not _DROP})


def _encoding() -> Iterator[Case]:
    for name, data, code in (
        ("empty", "", "CBOR_TRUNCATED"),
        ("long-integer", "1801", "CBOR_NOT_DETERMINISTIC"),
        ("long-negative-integer", "3800", "CBOR_NOT_DETERMINISTIC"),
        ("long-length", "580161", "CBOR_NOT_DETERMINISTIC"),
        ("long-float", "fb3ff0000000000000", "CBOR_NOT_DETERMINISTIC"),
        ("nan-with-payload", "f97e01", "CBOR_NOT_DETERMINISTIC"),
        ("indefinite-bytes", "5f4161ff", "CBOR_NOT_DETERMINISTIC"),
        ("indefinite-array", "9fff", "CBOR_NOT_DETERMINISTIC"),
        ("indefinite-map", "bfff", "CBOR_NOT_DETERMINISTIC"),
        ("unsorted-keys", "a202000100", "CBOR_NOT_DETERMINISTIC"),
        ("length-first-keys", "a2616100190100 00", "CBOR_NOT_DETERMINISTIC"),
        ("duplicate-key", "a201000100", "CBOR_DUPLICATE_KEY"),
        ("trailing-byte", "0000", "CBOR_TRAILING_BYTES"),
        ("short-string", "4261", "CBOR_TRUNCATED"),
        ("giant-string", "5b7fffffffffffffff", "CBOR_TRUNCATED"),
        ("giant-array", "9b7fffffffffffffff", "CBOR_TRUNCATED"),
        ("giant-map", "bb7fffffffffffffff", "CBOR_TRUNCATED"),
        ("seventeen-deep", "81" * 17 + "00", "CBOR_TOO_DEEP"),
        ("tag", "c000", "CBOR_UNEXPECTED_TAG"),
        ("text-not-utf8", "61ff", "CBOR_BAD_UTF8"),
        ("text-surrogate", "63eda080", "CBOR_BAD_UTF8"),
        ("undefined", "f7", "CBOR_BAD_TYPE"),
        ("reserved-length", "1c", "CBOR_BAD_TYPE"),
        ("array-as-key", "a18000", "CBOR_BAD_TYPE"),
        ("true-as-key", "a1f500", "CBOR_BAD_TYPE"),
    ):
        yield "encoding", name, bytes.fromhex(data), code


def _padding() -> Iterator[Case]:
    padded = pad(b"nine byte")
    yield "padding", "too-short", b"\0\0\0", "PADDING"
    yield "padding", "longer-than-the-data", b"\0\0\0\2a", "PADDING"
    yield "padding", "not-zero", padded[:-1] + b"\1", "PADDING"
    yield "padding", "one-byte-more", padded + b"\0", "PADDING"
    yield "padding", "one-byte-less", padded[:-1], "PADDING"


def _keys() -> Iterator[Case]:
    yield "public-key", "unknown-suite", encode({1: "p256", 2: bytes(32)}), "UNKNOWN_SUITE"
    yield "public-key", "suites-swapped", encode({1: "xwing", 2: bytes(32)}), "OUT_OF_BOUNDS"
    yield "public-key", "mlkem-not-reduced", encode({1: "xwing", 2: b"\xff" * 1216}), "BAD_PUBLIC_KEY"
    yield "public-key", "third-field", encode({1: "x25519", 2: bytes(32), 3: 0}), "UNKNOWN_FIELD"
    yield "public-key", "array", encode(["x25519", bytes(32)]), "NOT_A_MAP"


def _headers() -> Iterator[Case]:
    header = samples.job_headers()["batch"].encode()
    for name, data, code in (
        ("other-version", _changed(header, f1=2), "UNKNOWN_VERSION"),
        ("unknown-field", _changed(header, f9=0), "UNKNOWN_FIELD"),
        ("no-key-id", _changed(header, f4=_DROP), "MISSING_FIELD"),
        ("batch-without-index", _changed(header, f8=_DROP), "MISSING_FIELD"),
        ("index-without-batch", _changed(header, f7=_DROP), "MISSING_FIELD"),
        ("index-50000", _changed(header, f8=50_000), "OUT_OF_BOUNDS"),
        ("index-true", _changed(header, f8=True), "WRONG_TYPE"),
        ("short-job-id", _changed(header, f2=bytes(15)), "OUT_OF_BOUNDS"),
        ("deadline-zero", _changed(header, f6=0), "OUT_OF_BOUNDS"),
        ("pool-upper-case", _changed(header, f3="MiniLM"), "BAD_POOL"),
        ("pool-with-newline", _changed(header, f3="minilm\n"), "BAD_POOL"),
        ("pool-starts-with-dash", _changed(header, f3="-a"), "BAD_POOL"),
        ("pool-too-long", _changed(header, f3="a" * 64), "OUT_OF_BOUNDS"),
        ("reply-to-other-queue", _changed(header, f5="jobs.minilm"), "BAD_REPLY_TO"),
        ("reply-to-with-newline", _changed(header, f5="reply." + "0" * 32 + "\n"), "BAD_REPLY_TO"),
        ("too-large", encode({1: 1, 2: bytes(1100)}), "CBOR_TOO_LARGE"),
    ):
        yield "job-header", name, data, code
    reply = samples.reply_headers()["single"].encode()
    yield "reply-header", "has-deadline", _changed(reply, f6=1), "UNKNOWN_FIELD"
    yield "reply-header", "other-version", _changed(reply, f1=0), "UNKNOWN_VERSION"
    yield "reply-header", "index-without-batch", _changed(reply, f8=0), "MISSING_FIELD"


def _jobs() -> Iterator[Case]:
    job = samples.jobs()["embed"].encode()
    for name, data, code in (
        ("unknown-task", _changed(job, f3="train"), "UNKNOWN_TASK"),
        ("no-inputs", _changed(job, f4=[]), "OUT_OF_BOUNDS"),
        ("2049-inputs", _changed(job, f4=[""] * 2049), "OUT_OF_BOUNDS"),
        ("input-bytes", _changed(job, f4=[b"A cat."]), "WRONG_TYPE"),
        ("empty-conversation", _changed(job, f4=[[]]), "WRONG_TYPE"),
        ("turn-of-three", _changed(job, f4=[[["user", "a", "b"]]]), "WRONG_TYPE"),
        ("parameter-null", _changed(job, f5={"a": None}), "WRONG_TYPE"),
        ("parameter-nested", _changed(job, f5={"a": [[1]]}), "WRONG_TYPE"),
        ("parameter-name-integer", _changed(job, f5={1: 1}), "OUT_OF_BOUNDS"),
        ("65-parameters", _changed(job, f5={str(n): n for n in range(65)}), "OUT_OF_BOUNDS"),
        ("short-salt", _changed(job, f6=bytes(31)), "OUT_OF_BOUNDS"),
        ("nonce-7-bytes", _changed(job, f7=bytes(7)), "OUT_OF_BOUNDS"),
        ("nonce-65-bytes", _changed(job, f7=bytes(65)), "OUT_OF_BOUNDS"),
        ("batch-of-none", _changed(job, f10={1: bytes(32), 2: 0}), "OUT_OF_BOUNDS"),
        ("batch-of-50001", _changed(job, f10={1: bytes(32), 2: 50_001}), "OUT_OF_BOUNDS"),
    ):
        yield "job", name, data, code
    response = samples.responses()["embed"].encode()
    for name, data, code in (
        ("output-of-other-task", _changed(response, f5="generate"), "WRONG_TYPE"),
        ("vector-of-5-bytes", _changed(response, f6=[[bytes(5), 1, False]]), "OUT_OF_BOUNDS"),
        ("negative-tokens", _changed(response, f6=[[bytes(4), -1, False]]), "OUT_OF_BOUNDS"),
        ("tokens-true", _changed(response, f6=[[bytes(4), True, False]]), "WRONG_TYPE"),
        ("engine-open", _changed(response, f7={1: "a", 2: "b", 3: "c", 4: "d", 5: "e"}), "UNKNOWN_FIELD"),
        ("no-salt", _changed(response, f8=_DROP), "MISSING_FIELD"),
        ("embed-with-sampling", _changed(response, f9={}), "UNKNOWN_FIELD"),
    ):
        yield "response", name, data, code
    generated = samples.responses()["generate"].encode()
    for name, item, code in (
        ("end-unknown", ["", "eos", 1, 0, 0, None], "OUT_OF_BOUNDS"),
        ("seed-of-33-bits", ["", "stop", 1, 0, 1 << 32, None], "OUT_OF_BOUNDS"),
        ("seed-negative", ["", "stop", 1, 0, -1, None], "OUT_OF_BOUNDS"),
        ("completion-of-four", ["", "stop", 1, 0], "WRONG_TYPE"),
        ("completion-of-seven", ["", "stop", 1, 0, 0, None, None], "WRONG_TYPE"),
        ("logprob-for-no-token", ["", "stop", 1, 0, 0, [[b"a", -1.0, []]]], "WRONG_TYPE"),
        ("logprob-positive", ["", "stop", 1, 1, 0, [[b"a", 0.5, []]]], "OUT_OF_BOUNDS"),
        ("logprob-integer", ["", "stop", 1, 1, 0, [[b"a", 0, []]]], "WRONG_TYPE"),
        ("logprob-text", ["", "stop", 1, 1, 0, [["a", -1.0, []]]], "WRONG_TYPE"),
        ("21-alternatives", ["", "stop", 1, 1, 0, [[b"a", -1.0, [[b"b", -1.0]] * 21]]], "OUT_OF_BOUNDS"),
    ):
        yield "response", name, _changed(generated, f6=[item]), code
    yield "response", "no-sampling", _changed(generated, f9=_DROP), "MISSING_FIELD"
    yield "response", "sampling-nested", _changed(generated, f9={"a": {}}), "WRONG_TYPE"
    yield "result", "no-receipt", encode({1: 1, 2: b"a"}), "MISSING_FIELD"
    yield "result", "empty-receipt", encode({1: 1, 2: b"a", 3: b""}), "OUT_OF_BOUNDS"


def _packs() -> Iterator[Case]:
    jobs = encode_jobs("minilm", samples.sealed_jobs()[:1])
    iv, ciphertext = bytes(12), bytes(16)
    for name, data, code in (
        ("empty", _changed(jobs, f4=[]), "OUT_OF_BOUNDS"),
        ("other-version", _changed(jobs, f1=2), "UNKNOWN_VERSION"),
        ("bad-pool", _changed(jobs, f2="a.b"), "BAD_POOL"),
        ("no-such-recipient", _changed(jobs, f4=[[b"h", 1, iv, ciphertext]]), "OUT_OF_BOUNDS"),
        ("recipient-minus-one", _changed(jobs, f4=[[b"h", -1, iv, ciphertext]]), "OUT_OF_BOUNDS"),
        ("recipient-false", _changed(jobs, f4=[[b"h", False, iv, ciphertext]]), "OUT_OF_BOUNDS"),
        ("iv-of-11-bytes", _changed(jobs, f4=[[b"h", 0, bytes(11), ciphertext]]), "OUT_OF_BOUNDS"),
        ("ciphertext-without-tag", _changed(jobs, f4=[[b"h", 0, iv, bytes(15)]]), "OUT_OF_BOUNDS"),
        ("entry-of-three", _changed(jobs, f4=[[b"h", 0, iv]]), "WRONG_TYPE"),
        ("header-too-large", _changed(jobs, f4=[[bytes(1025), 0, iv, ciphertext]]), "OUT_OF_BOUNDS"),
    ):
        yield "job-pack", name, data, code
    replies = encode_replies("minilm", samples.sealed_replies())
    job_id = bytes(16)
    header_only = [[job_id, b"o", b"h", None]]
    yield "reply-pack", "header-without-result", _changed(replies, f4=header_only), "MISSING_FIELD"
    no_outcome = [[job_id, b"", None, None]]
    yield "reply-pack", "no-outcome", _changed(replies, f4=no_outcome), "OUT_OF_BOUNDS"
    yield "message", "false-for-zero", encode([False, b"pack"]), "WRONG_TYPE"
    yield "message", "reference-to-nothing", encode([1, bytes(32), 0]), "WRONG_TYPE"
    yield "message", "reference-too-large", encode([1, bytes(32), (128 << 20) + 1]), "WRONG_TYPE"
    yield "message", "short-digest", encode([1, bytes(31), 1]), "WRONG_TYPE"
    yield "message", "third-kind", encode([2, b"pack"]), "WRONG_TYPE"


def _announcements() -> Iterator[Case]:
    body = samples.announcement_body("x25519").encode()
    for name, data, code in (
        ("unknown-field", _changed(body, f13=0), "UNKNOWN_FIELD"),
        ("epoch-zero", _changed(body, f5=0), "OUT_OF_BOUNDS"),
        ("no-tasks", _changed(body, f8=[]), "OUT_OF_BOUNDS"),
        ("task-twice", _changed(body, f8=["embed", "embed"]), "UNKNOWN_TASK"),
        ("task-array", _changed(body, f8=[["embed"]]), "UNKNOWN_TASK"),
        ("receipt-key-of-31-bytes", _changed(body, f6=bytes(31)), "OUT_OF_BOUNDS"),
        ("fleet-key-map-open", _changed(body, f4={1: "x25519", 2: bytes(32), 9: 9}), "UNKNOWN_FIELD"),
    ):
        yield "announcement-body", name, data, code
    bundle = samples.bundle().to_list()
    parts = [body, bundle, b"birth"]
    yield "announcement", "true-for-one", encode([True, *parts]), "WRONG_TYPE"
    yield "announcement", "float-for-one", encode([1.0, *parts]), "WRONG_TYPE"
    yield "announcement", "three-parts", encode([1, *parts[:2]]), "WRONG_TYPE"
    yield "announcement", "body-not-a-map", encode([1, b"\x80", *parts[1:]]), "NOT_A_MAP"
    file = ["tdx", "tcb.json", b""]
    for name, wrong, code in (
        ("bundle-of-three", bundle[:3], "WRONG_TYPE"),
        ("platform-empty", ["", *bundle[1:]], "OUT_OF_BOUNDS"),
        ("evidence-too-long", ["tdx", bytes(65_537), [], []], "OUT_OF_BOUNDS"),
        ("companion-twice", ["tdx", b"", [["nvidia", b""]] * 2, []], "OUT_OF_BOUNDS"),
        ("five-companions", ["tdx", b"", [[str(n), b""] for n in range(5)], []], "OUT_OF_BOUNDS"),
        ("companion-of-one", ["tdx", b"", [["nvidia"]], []], "WRONG_TYPE"),
        ("file-twice", ["tdx", b"", [], [file, file]], "OUT_OF_BOUNDS"),
        ("file-without-name", ["tdx", b"", [], [["tdx", "", b""]]], "OUT_OF_BOUNDS"),
        ("file-of-two", ["tdx", b"", [], [["tdx", b""]]], "WRONG_TYPE"),
    ):
        yield "announcement", name, encode([1, body, wrong, b"birth"]), code


def _sign1() -> Iterator[Case]:
    protected, signature = encode({1: -8}), bytes(64)
    for name, value, code in (
        ("untagged", [protected, {}, b"p", signature], "COSE_SHAPE"),
        ("other-tag", Tag(98, [protected, {}, b"p", signature]), "CBOR_UNEXPECTED_TAG"),
        ("three-parts", Tag(18, [protected, {}, b"p"]), "COSE_SHAPE"),
        ("detached-payload", Tag(18, [protected, {}, None, signature]), "COSE_SHAPE"),
        ("protected-map", Tag(18, [{1: -8}, {}, b"p", signature]), "COSE_SHAPE"),
        ("protected-array", Tag(18, [b"\x80", {}, b"p", signature]), "COSE_SHAPE"),
        ("protected-trailing", Tag(18, [protected + b"\0", {}, b"p", signature]), "CBOR_TRAILING_BYTES"),
        (
            "protected-long-form",
            Tag(18, [b"\xa1\x18\x01\x27", {}, b"p", signature]),
            "CBOR_NOT_DETERMINISTIC",
        ),
        ("protected-duplicate", Tag(18, [b"\xa2\1\x27\1\x27", {}, b"p", signature]), "CBOR_DUPLICATE_KEY"),
        ("tag-within", Tag(18, Tag(18, [protected, {}, b"p", signature])), "COSE_SHAPE"),
    ):
        yield "sign1", name, encode(value), code


def cases() -> list[Case]:
    """Return every case: reader, name, bytes, expected code."""
    groups = (_encoding, _padding, _keys, _headers, _jobs, _packs, _announcements, _sign1)
    return [case for group in groups for case in group()]
