"""The fixed values that the published vectors of the wire formats are made of."""

from __future__ import annotations

import struct

from ephemeralml.wire.announcement import AnnouncementBody, ModelIdentity
from ephemeralml.wire.bundle import Collateral, EvidenceBundle
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.job import (
    BatchCommitment,
    Completion,
    Embedding,
    EngineInfo,
    Job,
    Response,
    TokenLogprob,
    Turn,
)
from ephemeralml.wire.keys import PublicKey, SuiteName
from ephemeralml.wire.pack import SealedJob, SealedReply
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealed

SUITES: tuple[SuiteName, ...] = ("xwing", "x25519")
NOT_AFTER = 1_800_000_000


def filled(start: int, size: int) -> bytes:
    """Return ``size`` bytes that count up from ``start``."""
    return bytes((start + place) % 256 for place in range(size))


def private_key(suite: SuiteName, start: int = 1) -> PrivateKey:
    """Return the key of the seed that counts up from ``start``."""
    return PrivateKey.from_seed(suite, filled(start, 32))


def public_key(suite: SuiteName, start: int = 1) -> PublicKey:
    """Return the public half of :func:`private_key`."""
    return private_key(suite, start).public_key


ENGINE = EngineInfo("minilm", "openvino", "float32", "2026.4")


def job_headers() -> dict[str, JobHeader]:
    """Return one header alone and one of a batch."""
    key_id, reply_to = public_key("xwing").key_id, "reply." + filled(0x60, 16).hex()
    return {
        "single": JobHeader(filled(0x10, 16), "minilm", key_id, reply_to, NOT_AFTER),
        "batch": JobHeader(filled(0x10, 16), "minilm", key_id, reply_to, NOT_AFTER, filled(0x70, 16), 49_999),
    }


def reply_headers() -> dict[str, ReplyHeader]:
    """Return the replies' headers that belong to :func:`job_headers`."""
    key_id = public_key("x25519", 2).key_id
    return {
        "single": ReplyHeader(filled(0x10, 16), "minilm", key_id),
        "batch": ReplyHeader(filled(0x10, 16), "minilm", key_id, filled(0x70, 16), 0),
    }


def jobs() -> dict[str, Job]:
    """Return a plain embedding job, one of a batch, and a conversation with every kind of parameter."""
    salt, nonce = filled(0x80, 32), filled(0xA0, 16)
    parameters: dict[str, int | float | str | bool | list[int | float | str | bool]] = {
        "temperature": 0.5,
        "top_p": 0.1,
        "max_tokens": 64,
        "seed": -1,
        "stop": ["\n", "END"],
        "greedy": True,
    }
    turns = (Turn("system", "Be brief."), Turn("user", "Grüße, 世界"))
    classical, hybrid = public_key("x25519", 2), public_key("xwing", 2)
    return {
        "embed": Job("all-minilm-l6-v2", "embed", ("A cat.", ""), {}, salt, nonce, classical, NOT_AFTER),
        "embed-batch": Job(
            *("all-minilm-l6-v2", "embed", ("A cat.",), {}, salt, filled(0xA0, 8), hybrid, NOT_AFTER),
            batch=BatchCommitment(filled(0xC0, 32), 50_000),
        ),
        "generate": Job(
            "llama-3-8b",
            "generate",
            (turns, "Once"),
            parameters,
            salt,
            filled(0xA0, 64),
            classical,
            NOT_AFTER,
        ),
    }


def responses() -> dict[str, Response]:
    """Return a response of each task."""
    vectors = [struct.pack("<3f", 0.6, -0.8, 0.0), struct.pack("<3f", 1.0, 0.0, 0.0)]
    embeddings = (Embedding(vectors[0], 5, False), Embedding(vectors[1], 256, True))
    tokens = (TokenLogprob(b"Hi", -0.25, ((b"Hi", -0.25), (b"\xe2\x9c", -1.5))), TokenLogprob(b"\xe2", -2.0))
    completions = (
        Completion("Yes. ✓", "stop", 12, 4, 7),
        Completion("", "deadline", 1, 0, 8),
        Completion("Hi", "length", 3, 2, 2**32 - 1, tokens),
    )
    sampling = GenerateParameters(max_tokens=64, temperature=0.5, stop=("END",), logprobs=True).effective()
    model_hash, salt, job_id = filled(0xE0, 32), filled(0x80, 32), filled(0x10, 16)
    return {
        "embed": Response(job_id, "all-minilm-l6-v2", model_hash, "embed", embeddings, ENGINE, salt),
        "generate": Response(
            *(job_id, "llama-3-8b", model_hash, "generate", completions, ENGINE, salt), sampling=sampling
        ),
    }


def sealed(block: int, place: int) -> Sealed:
    """Return a message that only looks sealed: ``block`` tells recipients apart, ``place`` messages."""
    return Sealed(filled(block, 40), filled(place, 12), filled(place, 32))


def sealed_jobs() -> list[SealedJob]:
    """Return three jobs, two of them under one recipient block, the last with a header that is none."""
    header = job_headers()["single"].encode()
    return [
        SealedJob(header, sealed(1, 10)),
        SealedJob(header, sealed(2, 20)),
        SealedJob(b"\xff", sealed(1, 30)),
    ]


def sealed_replies() -> list[SealedReply]:
    """Return a reply with a result and one without."""
    header = reply_headers()["single"].encode()
    return [
        SealedReply(filled(0x10, 16), filled(0x30, 64), header, sealed(1, 10)),
        SealedReply(filled(0x11, 16), filled(0x31, 64)),
    ]


def announcement_body(suite: SuiteName) -> AnnouncementBody:
    """Return an announcement's body for a fleet key of ``suite``."""
    return AnnouncementBody(
        pool="minilm",
        worker_id=filled(0x20, 16),
        fleet_key=public_key(suite),
        epoch=7,
        receipt_key=filled(0x40, 32),
        model=ModelIdentity("all-minilm-l6-v2", "1", filled(0xE0, 32)),
        tasks=("embed",),
        engine=ENGINE,
        issued_at=1_799_990_000,
        not_after=NOT_AFTER,
        security_mode="production",
    )


def bundle() -> EvidenceBundle:
    """A bundle with placeholders for evidence, a companion and collateral."""
    return EvidenceBundle(
        "tdx",
        filled(3, 64),
        (("nvidia", filled(5, 48)),),
        (Collateral("tdx", "tcb_info.json", filled(6, 32)), Collateral("nvidia", "driver.swidtag", b"<a/>")),
    )
