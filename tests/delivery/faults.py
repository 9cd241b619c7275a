"""Faults: each does one harm to a site, and says what it needs to be undone."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .brokers import until
from .host import HostGone
from .nursery import Worker
from .site import Site

#: Debian's package ``faketime``; a worker with a wrong clock is left out where it is missing.
FAKETIME: Final = [Path(path) for path in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",)]
#: Of a fleet of this size one worker is killed, stopped or paused at a time.
FLEET: Final = 3


@dataclass
class Chaos:
    """Does harm, one fault after another, and keeps the fleet at its size.

    :param outage_s: how long broker outages and pauses last at most, in seconds.
    """

    site: Site
    random: random.Random
    outage_s: float
    injected: Counter[str] = field(default_factory=Counter)
    fleet: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.site.broker.host is not None
        self.host = self.site.broker.host(self.random)
        self._paused: list[tuple[float, Worker]] = []

    def start_fleet(self) -> None:
        """Start the workers, one of them slow to take and one with two messages at once."""
        while len(self.fleet) < FLEET:
            self.fleet.append(self.site.worker("--concurrency", str(1 + len(self.fleet) % 2)))

    def faults(self) -> dict[str, Callable[[], None]]:
        """Return what can be done to this site, by name."""
        of_workers = {"kill a worker": self.kill, "stop a worker": self.stop, "pause a worker": self.pause}
        of_broker = {
            "kill the broker": lambda: self.outage(True),
            "stop the broker": lambda: self.outage(False),
        }
        of_host = {
            "copy jobs": lambda: self.copy("jobs."),
            "copy replies": lambda: self.copy("reply."),
            "turn jobs round": lambda: self.turn_round("jobs."),
            "turn replies round": lambda: self.turn_round("reply."),
            "hold jobs back": lambda: self.hold("jobs."),
            "hold replies back": lambda: self.hold("reply."),
            "break jobs": lambda: self.break_("jobs."),
            "break replies": lambda: self.break_("reply."),
            "drop jobs": lambda: self.drop("jobs."),
            "drop replies": lambda: self.drop("reply."),
            "move replies to another client": self.reroute,
            "write junk": self.junk,
            "fill the broker and blob store": self.fill,
        }
        return {**of_workers, **of_broker, **of_host}

    def inject(self, name: str) -> None:
        """Do one fault, and afterwards bring the fleet back to its size."""
        try:
            self.faults()[name]()
        except HostGone:
            return  # the host found no broker, or no queue, to do it to
        self.injected[name] += 1
        self.look_after()

    def look_after(self) -> None:
        """Wake what was paused long enough, replace what has ended."""
        now = time.monotonic()
        for due, worker in list(self._paused):
            if now >= due:
                worker.signal(signal.SIGCONT)
                self._paused.remove((due, worker))
        self.fleet = [worker for worker in self.fleet if worker.alive]
        self.start_fleet()

    def calm(self) -> None:
        """End every fault that lasts."""
        for _, worker in self._paused:
            worker.signal(signal.SIGCONT)
        self._paused.clear()
        self.look_after()

    # ------------------------------------------------------------------ workers

    def kill(self) -> None:
        """SIGKILL one worker."""
        self.random.choice(self.fleet).signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM one worker."""
        self.random.choice(self.fleet).signal(signal.SIGTERM)

    def pause(self) -> None:
        """Stop one worker's clockwork for longer than its lease."""
        worker = self.random.choice(self.fleet)
        worker.signal(signal.SIGSTOP)
        lease = self.site.broker.settings.visibility_timeout_s
        self._paused.append((time.monotonic() + lease * self.random.uniform(0.5, 1.5), worker))

    def skewed(self, seconds: int) -> None:
        """Start one worker more whose clock is wrong, where the library for it is installed.

        The library itself now and then hangs a process at its start: such a one is given up.
        """
        library = next((path for path in FAKETIME if path.exists()), None)
        if library is None:
            return
        faked = {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+d}s"}
        faked["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        worker = self.site.worker_of_its_own(**faked)
        try:
            worker.ready(15)
        except AssertionError:
            worker.signal(signal.SIGKILL)
            return
        self.injected["a worker's clock is wrong"] += 1

    # ------------------------------------------------------------------- broker

    def outage(self, hard: bool) -> None:
        """Take the broker away for a while; killed, it loses what it had not synced yet."""
        broker = self.site.broker
        assert broker.stop is not None
        assert broker.start is not None
        broker.stop(hard)
        time.sleep(self.random.uniform(0, self.outage_s))
        broker.start()

    def fill(self) -> None:
        """Let every write be refused for a while."""
        self.host.full(True)
        time.sleep(self.random.uniform(0.2, min(2.0, self.outage_s)))
        until(self._emptied)

    def _emptied(self) -> bool:
        try:
            self.host.full(False)
        except HostGone:
            return False
        return True

    # --------------------------------------------------------------------- host

    def copy(self, kind: str) -> None:
        """Deliver messages twice."""
        taken = self.host.take(kind, 4)
        self.host.put(taken + taken)

    def turn_round(self, kind: str) -> None:
        """Deliver the newest first."""
        self.host.put(self.host.take(kind, 50)[::-1])

    def hold(self, kind: str) -> None:
        """Deliver messages late."""
        taken = self.host.take(kind, 8)
        time.sleep(self.random.uniform(0.1, 1.0))
        self.host.put(taken)

    def break_(self, kind: str) -> None:
        """Change one character of messages."""
        self.host.put([(queue, self.host.broken(item)) for queue, item in self.host.take(kind, 3)])

    def drop(self, kind: str) -> None:
        """Lose messages."""
        self.host.take(kind, 3)

    def reroute(self) -> None:
        """Give the replies of one client to another."""
        queues = self.host.queues("reply.")
        taken = self.host.take("reply.", 6)
        if len(queues) > 1:
            taken = [(self.random.choice(queues), item) for _, item in taken]
        self.host.put(taken)

    def junk(self) -> None:
        """Write what is not a message."""
        noise = [b"", b"{}", b'{"body": 1}', b"[" * 5000, self.random.randbytes(200).hex().encode()]
        self.host.put(
            [(queue, self.random.choice(noise)) for queue in self.host.queues("jobs.") or ["jobs.minilm"]]
        )
