"""What a worker counts of itself, and under which names: closed sets only.

The pipeline tells a :class:`Meter`; this one forgets everything. :class:`.metrics.Tally` keeps
numbers. Nothing that a job holds or a host writes becomes a name: no job id, no batch id, no
tenant, and a code that is not one of :data:`CODES` counts as ``OTHER``.
"""

from __future__ import annotations

from typing import Final, Literal

from ..receipts.outcome import Status

#: The stages of a message on its way through a worker.
Stage = Literal["resolve", "open", "run", "seal", "publish"]
STAGES: Final[tuple[Stage, ...]] = ("resolve", "open", "run", "seal", "publish")

#: How a worker is done with a message: answered, given back unanswered, or kept as a dead letter.
End = Literal["answered", "returned", "dead"]
ENDS: Final[tuple[End, ...]] = ("answered", "returned", "dead")

OTHER: Final = "OTHER"
#: Codes of outcomes and dead letters that have a name of their own in metrics; "" is a success.
CODES: Final = frozenset(
    {
        "",
        "ATTEMPTS_EXHAUSTED",
        "BATCH_MISMATCH",
        "BLOB_MISSING",
        "BLOB_TAMPERED",
        "BLOB_TOO_LARGE",
        "CANCELLED",
        "CANNOT_OPEN",
        "DEADLINE_MISMATCH",
        "ENGINE_BAD_INPUT",
        "ENGINE_BAD_PARAMETERS",
        "ENGINE_BUSY",
        "ENGINE_CANCELLED",
        "ENGINE_CLOSED",
        "ENGINE_FAILED",
        "ENGINE_INPUT_TOO_LONG",
        "ENGINE_NOT_FINITE",
        "ENGINE_NO_CHAT_TEMPLATE",
        "ENGINE_TIMEOUT",
        "EXPIRED",
        "KEY_RETIRED",
        "KEY_REVOKED",
        "MALFORMED_JOB",
        "PACK_SIZE",
        "PAYLOAD_TOO_LARGE",
        "RESULT_TOO_LARGE",
        "UNEXPECTED",
        "UNSUPPORTED_TASK",
        "WRONG_MODEL",
        "WRONG_POOL",
        OTHER,
    }
)


def code_name(code: str) -> str:
    """Return a code as metrics show it."""
    return code if code in CODES else OTHER


class Meter:
    """Is told what a worker does, and forgets it. Safe for threads, as whatever takes its place must be."""

    def message(self, deliveries: int) -> None:
        """A message is in work from now on.

        :param deliveries: for the how manieth time it was delivered.
        """

    def message_ended(self, end: End) -> None:
        """A message is in work no longer."""

    def pack(self, jobs: int) -> None:
        """So many jobs are in work from now on; :meth:`pack_ended` ends it."""

    def pack_ended(self, jobs: int) -> None:
        """So many jobs are in work no longer."""

    def took(self, stage: Stage, seconds: float) -> None:
        """A stage of a message took so long, in seconds."""

    def outcome(self, job_id: bytes, status: Status, code: str) -> None:
        """A job has its signed outcome."""

    def dead_letter(self, code: str) -> None:
        """A message was kept as a dead letter."""

    def publish_failed(self) -> None:
        """Replies could not be published, and are tried again."""
