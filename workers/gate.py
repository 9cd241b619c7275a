"""The gate: nothing is taken off the queue before the worker is attested and holds its keys.

A Celery bootstep between the broker connection and the task consumer. Boot runs in
a thread while the gate polls for shutdown, so that a gated worker still stops at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

POLL_SECONDS: Final = 0.05


class Gate(bootsteps.StartStopStep):  # type: ignore[misc]
    """Opens once :attr:`boot` has returned; raises ``SystemExit`` with its code when it fails."""

    requires = ("celery.worker.consumer.connection:Connection",)
    name = "Gate"
    boot: Callable[[], int]
    _opened = False

    def start(self, parent: Any) -> None:
        """Run boot; return when the consumer may start (called again after each reconnect)."""
        if type(self)._opened:
            return
        outcome: list[int | BaseException] = []

        def run() -> None:
            try:
                outcome.append(type(self).boot())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, name="boot", daemon=True)
        thread.start()
        while thread.is_alive():
            state.maybe_shutdown()
            thread.join(POLL_SECONDS)
        state.maybe_shutdown()
        code = outcome[0]
        if isinstance(code, BaseException):
            raise code
        if code:
            raise SystemExit(code)
        type(self)._opened = True


def install_gate(app: Celery, boot: Callable[[], int]) -> None:
    """Put a gate in front of the app's consumer.

    :param boot: obtains keys and model, announces; returns 0 to open the gate or an exit code.
    """
    gate = type("Gate", (Gate,), {"boot": staticmethod(boot), "_opened": False})
    Tasks.requires = (*(step for step in Tasks.requires if not _is_gate(step)), gate)
    app.steps["consumer"].add(gate)


def _is_gate(step: object) -> bool:
    return isinstance(step, type) and issubclass(step, Gate)
