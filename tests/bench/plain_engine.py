"""The same engine behind a plain Celery task; run by ``celery -A tests.bench.plain_engine worker``.

Celery as it comes: JSON, results in Redis. ``PLAIN_BROKER`` and ``PLAIN_BACKEND`` say where,
``PLAIN_THREADS`` how many threads the engine has.
"""

from __future__ import annotations

import base64
import os

from celery import Celery

from ephemeralml.workers.engines import EmbedRequest, load_engine

from .runner import files_of
from .workload import model_folder

app = Celery("plain", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BACKEND"])
app.conf.update(
    task_default_queue="plain",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
_ENGINES = (
    [load_engine("openvino", files_of(model_folder()[0]), threads=int(os.environ["PLAIN_THREADS"]))]
    if "PLAIN_THREADS" in os.environ
    else []
)


@app.task(name="plain.embed")  # type: ignore[untyped-decorator]
def embed(texts: list[str]) -> list[str]:
    """Return one vector for each text, in base64."""
    (result,) = _ENGINES[0].run([EmbedRequest(tuple(texts))])
    return [base64.b64encode(vector).decode() for vector in result.vectors]
