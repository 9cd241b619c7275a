"""Forks commands of ``ephemeralml``, which then need not import anything first.

Each line on standard input is a JSON object: ``arguments``, ``environment`` and ``log`` start a command and
print its process id; ``wait`` waits for one and prints its exit code.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

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
        from ephemeralml.cli import main

        main()  # ends in sys.exit, as in a process of the user's
    return child


if __name__ == "__main__":
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        else:
            print(start(request), flush=True)
