"""Forks commands of ``ephemeralml`` or a module's ``main``, which then need not import anything first.

Each line on standard input is a JSON object: ``arguments``, ``environment``, ``log`` and perhaps ``module``
start a command and print its process id; ``wait`` waits for one and prints its exit code, ``poll`` does the
same without waiting and prints :data:`RUNNING` for one that runs.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

#: No exit code.
RUNNING = 9999

PRELOADED = (
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "ephemeralml.attestation.key_release.boto",
    "ephemeralml.workers.app",
    "ephemeralml.workers.cli",
)


def start(job: dict[str, Any]) -> int:
    """Fork and run; return the child's process id."""
    child = os.fork()
    if child == 0:
        os.close(0)
        for number in (1, 2):
            os.dup2(os.open(job["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.argv = ["ephemeralml", *job["arguments"]]
        # Ends in sys.exit, as in a process of the user's.
        sys.exit(import_module(job.get("module", "ephemeralml.cli")).main())
    return child


if __name__ == "__main__":
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        elif "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if pid else RUNNING, flush=True)
        else:
            print(start(request), flush=True)
