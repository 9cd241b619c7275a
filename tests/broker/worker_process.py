"""A worker with a test's task, as a process; its arguments are URL POOL VISIBILITY OUT.

Each message that is answered is appended to OUT, one line of hexadecimal each. ``fail:``
raises an error that holds the message, ``later:`` a passing one at the first delivery,
``die:`` kills the process at the first delivery.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from ephemeralml.broker_config import broker_settings
from ephemeralml.broker_config.app import make_app
from ephemeralml.broker_config.envelope import TASK_NAME
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.wire.errors import DeliveryError


def main(url: str, pool: str, visibility: str, out: Path) -> None:
    """Run until SIGTERM."""
    os.environ["EPHEMERALML_VISIBILITY_TIMEOUT_S"] = visibility
    app = make_app(broker_settings(broker_url=url), pool=pool)
    seen = out.with_suffix(".seen")

    def first_time(message: bytes) -> bool:
        known = seen.read_text().split() if seen.exists() else []
        with seen.open("a") as file:
            file.write(message.hex() + "\n")
        return message.hex() not in known

    def handle(message: bytes) -> str:
        first = first_time(message)
        if message.startswith(b"fail:"):
            raise ValueError(message)
        if message.startswith(b"later:") and first:
            raise DeliveryError("NOT_NOW", "a passing failure")
        if message.startswith(b"die:") and first:
            os.kill(os.getpid(), signal.SIGKILL)
        with out.open("a") as file:
            file.write(message.hex() + "\n")
        return message.decode()

    app.task(name=TASK_NAME)(handle)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=[jobs_queue(pool)],
        loglevel="DEBUG",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
