"""Direct submission: one Celery message per pack, without the headers that leak."""

from __future__ import annotations

import uuid
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from kombu.exceptions import OperationalError

from .app import job_queue, make_app
from .carriers import carrier_of, unusable
from .envelope import TASK_NAME
from .settings import BrokerSettings

__all__ = ["TASK_NAME", "Submitter"]

#: Publishing is tried again within about three seconds, then the caller is told.
RETRY: Final = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.4, "interval_max": 1.0}


class Submitter:
    """Publishes messages to pools; a context manager that holds one connection. For one thread."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._app = make_app(settings)
        self._carrier = carrier_of(settings)
        self._lost: tuple[type[BaseException], ...] = (OperationalError, *self._carrier.lost)
        self._producer: Any = None
        self._timeout = settings.connect_timeout_s

    def __enter__(self) -> Self:
        self._connection = self._app.connection_for_write()
        try:
            self._connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=self._timeout)
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        except self._lost as error:
            self._close()
            raise unusable(self._carrier, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        with suppress(*self._lost):
            self._connection.release()
        self._app.close()

    def submit(self, pool: str, message: bytes) -> None:
        """Publish one message; it is with the broker when this returns.

        :raises DeliveryError: ``BROKER_UNREACHABLE``: it may or may not have arrived, submit it again;
            ``BROKER_DENIED``: this user may not.
        :raises MalformedError: ``BAD_POOL``.
        """
        queue = job_queue(pool)
        amqp = self._app.amqp
        # as_task_v2 is what send_task calls; it alone takes all three fields that would leak.
        task = amqp.as_task_v2(
            uuid.uuid4().hex,
            TASK_NAME,
            args=(message,),
            ignore_result=True,
            argsrepr="-",
            kwargsrepr="-",
            origin="-",
        )
        try:
            amqp.send_task_message(
                self._producer, TASK_NAME, task, queue=queue, retry=True, retry_policy=RETRY
            )
        except self._lost as error:
            raise unusable(self._carrier, error) from None
