"""The plain Celery task that sealed jobs are measured beside; run by ``celery -A tests.bench.plain worker``.

Celery as it comes: JSON, results in the broker's usual backend. ``PLAIN_BROKER``, ``PLAIN_BACKEND`` and
``PLAIN_OPTIONS`` (JSON) say where.
"""

from __future__ import annotations

import json
import os

from celery import Celery

app = Celery("plain", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BACKEND"])
app.conf.update(
    broker_transport_options=json.loads(os.environ.get("PLAIN_OPTIONS", "{}")),
    task_default_queue="plain",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    **json.loads(os.environ.get("PLAIN_CONFIG", "{}")),
)


@app.task(name="plain.echo")  # type: ignore[untyped-decorator]
def echo(payload: str) -> str:
    """Return what came."""
    return payload
