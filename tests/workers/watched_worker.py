"""A worker with pulse and watchdog around a test's task, as a process; arguments: URL FOLDER AFTER SLOTS.

Each message that is answered becomes a line of FOLDER/out. ``sleep:N`` takes N seconds, the first ``hang``
stops the consumer's loop for good.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from ephemeralml.broker_config import broker_settings
from ephemeralml.broker_config.app import make_app
from ephemeralml.broker_config.envelope import TASK_NAME
from ephemeralml.broker_config.health import depth
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.workers.logs import configure_logging
from ephemeralml.workers.lookout import Lookout
from ephemeralml.workers.pulse import Pulse, install_pulse
from ephemeralml.workers.watchdog import Watchdog


def main() -> None:
    """Run until SIGTERM, or until the watchdog ends the process."""
    url, folder, after_s, slots = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    settings = broker_settings(broker_url=url)
    app, pulse, in_work = make_app(settings, pool="p"), Pulse(), [0]

    def take(message: bytes) -> None:
        pulse.delivery()
        in_work[0] += 1
        if message.startswith(b"sleep:"):
            time.sleep(float(message[6:]))
        if message == b"hang" and not (folder / "hung").exists():
            (folder / "hung").touch()
            worker.consumer.hub.call_soon(time.sleep, 3600)
        with (folder / "out").open("ab") as file:
            file.write(message + b"\n")
        in_work[0] -= 1

    app.task(name=TASK_NAME)(take)
    configure_logging("json")
    install_pulse(app, pulse)
    say = partial(print, flush=True)
    lookout = Lookout(
        pulse,
        lambda: depth(settings, "p"),
        lambda: in_work[0],
        slots,
        Watchdog(after_s, settings.max_lease_s, reconnect_s=6),
        period_s=after_s / 4,
        say=say,
        complain=say,
    )
    worker: Any = app.Worker(
        pool="threads",
        concurrency=slots,
        queues=[jobs_queue("p")],
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    lookout.start()
    worker.start()
