"""Chaos: jobs run while workers, broker and host do harm; an auditor counts at the end.

Run by ``python -m tests.delivery.chaos [--broker NAME] [--seconds S] [--jobs N] [--seed N] [--out FILE]``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ephemeralml.producer.client import Client
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.errors import DeliveryError

from .auditor import Findings, audit
from .brokers import BROKERS
from .faults import Chaos
from .site import Site, laboratory, site

CLIENTS: Final = 2
#: With many kills a job may be in the hands of several workers that die: it must not be given up for that.
SETTINGS: Final = {"EPHEMERALML_WORKER_MAX_ATTEMPTS": "100"}
#: Seconds that a client waits after the last fault for what is still missing.
PATIENCE_S: Final = 120
#: Less than the KMS lets pass for an attestation document; it takes none from before its own start.
SKEW_S: Final = 20


@dataclass
class Report:
    """What was done and what came of it."""

    seed: int
    seconds: float
    faults: Counter[str]
    discarded: int
    findings: Findings

    def json(self) -> dict[str, object]:
        """Return it for machines."""
        found = {**vars(self.findings), "ends": dict(self.findings.ends)}
        return {**vars(self), "faults": dict(self.faults), "findings": found}

    def lines(self) -> str:
        """Return it for people."""
        found = self.findings
        rows = [f"  {name:<34}{count:>5}" for name, count in sorted(self.faults.items())]
        head = f"jobs {found.jobs}, faults {self.faults.total()}, lost {found.lost}, double {found.double}, "
        head += f"unsound {found.unsound}, wrong {found.wrong}, leaks {len(found.leaks)} "
        ends = ", ".join(f"{name} {count}" for name, count in sorted(found.ends.items()))
        head = f"{head}(seed {self.seed}, {self.seconds:.0f} s)"
        return "\n".join([head, f"ends: {ends}", f"replies refused: {self.discarded}", *rows])


class Customer(threading.Thread):
    """A client that seals tickets one after another until told to stop, and waits for all of them."""

    def __init__(self, place: Site, number: int, jobs: int, stop: threading.Event) -> None:
        super().__init__(name=f"customer-{number}", daemon=True)
        self._place, self._number, self._jobs, self._over = place, number, jobs, stop
        self.tickets: list[Path] = []
        self.client: Client = place.client()
        self.failed: BaseException | None = None

    def run(self) -> None:
        """Submit and collect; try again whatever can be tried again."""
        try:
            while not self._over.is_set():
                self._one(f"chaos-{self._number}-{len(self.tickets)}")
        except BaseException as error:
            self.failed = error

    def _one(self, name: str) -> None:
        ticket = self._patiently(lambda: self._place.plan(self.client, name, self._jobs))
        self.tickets.append(self._place.folder / f"{name}.ticket")
        deadline = time.monotonic() + PATIENCE_S
        with ticket:
            while ticket.missing:
                try:
                    self.client.push(ticket)
                    for _ in self.client.results(ticket, 5):
                        deadline = time.monotonic() + PATIENCE_S
                except DeliveryError:
                    time.sleep(0.2)
                if time.monotonic() > deadline:
                    return  # the auditor will count what is missing

    def _patiently(self, act: object) -> Ticket:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return act()  # type: ignore[operator,no-any-return]
            except DeliveryError:
                assert time.monotonic() < deadline
                time.sleep(0.2)


def run(place: Site, *, seconds: float, jobs: int, seed: int, outage_s: float) -> Report:
    """Let jobs run and harm be done for ``seconds``, then calm down, wait, and audit."""
    rng = random.Random(seed)  # noqa: S311 - what harm is done need not be unguessable
    chaos = Chaos(place, rng, outage_s)
    chaos.start_fleet()
    chaos.fleet[0].ready()
    chaos.skewed(SKEW_S)
    stop = threading.Event()
    customers = [Customer(place, number, jobs, stop) for number in range(CLIENTS)]
    for customer in customers:
        customer.start()
    began = time.monotonic()
    names = list(chaos.faults())
    turn: list[str] = []
    while time.monotonic() - began < seconds:
        turn = turn or rng.sample(names, len(names))  # every fault comes before one comes again
        chaos.inject(turn.pop())
        time.sleep(rng.uniform(0, 0.5))
    stop.set()
    while any(customer.is_alive() for customer in customers):
        chaos.calm()
        time.sleep(0.1)
    for customer in customers:
        if customer.failed is not None:
            raise customer.failed
    tickets = [path for customer in customers for path in customer.tickets]
    seen = [place.folder.parent / "broker", *(worker.log for worker in place.nursery.workers)]
    findings = audit(place.client(), tickets, [path for path in seen if path.exists()], int(time.time()))
    discarded = sum(customer.client.discarded for customer in customers)
    return Report(seed, time.monotonic() - began, chaos.injected, discarded, findings)


def main() -> int:
    """Run a long one and print its report."""
    parser = argparse.ArgumentParser(
        description="jobs under faults; ends with 1 when anything was lost or double"
    )
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--broker", choices=("redis", "sqs", "pubsub"), default="redis")
    parser.add_argument("--jobs", type=int, default=400, help="jobs in each ticket")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--outage", type=float, default=30, help="longest outage of the broker, seconds")
    parser.add_argument("--out", type=Path, default=None, help="write the report here, as JSON")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    with tempfile.TemporaryDirectory() as name, laboratory(Path(name)) as lab:
        folder = Path(name)
        with (
            BROKERS[options.broker](folder / "broker") as broker,
            site(lab, broker, folder / "site", **SETTINGS) as place,
        ):
            report = run(
                place, seconds=options.seconds, jobs=options.jobs, seed=seed, outage_s=options.outage
            )
    print(report.lines())
    if options.out is not None:
        options.out.write_text(json.dumps(report.json(), indent=2) + "\n")
    return 0 if report.findings.clean else 1


if __name__ == "__main__":
    sys.exit(main())
