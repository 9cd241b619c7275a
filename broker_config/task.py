"""The base of Celery tasks: no contents in logs, and no message lost to a passing failure."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.app.task import Task
from celery.worker import state
from celery.worker.request import Request
from kombu.transport.virtual.base import QoS

from ..wire.errors import Error

LOG: Final = logging.getLogger("ephemeralml.broker")
UNEXPECTED: Final = "UNEXPECTED"


class TaskFailed(Exception):
    """A task failed for good; its message is acknowledged. Holds a code and nothing else."""


class TaskUnfinished(Exception):
    """A task could not finish now; its message is delivered again. Holds a code and nothing else."""


class QuietRequest(Request):  # type: ignore[misc]
    """Leaves the message of an unfinished task unacknowledged, so that its lease runs out."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Acknowledge failures, leave unfinished ones (never Celery's ``reject``)."""
        exception = getattr(exc_info.exception, "exc", exc_info.exception)
        if not isinstance(exception, TaskUnfinished):
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            return
        state.task_ready(self)
        if not state.should_stop:
            # Free the prefetch slot without telling the broker. A stopping worker keeps it, and
            # kombu gives the message back at once when the channel closes.
            QoS.ack(self.message.channel.qos, self.message.delivery_tag)


class QuietTask(Task):  # type: ignore[misc]
    """A task of which logs see a code only: neither arguments, results, messages nor tracebacks."""

    Request = QuietRequest
    resultrepr_maxsize = 0
    throws = (TaskFailed, TaskUnfinished)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; whatever it raises becomes a code.

        :raises TaskUnfinished: for a retriable :class:`~ephemeralml.wire.errors.Error`.
        :raises TaskFailed: for everything else.
        """
        try:
            return super().__call__(*args, **kwargs)
        except Error as error:
            failure = TaskUnfinished(error.code) if error.retriable else TaskFailed(error.code)
        except Exception as error:
            failure = TaskFailed(f"{UNEXPECTED}:{type(error).__name__}")
        if isinstance(failure, TaskFailed):
            LOG.error("a message was given up: %s", failure.args[0])
        raise failure
