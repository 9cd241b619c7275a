"""A large batch through gateway, relay, Redis and two workers, on this machine alone.

Run by ``python -m tests.bench.gateway [--jobs N] [--workers N]``. The engine computes nothing. Client,
gateway, relay, Redis and workers share the cores. Times begin with the upload's first byte: *completed* is
when the gateway says so, *verified* when the client has verified the last result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL
from ephemeralml.producer.remote import GatewayClient
from ephemeralml.producer.ticket import Ticket

from ..delivery.brokers import BROKERS, until
from ..delivery.site import laboratory
from ..remote.stand import Stand, stand

ROOT: Final = Path(__file__).resolve().parents[2]
TARGET_JOBS_S: Final = 2000
TARGET_MIB: Final = 300


def peak_mib(pid: int) -> float:
    """Return a process's peak resident memory in MiB (proc(5), status: VmHWM, KiB)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def measure(there: Stand, jobs: int) -> dict[str, float]:
    """Send one batch and return what it took, in seconds and MiB."""
    client = there.client()
    items = [InputItem(str(n), (f"sentence number {n}",)) for n in range(jobs)]
    fleet = client.trust_pool(POOL)
    found: dict[str, float] = {"jobs": jobs}
    began = time.perf_counter()
    with client.plan(fleet, items, there.site.folder / "bench.ticket", pack_jobs=32) as ticket:
        found["seal_s"] = time.perf_counter() - began
        watcher = threading.Thread(target=_watch, args=(there.client(), ticket, found), daemon=True)
        began = time.perf_counter()
        client.push(ticket)
        found["upload_s"] = time.perf_counter() - began
        found["began"] = began
        watcher.start()
        ended = {result.status for result in client.results(ticket, 120)}
        found["whole_s"] = time.perf_counter() - began
        watcher.join()
        assert ended == {"succeeded"}, ended
        assert not ticket.missing
    del found["began"]
    return found


def _watch(client: GatewayClient, ticket: Ticket, found: dict[str, float]) -> None:
    until(lambda: client.api.batch(client.name_of(ticket)).state == "completed", 600)
    found["completed_s"] = time.perf_counter() - found["began"]


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        laboratory(Path(name)) as lab,
        BROKERS["redis"](Path(name) / "broker") as broker,
        stand(lab, broker, Path(name) / "site") as there,
    ):
        for _ in range(options.workers):
            there.site.worker("--concurrency", "1").ready()
        found = measure(there, options.jobs)
        gateway, relay = (worker.pid for worker in there.site.nursery.workers[:2])
        found |= {"gateway_mib": peak_mib(gateway), "relay_mib": peak_mib(relay)}
    about = f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    jobs = found["jobs"]
    names = {"sealed": "seal_s", "uploaded": "upload_s", "completed": "completed_s", "verified": "whole_s"}
    for what, key in names.items():
        print(f"{what:<12}{found[key]:8.1f} s  {jobs / found[key]:8,.0f} jobs/s")
    print(f"targets: {TARGET_JOBS_S:,} jobs/s verified, gateway {TARGET_MIB} MiB at most")
    print(f"at most: gateway {found['gateway_mib']:.0f} MiB, relay {found['relay_mib']:.0f} MiB")
    print(f"{about}, {datetime.now(UTC):%Y-%m-%d}")
    results = ROOT / "bench-results"
    results.mkdir(exist_ok=True)
    (results / "gateway.json").write_text(json.dumps({"about": about, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
