"""Receipts by response id: what a caller may fetch later to show to others.

Nothing here holds an input or an output: receipts and outcomes state hashes, made with a secret salt.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from ...receipts.report import to_json_value
from ..judge import JobResult
from .database import Database

DAY: Final = 86_400.0
#: Old receipts are looked for once in so many stored ones.
PRUNE_EVERY: Final = 256

Part = Literal["receipt", "outcome", "evidence"]


@dataclass
class ReceiptStore:
    """Keeps receipts within bounds; the oldest are forgotten first.

    :param most: how many. :param most_bytes: of all together. :param days: how long.
    :param now: wall clock, Unix seconds.
    """

    database: Database
    most: int
    most_bytes: int
    days: float
    now: Callable[[], float] = time.time
    _stored: int = 0

    def keep(self, results: Iterable[tuple[str, JobResult]]) -> None:
        """Store verified ends under their response ids, all or none.

        :raises DeliveryError: ``PROXY_STORE_UNAVAILABLE``: then nothing may be handed out either.
        """
        with self.database.transaction():
            for response_id, result in results:
                self._keep(response_id, result)
        if self._stored >= PRUNE_EVERY:
            self.prune()

    def _keep(self, response_id: str, result: JobResult) -> None:
        evidence = None
        if result.worker is not None:
            bundle = result.worker.bundle
            evidence = bundle.evidence_hash.hex()
            platform = result.worker.verified.platform
            statement = "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?)"
            self.database.run(statement, evidence, platform, bundle.evidence)
        report = None if result.verification is None else json.dumps(to_json_value(result.verification))
        size = len(result.outcome) + len(result.receipt or b"") + len(report or "")
        self.database.run(
            "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(response_id, self.now(), "" if result.worker is None else result.worker.body.pool),
            *(result.status, result.code, result.assurance, result.job_id.hex()),
            *(None if result.receipt_key is None else result.receipt_key.hex(), evidence),
            *(result.receipt, result.outcome, report, size),
        )
        self._stored += 1

    def prune(self) -> int:
        """Forget what is beyond the bounds, and evidence that no receipt names; return how many receipts."""
        self._stored = 0
        with self.database.transaction():
            gone = self.database.run("DELETE FROM receipts WHERE created < ?", self.now() - self.days * DAY)
            gone += self.database.run(
                "DELETE FROM receipts WHERE id IN (SELECT id FROM (SELECT id, "
                "row_number() OVER newest AS place, sum(size) OVER newest AS total FROM receipts "
                "WINDOW newest AS (ORDER BY created DESC, id)) WHERE place > ? OR total > ?)",
                self.most,
                self.most_bytes,
            )
            if gone:
                used = "SELECT evidence FROM receipts WHERE evidence IS NOT NULL"
                self.database.run(f"DELETE FROM evidence WHERE hash NOT IN ({used})")  # noqa: S608 - constant
        return gone

    def report(self, response_id: str) -> dict[str, Any] | None:
        """Return everything that is known of a response's receipt as JSON values; None where nothing is."""
        rows = self.database.rows(
            "SELECT created, pool, status, code, assurance, job_id, receipt_key, evidence, receipt, outcome, "
            "report FROM receipts WHERE id = ?",
            response_id,
        )
        if not rows:
            return None
        created, pool, status, code, assurance, job_id, key, evidence, receipt, outcome, report = rows[0]
        return {
            "object": "receipt",
            "id": response_id,
            "created": int(created),
            "pool": pool,
            "status": status,
            "code": code,
            "assurance": assurance,
            "job_id": job_id,
            "receipt_key": key,
            "evidence_sha256": evidence,
            "receipt": None if receipt is None else base64.b64encode(receipt).decode(),
            "outcome": base64.b64encode(outcome).decode(),
            "report": None if report is None else json.loads(report),
        }

    def part(self, response_id: str, part: Part) -> bytes | None:
        """Return the bytes of a receipt, of the signed outcome or of the evidence; None for none."""
        column = {"receipt": "receipt", "outcome": "outcome", "evidence": "document"}[part]
        rows = self.database.rows(
            f"SELECT {column} FROM receipts LEFT JOIN evidence ON hash = evidence WHERE id = ?",  # noqa: S608
            response_id,
        )
        return rows[0][0] if rows else None
