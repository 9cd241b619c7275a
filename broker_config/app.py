"""The Celery app, with everything turned off that leaks contents or loses messages."""

from __future__ import annotations

import logging

from celery import Celery
from kombu import Exchange, Queue

from .carriers import carrier_of
from .envelope import TASK_NAME
from .queues import jobs_queue
from .serializer import CONTENT_TYPE, NAME, register_cbor
from .settings import BrokerSettings
from .task import QuietTask

__all__ = ["TASK_NAME", "job_queue", "make_app"]


def job_queue(pool: str) -> Queue:
    """Return the declaration of a pool's queue."""
    name = jobs_queue(pool)
    return Queue(name, Exchange(""), routing_key=name, no_declare=True)  # queues are made by operators


def make_app(settings: BrokerSettings, *, pool: str | None = None) -> Celery:
    """Return a Celery app for a running broker.

    :param pool: the pool whose queue the app consumes, or None for a producer.
    :raises MalformedError: ``BAD_POOL``. :raises ConfigurationError: ``EXTRA_MISSING``.
    """
    register_cbor()
    queues = [] if pool is None else [job_queue(pool)]
    lease = "none" if pool is None else jobs_queue(pool)
    carrier = carrier_of(settings)
    app = Celery("ephemeralml", task_cls=QuietTask, amqp=carrier.amqp, set_as_current=False)
    app.conf.update(
        **carrier.celery_options(settings, lease=lease),
        broker_connection_timeout=settings.connect_timeout_s,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        result_backend="disabled://",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer=NAME,
        result_serializer=NAME,
        event_serializer=NAME,
        accept_content=[CONTENT_TYPE],
        result_accept_content=[CONTENT_TYPE],
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=False,
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_queues=queues,
    )
    if pool is not None:
        _remove_builtin_tasks(app)
        # Its debug lines show a task's arguments.
        logging.getLogger("celery.pool").setLevel(logging.INFO)
    return app


def _remove_builtin_tasks(app: Celery) -> None:
    """Forget Celery's own tasks (``celery.map`` and others): a host must not call them in a TEE."""
    app.finalize()
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        del app.tasks[name]
