"""A worker with a test's task, as a process; its argument is OUT, its broker is in the environment.

Each message that is answered is appended to OUT, one line each: how often it was delivered, and its
hexadecimal. ``slow:SECONDS:`` works for a while first, ``later:`` fails in passing at the first delivery,
``die:`` kills the process at the first delivery, ``fail:`` raises an error that holds the message.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ephemeralml.broker_config import broker_settings
from ephemeralml.broker_config.app import make_app
from ephemeralml.broker_config.envelope import DELIVERIES, TASK_NAME
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.wire.errors import DeliveryError


def main(out: Path) -> int:
    """Run until SIGTERM."""
    app = make_app(broker_settings(), pool="p")

    def handle(task: Any, message: bytes) -> None:
        deliveries = task.request.get(DELIVERIES)
        with out.with_suffix(".started").open("a") as file:
            file.write(f"{deliveries} {message.hex()}\n")
        if message.startswith(b"fail:"):
            raise ValueError(message)
        if message.startswith(b"slow:"):
            time.sleep(float(message.split(b":")[1]))
        if message.startswith(b"later:") and deliveries == 1:
            raise DeliveryError("NOT_NOW", "a passing failure")
        if message.startswith(b"die:") and deliveries == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with out.open("a") as file:
            file.write(f"{deliveries} {message.hex()}\n")

    app.task(name=TASK_NAME, bind=True)(handle)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    worker = app.Worker(
        pool="threads",
        concurrency=int(os.environ.get("CONCURRENCY", "1")),
        queues=[jobs_queue("p")],
        loglevel="DEBUG",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
