"""Announcement: how a worker tells clients which keys it holds and what it runs.

The body is bound to the TEE by the evidence (its SHA-256 is the evidence's user
data), the evidence is bound to the receipt key, so the body needs no signature of
its own. The birth certificate of the fleet key travels along for clients that
want to see where the key was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

from .bundle import MAX_BUNDLE_BYTES, EvidenceBundle
from .encoding import decode, encode, sha256
from .errors import MalformedError
from .fields import Fields
from .header import check_pool
from .job import TASKS, EngineInfo, Task
from .keys import PublicKey

VERSION: Final = 1
MAX_BODY_BYTES: Final = 16_384
MAX_BIRTH_BYTES: Final = MAX_BUNDLE_BYTES + 8_192
MAX_ANNOUNCEMENT_BYTES: Final = MAX_BODY_BYTES + MAX_BUNDLE_BYTES + MAX_BIRTH_BYTES + 1_024


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model: id, version and the SHA-256 of its manifest (the receipt's ``model_hash``)."""

    id: str
    version: str
    manifest_hash: bytes


@dataclass(frozen=True)
class AnnouncementBody:
    """What a worker claims; true only as far as the evidence beside it is appraised.

    :param worker_id: 16 random bytes. :param fleet_key: the key that jobs are sealed to.
    :param epoch: of the fleet key, counting from 1. :param receipt_key: raw Ed25519 key, 32 bytes.
    :param issued_at: Unix seconds. :param not_after: Unix seconds. :param security_mode: AIR's word.
    """

    pool: str
    worker_id: bytes
    fleet_key: PublicKey
    epoch: int
    receipt_key: bytes
    model: ModelIdentity
    tasks: tuple[Task, ...]
    engine: EngineInfo
    issued_at: int
    not_after: int
    security_mode: str

    def encode(self) -> bytes:
        """Return the deterministic CBOR of the body."""
        return encode(
            {
                1: VERSION,
                2: self.pool,
                3: self.worker_id,
                4: self.fleet_key.to_map(),
                5: self.epoch,
                6: self.receipt_key,
                7: {1: self.model.id, 2: self.model.version, 3: self.model.manifest_hash},
                8: list(self.tasks),
                9: self.engine.to_map(),
                10: self.issued_at,
                11: self.not_after,
                12: self.security_mode,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> AnnouncementBody:
        """Read a body.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_BODY_BYTES), "announcement", range(1, 13))
        fields.version(1, VERSION)
        model = Fields(fields.required(7, dict), "model identity", (1, 2, 3))
        return cls(
            pool=check_pool(fields.text(2, 1, 63)),
            worker_id=fields.octets(3, 16),
            fleet_key=PublicKey.from_map(fields.required(4, dict)),
            epoch=fields.uint(5, minimum=1),
            receipt_key=fields.octets(6, 32),
            model=ModelIdentity(model.text(1, 1, 256), model.text(2, 1, 128), model.octets(3, 32)),
            tasks=_tasks(fields.items(8, 1, len(TASKS))),
            engine=EngineInfo.from_map(fields.required(9, dict)),
            issued_at=fields.uint(10, minimum=1),
            not_after=fields.uint(11, minimum=1),
            security_mode=fields.text(12, 1, 32),
        )


def _tasks(items: list[object]) -> tuple[Task, ...]:
    # "in" compares; a set would hash, and what CBOR gives may be a list.
    if not all(item in TASKS for item in items) or any(items.count(item) > 1 for item in items):
        raise MalformedError("UNKNOWN_TASK", "an announcement names an unknown task, or one twice")
    return cast("tuple[Task, ...]", tuple(items))


@dataclass(frozen=True)
class Announcement:
    """A body as it was hashed, the evidence that binds it, and the fleet key's birth certificate."""

    body_bytes: bytes
    bundle: EvidenceBundle
    birth: bytes

    @cached_property
    def body(self) -> AnnouncementBody:
        """The parsed body.

        :raises MalformedError: when it is malformed.
        """
        return AnnouncementBody.decode(self.body_bytes)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the body, 32 bytes: what the evidence must vouch for."""
        return sha256(self.body_bytes)

    def encode(self) -> bytes:
        """Return the deterministic CBOR ``[version, body, evidence bundle, birth certificate]``."""
        return encode([VERSION, self.body_bytes, self.bundle.to_list(), self.birth])

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        """Read an announcement; the body is parsed too.

        :raises MalformedError: when it is anything else.
        """
        # Each part within its own bound, the whole before it is parsed.
        value = decode(data, max_bytes=MAX_ANNOUNCEMENT_BYTES)
        match value:
            # Also by type: the literal would match true and 1.0, which are other bytes.
            case [1, bytes() as body, list() as bundle, bytes() as birth] if (
                type(value[0]) is int and len(birth) <= MAX_BIRTH_BYTES
            ):
                announcement = cls(body, EvidenceBundle.from_list(bundle), birth)
                _ = announcement.body
                return announcement
        raise MalformedError("WRONG_TYPE", "an announcement is not of its form")


def newest_prefix(pool: str) -> str:
    """Return the blob store prefix under which each worker of a pool keeps its newest announcement."""
    return f"announcements/{pool}/"


def archive_name(pool: str, evidence_hash: bytes) -> str:
    """Return where an announcement stays for as long as receipts of its evidence (SHA-256) are judged."""
    return f"evidence/{pool}/{evidence_hash.hex()}"
