"""spec/wire.cddl against the code's output, and against what the code refuses."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pycddl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given

from ephemeralml.wire.announcement import AnnouncementBody
from ephemeralml.wire.cose import sig_structure, sign1
from ephemeralml.wire.encoding import Tag, decode, encode
from ephemeralml.wire.header import JobHeader
from ephemeralml.wire.job import Job, Response
from ephemeralml.wire.keys import SUITES, SuiteName
from ephemeralml.wire.pack import SealedReply, encode_replies
from ephemeralml.wire.sealing import PROTECTED, Sealer, content_aad, recipient_info, to_cose_encrypt

from . import strategies as some

SPEC = Path(__file__).resolve().parents[2] / "spec"
TEXT = (SPEC / "wire.cddl").read_text()


@lru_cache
def schema(rule: str) -> pycddl.Schema:
    return pycddl.Schema(f"start = {rule}\n{TEXT}")


def follows(rule: str, data: bytes) -> None:
    schema(rule).validate_cbor(data)


def accepts(rule: str, data: bytes) -> bool:
    try:
        follows(rule, data)
    except pycddl.ValidationError:
        return False
    return True


@given(some.job_headers)
def test_job_headers(value: JobHeader) -> None:
    follows("job-header", value.encode())


@given(some.jobs)
def test_jobs(value: Job) -> None:
    follows("job", value.encode())


@given(some.responses)
def test_responses(value: Response) -> None:
    follows("response", value.encode())


@given(some.bodies)
def test_announcement_bodies(value: AnnouncementBody) -> None:
    follows("announcement-body", value.encode())


@given(some.sealed_replies)
def test_reply_packs(value: SealedReply) -> None:
    follows("reply-pack", encode_replies("a", [value]))


def test_published_vectors() -> None:
    kinds = set()
    for name in ("headers", "jobs", "packs", "announcements"):
        for vector in json.loads((SPEC / "vectors" / "wire" / f"{name}.json").read_text()):
            follows(vector["kind"], bytes.fromhex(vector["cbor"]))
            kinds.add(vector["kind"])
    assert len(kinds) == 10


def test_invalid_vectors_that_are_wrong_in_structure() -> None:
    """What only prose can say is accepted by the grammar; all else is refused by both."""
    prose = {
        *("pool-upper-case", "pool-with-newline", "pool-starts-with-dash", "bad-pool"),
        *("65-parameters", "vector-of-5-bytes", "no-such-recipient", "ciphertext-without-tag"),
        "logprob-positive",
        *("mlkem-not-reduced", "body-not-a-map", "companion-twice", "file-twice"),
        *("protected-array", "protected-trailing", "protected-long-form", "protected-duplicate"),
    }
    # Written in the grammar; this validator does not see it: arrays for maps, and arrays within arrays.
    unseen = {"array", "parameter-nested", "task-array", "turn-of-three", "five-companions"}
    unseen |= {"logprob-for-no-token", "logprob-integer", "logprob-text", "21-alternatives"}
    vectors = json.loads((SPEC / "vectors" / "wire" / "invalid.json").read_text())
    accepted = {
        vector["name"]
        for vector in vectors
        if vector["reader"] not in ("encoding", "padding")
        and accepts(vector["reader"], bytes.fromhex(vector["bytes"]))
    }
    assert accepted - unseen == prose


@pytest.mark.parametrize("suite", SUITES)
def test_sealed_messages(suite: SuiteName) -> None:
    key = some.private_key(suite).public_key
    sealed = Sealer(key, "job", monotonic=lambda: 0.0).seal(b"\xa0", b"plaintext")
    follows("recipient", sealed.recipient)
    follows("cose-encrypt", to_cose_encrypt(sealed))
    protected, _, _ = _list(sealed.recipient)
    assert isinstance(protected, bytes)
    follows("recipient-protected", protected)
    follows("content-protected", PROTECTED)
    info = recipient_info(SUITES[suite], protected, "job")
    follows("recipient-structure", info)
    extra = _list(info)[3]
    assert isinstance(extra, bytes)
    follows("extra-info", extra)
    follows("enc-structure", content_aad(b"\xa0"))


def _list(data: bytes) -> list[object]:
    value = decode(data)
    assert isinstance(value, list)
    return value


def test_sign1() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    follows("sign1", sign1(b"payload", key, protected={1: -8, 3: "text"}))
    follows("sign1-structure", sig_structure(b"\xa1\x01\x27", b"payload"))
    assert not accepts("sign1", encode(Tag(18, [b"", {}, None, b""])))


def test_thumbprints() -> None:
    classical, hybrid = (some.private_key(suite).public_key.raw for suite in ("x25519", "xwing"))
    follows("okp-thumbprint-input", encode({1: 1, -1: 4, -2: classical}))
    follows("akp-thumbprint-input", encode({1: 7, 3: -70_001, -1: hybrid}))


def test_every_rule_can_be_the_root() -> None:
    rules = [line.split(" = ")[0] for line in TEXT.splitlines() if " = " in line and line[0] not in " ;"]
    assert len(rules) > 50
    assert len(set(rules)) == len(rules)
    for rule in rules:
        schema(rule)
