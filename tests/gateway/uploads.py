"""Batches as clients would upload them. What is sealed is random: the gateway cannot tell the difference."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.producer.gateway.store import Store, batches, replies
from ephemeralml.producer.gateway.store.replies import Reply
from ephemeralml.producer.gateway.upload.lines import to_base64
from ephemeralml.receipts.outcome import Outcome, make_outcome
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.pack import SealedJob, SealedReply, encode_jobs
from ephemeralml.wire.sealing import Sealed

NOW: Final = 1_800_000_000
POOL: Final = "minilm"
_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))


@dataclass
class SealedBatch:
    """A batch with random contents; every field may be made wrong."""

    reply_to: str
    jobs: int
    pack_jobs: int = 2
    window_s: int = 3600
    ciphertext_bytes: int = 40
    input_root: bytes | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    named: bool = True
    batch_id: bytes = field(default_factory=lambda: os.urandom(16))
    headers: list[JobHeader] = field(default_factory=list)
    now: int = NOW

    def __post_init__(self) -> None:
        self.headers = self.headers or [self._header(index) for index in range(self.jobs)]
        recipient = os.urandom(64)
        self.sealed = [
            Sealed(recipient, os.urandom(12), os.urandom(self.ciphertext_bytes)) for _ in range(self.jobs)
        ]
        self.custom_ids = [f"item-{index}" for index in range(self.jobs)]

    @property
    def name(self) -> str:
        """What users call it."""
        return "batch_" + self.batch_id.hex()

    def _header(self, index: int) -> JobHeader:
        return JobHeader(
            job_id=os.urandom(16),
            pool=POOL,
            key_id=bytes(32),
            reply_to=self.reply_to,
            not_after=self.now + 600,
            batch_id=self.batch_id,
            index=index,
        )

    def change(self, place: int, /, **fields: object) -> SealedBatch:
        """Change a job's header."""
        self.headers[place] = replace(self.headers[place], **fields)  # type: ignore[arg-type]
        return self

    def head(self) -> dict[object, object]:
        """Return the head's fields."""
        fields: dict[object, object] = {1: 1, 2: POOL, 3: self.batch_id, 4: self.jobs, 5: self.window_s}
        if self.input_root is not None:
            fields[6] = self.input_root
        if self.metadata:
            fields[7] = self.metadata
        return fields

    def items(self) -> list[bytes]:
        """Return the items of the CBOR form, the head first."""
        found = [encode(self.head())]
        for start in range(0, self.jobs, self.pack_jobs):
            places = range(start, min(start + self.pack_jobs, self.jobs))
            entries = [SealedJob(self.headers[place].encode(), self.sealed[place]) for place in places]
            names = [self.custom_ids[place] for place in places] if self.named else None
            found.append(encode([encode_jobs(POOL, entries), names]))
        return found

    def cbor(self) -> bytes:
        """Return the body of an upload as a CBOR sequence."""
        return b"".join(self.items())

    def ndjson(self) -> bytes:
        """Return the body of an upload as lines of JSON."""
        head: dict[str, object] = {
            "version": 1,
            "pool": POOL,
            "batch_id": self.batch_id.hex(),
            "jobs": self.jobs,
            "window_s": self.window_s,
        }
        if self.input_root is not None:
            head["input_root"] = self.input_root.hex()
        if self.metadata:
            head["metadata"] = self.metadata
        lines = [head, *(self._line(place) for place in range(self.jobs))]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def _line(self, place: int) -> dict[str, object]:
        sealed = self.sealed[place]
        line: dict[str, object] = {
            "header": to_base64(self.headers[place].encode()),
            "recipient": to_base64(sealed.recipient),
            "iv": to_base64(sealed.iv),
            "ciphertext": to_base64(sealed.ciphertext),
        }
        return line | {"custom_id": self.custom_ids[place]} if self.named else line

    def reply(self, index: int, status: str = "succeeded") -> Reply:
        """Return what a relay stores of a worker's reply to a job."""
        header = self.headers[index]
        code = "" if status == "succeeded" else status.upper()
        outcome = Outcome(
            job_id=header.job_id,
            pool=POOL,
            status=status,  # type: ignore[arg-type]
            code=code,
            iat=self.now,
            attestation_doc_hash=bytes(32),
            job_hash=bytes(32),
            receipt_hash=bytes(32) if status == "succeeded" else None,
            batch_id=self.batch_id,
            index=index,
        )
        signed = make_outcome(outcome, _KEY)
        if status != "succeeded":
            return Reply(index, status, code, SealedReply(header.job_id, signed))  # type: ignore[arg-type]
        reply_header = ReplyHeader(header.job_id, POOL, bytes(32), self.batch_id, index).encode()
        sealed = Sealed(b"recipient", os.urandom(12), b"result of " + str(index).encode() + os.urandom(32))
        return Reply(index, "succeeded", "", SealedReply(header.job_id, signed, reply_header, sealed))


def answer(store: Store, batch: SealedBatch, indexes: Sequence[int], status: str = "succeeded") -> list[int]:
    """Store replies to jobs of a batch as a relay does; return the indexes of those that were new."""
    with store.transaction() as connection:
        number = batches.by_batch_id(connection, batch.batch_id)
        assert number is not None
        arrived = [batch.reply(index, status) for index in indexes]
        return [reply.index for reply in replies.record(connection, number, arrived, NOW + 10)]


def number_of(store: Store, batch: SealedBatch) -> int:
    """Return the store's number of a batch."""
    with store.reading() as connection:
        number = batches.by_batch_id(connection, batch.batch_id)
    assert number is not None
    return number
