"""What a day of jobs costs on SQS and Pub/Sub in calls, bytes and money: a calculation, with its inputs.

Run by ``python -m tests.bench.cost [--jobs N] [--workers N]``. Sizes are those of real sealed packs and
replies, made here; how often which call is made follows from the transports; prices are list prices, in US
dollars, named below with where they stand. Nothing is measured but the sizes.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ephemeralml.wire.pack import encode_message, encode_replies

from ..way.harness import POOL, Stand, item

DAY_S: Final = 86_400
#: aws.amazon.com/sqs/pricing: standard queues, a million requests; each 64 KiB of payload is one request.
SQS_PER_MILLION: Final = 0.40
SQS_CHUNK: Final = 64 << 10
#: docs.aws.amazon.com, "Short and long polling": one empty receive per wait of 20 s.
SQS_WAIT_S: Final = 20
#: cloud.google.com/pubsub/pricing: a TiB published or delivered; a message counts as 1,000 bytes at least.
PUBSUB_PER_TIB: Final = 40.0
PUBSUB_LEAST: Final = 1000
#: aws.amazon.com/s3/pricing and cloud.google.com/storage/pricing: a thousand writes, a thousand reads.
STORE_PUT: Final = 0.005
STORE_GET: Final = 0.0004
#: SQS carries text: base64 once. Around the body stand a form's number and an id (broker_config/*/form.py).
BASE64: Final = 4 / 3
AROUND: Final = 60
#: How often a worker writes and reads the blob store in a day: announcements twice, key and order polls.
WORKER_PUTS: Final = 4
WORKER_POLL_S: Final = 30


@dataclass(frozen=True)
class Sizes:
    """Bytes of one message of jobs and of its replies, before any text coding."""

    jobs: int
    replies: int


def sizes(pack_jobs: int, text_bytes: int) -> Sizes:
    """Make a real pack and real replies, and return their sizes."""
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(Path(folder))
        items = [item("x" * text_bytes, str(number)) for number in range(pack_jobs)]
        ticket = stand.plan(*items, pack_jobs=pack_jobs)
        (pack,) = stand.packs(ticket)
        replies = encode_replies(POOL, [reply.sealed for reply in stand.answer(ticket)])
        stand.close()
    # The stand's engine answers four bytes; a MiniLM vector has 1,536, padded and sealed.
    vectors = pack_jobs * 1536
    return Sizes(len(encode_message(pack)) + AROUND, len(replies) + vectors + AROUND)


def sqs(jobs: int, workers: int, pack_jobs: int, size: Sizes, busy: float) -> tuple[float, float]:
    """Return requests a day and their price: send, receive and delete, for jobs and for replies."""
    messages = jobs / pack_jobs
    each = sum(2 * math.ceil(part * BASE64 / SQS_CHUNK) + 1 for part in (size.jobs, size.replies))
    idle = workers * (1 - busy) * DAY_S / SQS_WAIT_S
    requests = messages * each + idle
    return requests, requests / 1e6 * SQS_PER_MILLION


def pubsub(jobs: int, pack_jobs: int, size: Sizes) -> tuple[float, float]:
    """Return TiB a day and their price: published and delivered, for jobs and for replies."""
    messages = jobs / pack_jobs
    each = sum(2 * max(PUBSUB_LEAST, part) for part in (size.jobs, size.replies))
    tib = messages * each / (1 << 40)
    return tib, tib * PUBSUB_PER_TIB


def store(workers: int) -> float:
    """Return what workers' announcements and polls for keys and orders cost in a day."""
    reads = workers * DAY_S / WORKER_POLL_S
    return workers * WORKER_PUTS / 1000 * STORE_PUT + reads / 1000 * STORE_GET


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="what a day of jobs costs on SQS and Pub/Sub")
    parser.add_argument("--jobs", type=int, default=100_000_000, help="jobs a day")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--busy", type=float, default=0.5, help="share of the day in which a worker has work")
    parser.add_argument("--text", type=int, default=1700, help="bytes of one job's text")
    options = parser.parse_args()
    print(
        f"{options.jobs:,} jobs a day, {options.workers:,} workers, busy {options.busy:.0%} of it; per day:\n"
    )
    print(
        "| jobs in a pack | KiB of jobs | KiB of replies | SQS requests | SQS $ | Pub/Sub TiB | Pub/Sub $ |"
    )
    print("|---|---|---|---|---|---|---|")
    for pack_jobs in (1, 8, 32, 128):
        size = sizes(pack_jobs, options.text)
        requests, dollars = sqs(options.jobs, options.workers, pack_jobs, size, options.busy)
        tib, google = pubsub(options.jobs, pack_jobs, size)
        print(
            f"| {pack_jobs} | {size.jobs / 1024:.1f} | {size.replies / 1024:.1f} | {requests:,.0f} "
            f"| {dollars:,.2f} | {tib:.2f} | {google:,.2f} |"
        )
    print(f"\nblob store, for announcements, keys and orders: ${store(options.workers):,.2f}")


if __name__ == "__main__":
    main()
