"""A batch sealed on the client's premises, as the gateway takes it (spec/gateway.md)."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace

from ephemeralml.producer.batch import commit
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import Judge
from ephemeralml.producer.sealed_jobs import make_job, seal_job
from ephemeralml.producer.ticket import JobRecord, TicketHead
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import encode_jobs
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealer

LIFETIME_S = 600


@dataclass
class Upload:
    """What was sealed, what travels, and who judges the answers."""

    name: str
    body: bytes
    records: dict[str, JobRecord]
    judge: Judge


def seal_upload(client: Client, reply_to: str, texts: list[str]) -> Upload:
    """Seal texts to the trusted workers of the laboratory's pool, as one batch."""
    fleet = client.trust_pool("minilm")
    seed, batch_id = secrets.token_bytes(32), secrets.token_bytes(16)
    key = PrivateKey.from_seed("xwing", seed)
    not_after = int(time.time()) + LIFETIME_S
    items = [InputItem(f"text-{number}", (text,)) for number, text in enumerate(texts)]
    jobs = [make_job(fleet, item, "embed", key.public_key, not_after) for item in items]
    commitment = commit(jobs)
    head = TicketHead(
        pool=fleet.pool,
        reply_to=reply_to,
        suite="xwing",
        seed=seed.hex(),
        model=fleet.model.id,
        model_hash=fleet.model.manifest_hash.hex(),
        not_after=not_after,
        policy=fleet.policy.to_json(),
        batch_id=batch_id.hex(),
        input_root=commitment.root.hex(),
    )
    sealer = Sealer(fleet.fleet_key, "job", monotonic=time.monotonic)
    sealed = [
        seal_job(sealer, head, fleet, item.custom_id, replace(job, batch=commitment), index)
        for index, (item, job) in enumerate(zip(items, jobs, strict=True))
    ]
    start = {1: 1, 2: fleet.pool, 3: batch_id, 4: len(items), 5: LIFETIME_S, 6: commitment.root}
    pack = encode_jobs(fleet.pool, [job for _, job in sealed])
    body = encode(start) + encode([pack, [item.custom_id for item in items]])
    judge = Judge(head, client.trust, Opener([key], "result"))
    return Upload("batch_" + batch_id.hex(), body, {record.job_id: record for record, _ in sealed}, judge)
