"""``GET /attestation``: what is trusted now, under which policy, and what an answer is worth."""

from __future__ import annotations

from typing import Any

from ...receipts.report import LEVELS
from ..session import Session
from ..trust import VerifiedFleet, VerifiedWorker
from .settings import ProxySettings


def attestation_report(session: Session, settings: ProxySettings) -> dict[str, Any]:
    """Judge every pool anew where it is time to, and return what was found as JSON values.

    :raises Error: as :meth:`.trust.Trust.fleet`, for the first pool that is not trusted.
    """
    client = session.client
    held = client.trust.policy.in_force(client.now())
    fleets = [session.fleet(pool) for pool in session.pools]
    modes = {worker.appraisal.security_mode for fleet in fleets for worker in fleet.workers.values()}
    return {
        "object": "attestation",
        "policy": {"version": held.label, "signed": held.signed, "expires": held.expires},
        "assurance": {
            "level": "provenance",
            "meaning": LEVELS["provenance"],
            "security_modes": sorted(modes),
            "streaming": settings.stream,
        },
        "pools": [_pool(fleet) for fleet in fleets],
        "session": {
            "submitted": session.counts.submitted,
            "answered": session.counts.answered,
            "resubmitted": session.counts.resubmitted,
            "discarded_replies": session.counts.discarded,
        },
    }


def _pool(fleet: VerifiedFleet) -> dict[str, Any]:
    return {
        "pool": fleet.pool,
        "model": {
            "id": fleet.model.id,
            "version": fleet.model.version,
            "manifest_sha256": fleet.model.manifest_hash.hex(),
        },
        "fleet_key": {
            "id": fleet.fleet_key.key_id.hex(),
            "suite": fleet.fleet_key.suite,
            "epoch": fleet.epoch,
        },
        "judged_at": int(fleet.judged_at),
        "workers": [_worker(worker) for worker in fleet.workers.values()],
        "refused": [{"worker": worker, "code": code} for worker, code in fleet.refused],
    }


def _worker(worker: VerifiedWorker) -> dict[str, Any]:
    engine = worker.body.engine
    return {
        "worker": worker.body.worker_id.hex(),
        "platform": worker.verified.platform,
        "measurement_set": worker.appraisal.measurement_set,
        "security_mode": worker.appraisal.security_mode,
        "findings": [f"{code}: {detail}" for code, detail in worker.appraisal.findings],
        "attested_at": worker.verified.issued_at,
        "announcement_ends": worker.body.not_after,
        "evidence_sha256": worker.bundle.evidence_hash.hex(),
        "receipt_key": worker.body.receipt_key.hex(),
        "tasks": list(worker.body.tasks),
        "engine": f"{engine.name} {engine.version} {engine.backend} {engine.precision}",
    }
