"""How fast the gateway takes one batch, and its peak memory; client and gateway share this machine.

Run by ``python -m tests.bench.gateway_upload [--jobs N] [--pack N] [--bytes N] [--form cbor] [--postgres]``.
What is uploaded is random bytes of a sealed job's size: the gateway cannot tell the difference.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from ephemeralml.producer.gateway.store import Store, identity, migrate, tenants

from ..gateway.process import Process
from ..gateway.uploads import SealedBatch
from ..servers import postgres

PIECE = 256 << 10
MEDIA = {"cbor": "application/cbor-seq", "ndjson": "application/x-ndjson"}


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had resident (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def pieces(body: bytes) -> Iterator[bytes]:
    """Yield a body as a client that reads a file would."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


def measure(url: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Upload one batch to a gateway of its own and return what that took."""
    store = Store(url)
    migrate(store)
    with store.transaction() as connection:
        key = tenants.make_key(
            connection, tenants.ensure(connection, "bench", time.time()), "bench", ["write"], time.time()
        )
        reply_to = identity.reply_to(connection)
    store.close()
    batch = SealedBatch(
        reply_to, options.jobs, pack_jobs=options.pack, ciphertext_bytes=options.bytes, now=int(time.time())
    )
    body = batch.cbor() if options.form == "cbor" else batch.ndjson()
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": MEDIA[options.form],
        "Content-Length": str(len(body)),
    }
    with Process(folder, url) as gateway:
        idle = peak_bytes(gateway.process.pid)
        server = http.client.HTTPConnection("127.0.0.1", urlsplit(gateway.url).port, timeout=600)
        begun = time.perf_counter()
        server.request("POST", "/v1/batches", body=pieces(body), headers=headers)
        status = server.getresponse().status
        took = time.perf_counter() - begun
        server.close()
        return {
            "status": status,
            "jobs": options.jobs,
            "body_mb": round(len(body) / 1e6, 1),
            "jobs_per_s": round(options.jobs / took),
            "mb_per_s": round(len(body) / took / 1e6, 1),
            "idle_mb": round(idle / 1e6),
            "peak_mb": round(peak_bytes(gateway.process.pid) / 1e6),
        }


def main() -> None:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--pack", type=int, default=32)
    parser.add_argument("--bytes", type=int, default=2048)
    parser.add_argument("--form", choices=list(MEDIA), default="cbor")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder / 'gateway.db'}"
        if options.postgres:
            url = stack.enter_context(postgres.running()).database()
        print(json.dumps(measure(url, folder, options)))


if __name__ == "__main__":
    main()
