"""Who a worker is: its receipt key, what it was attested as, and what it signs.

The Ed25519 receipt key is made inside the TEE and never leaves this object.
"""

from __future__ import annotations

import itertools
import resource
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..attestation.evidence import Measurements
from ..receipts.claims import Claims
from ..receipts.issue import issue
from ..receipts.outcome import Outcome, Status, make_outcome
from ..wire.announcement import ModelIdentity
from ..wire.header import JobHeader
from ..wire.job import EngineInfo, Task

MODEL_HASH_SCHEME = "sha256-manifest"


@dataclass(frozen=True)
class WorkerIdentity:
    """What a worker signs with and as.

    :param evidence_hash: SHA-256 of its attestation document, 32 bytes (``attestation_doc_hash``).
    :param security_mode: ``production`` or ``evaluation`` (a simulated TEE).
    """

    pool: str
    worker_id: bytes
    issuer: str
    receipt_key: Ed25519PrivateKey = field(repr=False)
    model: ModelIdentity
    engine: EngineInfo
    tasks: tuple[Task, ...]
    evidence_hash: bytes
    measurements: Measurements
    security_mode: str
    policy_version: str
    _sequence: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def receipt(
        self, *, request_hash: bytes, response_hash: bytes, nonce: bytes, now: int, execution_time_ms: int
    ) -> bytes:
        """Return an AIR v1 receipt for one inference.

        :param now: Unix seconds. :param execution_time_ms: of the forward pass the job was part of.
        """
        claims = Claims(
            iss=self.issuer,
            iat=now,
            cti=uuid.uuid4().bytes,
            eat_nonce=nonce,
            model_id=self.model.id,
            model_version=self.model.version,
            model_hash=self.model.manifest_hash,
            request_hash=request_hash,
            response_hash=response_hash,
            attestation_doc_hash=self.evidence_hash,
            enclave_measurements=self.measurements,
            policy_version=self.policy_version,
            sequence_number=next(self._sequence),
            execution_time_ms=execution_time_ms,
            memory_peak_mb=memory_peak_mb(),
            security_mode=self.security_mode,
            model_hash_scheme=MODEL_HASH_SCHEME,
        )
        return issue(claims, self.receipt_key)

    def outcome(
        self,
        *,
        header: JobHeader,
        job_hash: bytes,
        status: Status,
        code: str,
        receipt_hash: bytes | None,
        now: int,
    ) -> bytes:
        """Return the signed outcome statement of one job."""
        outcome = Outcome(
            job_id=header.job_id,
            pool=self.pool,
            status=status,
            code=code,
            iat=now,
            receipt_hash=receipt_hash,
            batch_id=header.batch_id,
            index=header.index,
            attestation_doc_hash=self.evidence_hash,
            job_hash=job_hash,
        )
        return make_outcome(outcome, self.receipt_key)


_PEAK_SECONDS: Final = 0.5
_peak: list[float] = [0.0, 0.0]


def memory_peak_mb() -> int:
    """Return the process's peak resident memory in MiB (getrusage: KiB on Linux), at most half a second old.

    The kernel sums up all threads for it, which costs as much as a signature.
    """
    now = time.monotonic()
    if now - _peak[0] > _PEAK_SECONDS or not _peak[1]:
        _peak[:] = now, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return int(_peak[1])
