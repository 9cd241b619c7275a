"""What watches a worker, put together: pulse, numbers, status pages, watchdog, events.

What only watches is imported once the gate is open, or where a setting asks for it: a cold start waits for
none of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from celery import Celery

from .. import __version__
from ..broker_config.health import depth
from ..broker_config.settings import BrokerSettings
from ..broker_config.signs import SIGNS
from .boot import Boot
from .identity import WorkerIdentity
from .job_task import JobTask
from .metrics import Exposition, Reading, Tally
from .pulse import Pulse, install_pulse
from .settings import WorkerSettings

if TYPE_CHECKING:
    from .health import StatusServer
    from .lookout import Lookout

LOOKS: Final = 4
"""How often the watchdog looks while its patience lasts."""
STUCK_SECONDS: Final = 20.0
"""Without a turn of the consumer's loop for so long at least, a worker is not alive."""


class Instruments:
    """One worker's instruments.

    :param say: prints a line for the operator. :param complain: prints the line of a worker that must end.
    """

    def __init__(
        self, settings: WorkerSettings, say: Callable[[str], None], complain: Callable[[str], None]
    ) -> None:
        self._settings, self._say, self._complain = settings, say, complain
        self.pulse = Pulse()
        self.tally = Tally()
        self._boot: Boot | None = None
        self._task: JobTask | None = None
        self._stopping = False
        self._lookout: Lookout | None = None
        self._server: StatusServer | None = None

    def install(self, app: Celery) -> dict[str, Any]:
        """Put a pulse and, where wanted, events into an app; return what its worker is made with."""
        install_pulse(app, self.pulse)
        if not self._settings.events:
            return {"task_events": False, "without_heartbeat": True}
        from ..broker_config.events import send_events

        return send_events(app)

    def serve(self) -> None:
        """Begin to serve the status pages where a setting names an address.

        :raises ConfigurationError: ``STATUS_ADDRESS``.
        """
        if self._settings.status is not None:
            from .health import Pages, Standing, StatusServer

            checks = {
                "gate": lambda: self._boot is not None and not self._stopping,
                "key": lambda: self._boot is not None and self._boot.ring.current is not None,
                "announcement": lambda: self._boot is not None and self._boot.announced_until > time.time(),
                "broker": lambda: self.pulse.connected and self._broker_up,
            }
            page = Exposition(self.tally, lambda: list(self.readings())).page
            pages = Pages(
                Standing(self.pulse, max(2 * self._settings.watchdog_seconds, STUCK_SECONDS), checks), page
            )
            self._server = StatusServer(self._settings.status, pages)
            self._say(f"status pages on port {self._server.port}")

    def opened(self, boot: Boot, task: JobTask, broker: BrokerSettings) -> None:
        """Begin to watch: the gate opens now."""
        self._boot, self._task = boot, task
        if self._settings.watchdog_seconds or self._server is not None:
            threading.Thread(target=self._look_out, args=(task, broker), name="lookout", daemon=True).start()

    def _look_out(self, task: JobTask, broker: BrokerSettings) -> None:
        from .lookout import LOOK_SECONDS, Lookout
        from .watchdog import Watchdog

        patience = self._settings.watchdog_seconds
        self._lookout = Lookout(
            self.pulse,
            lambda: depth(broker, self._settings.pool),
            lambda: task.in_work,
            self._settings.concurrency,
            Watchdog(patience, broker.max_lease_s) if patience else None,
            period_s=min(LOOK_SECONDS, patience / LOOKS) if patience else LOOK_SECONDS,
            always=self._server is not None,
            say=self._say,
            complain=self._complain,
        )
        if not self._stopping:
            self._lookout.start()

    def stopping(self) -> None:
        """The worker takes no more messages: it is not ready, and nothing restarts its consumer."""
        self._stopping = True
        if self._lookout is not None:
            self._lookout.stop()

    def close(self) -> None:
        """The worker has stopped."""
        self.stopping()
        if self._server is not None:
            self._server.close()

    @property
    def _broker_up(self) -> bool:
        return self._lookout is not None and self._lookout.reachable

    # --------------------------------------------------------------- numbers

    def readings(self) -> Iterator[Reading]:
        """Yield what there is beside the tally."""
        yield from self._of_broker()
        yield from self._of_consumer()
        if self._boot is not None and self._task is not None:
            yield from _of_boot(self._boot)
            yield _info(self._boot.settings.platform, self._task.pipeline.identity)

    def _of_broker(self) -> Iterator[Reading]:
        yield _gauge("broker_up", "Whether the broker has answered lately", self._broker_up)
        last = None if self._lookout is None else self._lookout.last
        if last is not None:
            known = {"waiting": last.waiting, "in_flight": last.in_flight}
            values = [((state,), float(number)) for state, number in known.items() if number is not None]
            about = "Messages of the pool's queue, as the broker counts or estimates them"
            yield Reading("queue_messages", "gauge", about, values, ("state",))
        yield _counter("lease_extensions", "Leases that were extended", SIGNS.leases_extended)
        yield _counter("messages_dropped", "Messages not of this system's form", SIGNS.messages_dropped)

    def _of_consumer(self) -> Iterator[Reading]:
        pulse, now = self.pulse, time.monotonic()
        yield _gauge("consumer_connected", "Whether the consumer consumes", pulse.connected)
        yield _counter("consumer_starts", "How often the consumer was started", pulse.starts)
        yield _gauge(
            "consumer_turn_age_seconds", "Since the consumer's loop turned", round(now - pulse.turned)
        )
        yield _gauge("delivery_age_seconds", "Since a message came", round(now - pulse.delivered))
        watchdog = None if self._lookout is None else self._lookout.watchdog
        if watchdog is not None:
            values = [((symptom,), float(count)) for symptom, count in watchdog.restarts.items()]
            about = "Restarts of the consumer by the watchdog"
            yield Reading("watchdog_restarts", "counter", about, values, ("symptom",))


def _of_boot(boot: Boot) -> Iterator[Reading]:
    ring, current = boot.ring, boot.ring.current
    yield _gauge("fleet_keys_held", "Fleet keys in use", len(ring.births))
    if current is not None:
        yield _gauge("fleet_key_epoch", "Epoch of the announced fleet key", current.epoch)
        age = round(time.time() - current.created_at)
        yield _gauge("fleet_key_age_seconds", "Age of the announced fleet key", age)
    until = boot.announced_until
    yield _gauge("announcement_end_timestamp_seconds", "When the announcement expires, Unix time", until)
    stages = [((name,), round(seconds, 3)) for name, seconds in boot.stages.seconds.items()]
    yield Reading("boot_seconds", "gauge", "Time of the boot's stages", stages, ("stage",))
    yield _counter("engine_passes", "Calls of the engine, each for one batch", boot.runner.passes)


def _info(platform: str, identity: WorkerIdentity) -> Reading:
    """Who the worker is: all of it stands in its announcement, which is public."""
    labels = {
        "version": __version__,
        "pool": identity.pool,
        "platform": platform,
        "mode": identity.security_mode,
        "backend": identity.engine.backend,
        "precision": identity.engine.precision,
        "model": identity.model.manifest_hash.hex(),
        "measurement": identity.measurements.values["pcr0"].hex(),
    }
    return Reading(
        "worker_info", "gauge", "Who the worker is", [(tuple(labels.values()), 1.0)], tuple(labels)
    )


def _gauge(name: str, about: str, value: float) -> Reading:
    return Reading(name, "gauge", about, [((), float(value))])


def _counter(name: str, about: str, value: float) -> Reading:
    return Reading(name, "counter", about, [((), float(value))])
