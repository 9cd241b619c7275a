"""Celery's monitoring events, reduced to what a broker sees anyway.

Off unless asked for. As Celery makes them they hold arguments, results, exceptions with
tracebacks, host names, process ids and exact run times. Here only events of a closed set are sent,
with fields of a closed set. Their content is JSON, which Flower reads; a worker itself accepts no JSON.
"""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

from .envelope import TASK_NAME

_WORKER: Final = frozenset({"freq", "active", "processed", "sw_ident", "sw_ver"})
#: Events that are sent, and what each may hold beside worker name, time and counter.
EVENTS: Final[dict[str, frozenset[str]]] = {
    "worker-online": _WORKER,
    "worker-heartbeat": _WORKER,
    "worker-offline": _WORKER,
    "task-received": frozenset({"uuid", "name", "retries"}),
    "task-started": frozenset({"uuid"}),
    "task-succeeded": frozenset({"uuid"}),
    "task-failed": frozenset({"uuid"}),
}


def fitting(kind: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return the fields that an event may hold, or None where the event is not sent."""
    names = EVENTS.get(kind)
    if names is None:
        return None
    found = {name: value for name, value in fields.items() if name in names}
    if "name" in found:
        found["name"] = TASK_NAME
    return found


class QuietDispatcher(EventDispatcher):  # type: ignore[misc]
    """Sends such events only, and never waits for a broker that is away."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pid = 0

    def send(self, type: str, blind: bool = False, retry: bool = False, **fields: Any) -> None:
        """Send an event, or drop it."""
        found = fitting(type, fields)
        if found is not None:
            super().send(type, blind=blind, **found)

    def publish(
        self, type: str, fields: dict[str, Any], producer: Any, blind: bool = False, **options: Any
    ) -> None:
        """Send an event by another producer, or drop it."""
        found = fitting(type, fields)
        if found is not None:
            super().publish(type, found, producer, blind=blind, **options)


class QuietEvents(Events):  # type: ignore[misc]
    """Makes an app use that dispatcher."""

    dispatcher_cls = QuietDispatcher


def send_events(app: Celery) -> dict[str, Any]:
    """Turn an app's events on, before its worker is made; return what the worker is made with."""
    app.events_cls = QuietEvents
    app.conf.update(event_serializer="json", worker_send_task_events=True)
    return {"task_events": True, "without_heartbeat": False}
