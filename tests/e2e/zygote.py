"""Runs commands in processes of their own that need not import anything first.

Each line on standard input is a JSON object: ``arguments``, ``environment``, ``folder``, ``max_file_bytes``.
For each, a fork runs ``ephemeralml``; its outputs go to files in the folder, and its exit code is printed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from importlib import import_module
from typing import Any


def run(job: dict[str, Any]) -> int:
    """Fork, run, and return the exit code."""
    child = os.fork()
    if child == 0:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(os.path.join(job["folder"], name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        if job["max_file_bytes"] is not None:  # what a full disk is to a process
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_file_bytes"],) * 2)
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.argv = ["ephemeralml", *job["arguments"]]
        from ephemeralml.cli import main

        main()  # ends in sys.exit, as in a process of the user's
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


PRELOADED = (
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "ephemeralml.attestation.key_release.boto",
    "ephemeralml.workers.app",
    "ephemeralml.workers.cli",
)

if __name__ == "__main__":
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)
