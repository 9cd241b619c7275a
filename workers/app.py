"""A worker as a process: Celery app, gate, task, drain."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from celery.signals import worker_shutdown, worker_shutting_down
from celery.worker import state

from ..broker_config.app import make_app
from ..broker_config.blobs import make_blob_store
from ..broker_config.envelope import DELIVERIES, TASK_NAME
from ..broker_config.health import depth
from ..broker_config.profiles import broker_running
from ..broker_config.queues import jobs_queue
from ..broker_config.replies import ReplyPublisher
from ..broker_config.settings import BrokerSettings
from ..wire.errors import Error, KeyReleaseError
from ..wire.exit_codes import MISUSE, exit_code
from .ahead import Ahead
from .boot import SETTLE_SECONDS, Boot
from .cancel import Cancellations
from .drain import Drain
from .engines import import_engine
from .gate import install_gate
from .identity import WorkerIdentity
from .instruments import Instruments
from .job_task import JobTask
from .pipeline import Pipeline
from .policy import PolicyWatch
from .seal_batch import SealBatch
from .settings import WorkerSettings
from .stages import seconds_since_process_start
from .streaming import ChunkStreams
from .tending import Tending

DENIED_RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass
class Worker:
    """One worker process.

    :param drain: leave with status 0 once the queue has stayed empty.
    :param say: prints the worker's own lines (boot, ready, why it stopped). :param complain: prints the one
        line of a boot that failed.
    """

    settings: WorkerSettings
    broker: BrokerSettings
    drain: bool = False
    say: Callable[[str], None] = lambda line: print(line, flush=True)
    complain: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def run(self) -> int:
        """Boot behind the gate, answer packs until told to stop; return the exit code."""
        self._task: JobTask | None = None
        self._boot_done: Boot | None = None
        self._instruments = Instruments(self.settings, self.say, self.complain)
        self._stopping = threading.Event()
        # Libraries of the engine, the boot itself and Celery's start are on their way at once.
        engine = Ahead(partial(import_engine, self.settings.backend), "engine")
        with broker_running(self.broker) as broker:
            self.broker = broker
            self._instruments.serve()
            boot = Ahead(self._boot, "boot")
            app = make_app(broker, pool=self.settings.pool)

            # Celery binds functions only: a method of ours would not be given the task.
            def take(task: Any, message: bytes) -> None:
                self._handle(message, task.request.get(DELIVERIES) or 1)

            app.task(name=TASK_NAME, bind=True)(take)
            install_gate(app, boot.result)
            watched = self._instruments.install(app)
            worker_shutting_down.connect(self._on_stopping, weak=False)
            worker_shutdown.connect(self._on_stopped, weak=False)
            worker = app.Worker(
                pool="threads",
                concurrency=self.settings.concurrency,
                queues=[jobs_queue(self.settings.pool)],
                loglevel="WARNING",
                quiet=True,
                without_gossip=True,
                without_mingle=True,
                optimization="fair",
                hostname=f"worker-{os.urandom(8).hex()}@ephemeralml",
                **watched,
            )
            try:
                worker.start()
            except SystemExit as stop:
                engine.settle(SETTLE_SECONDS)
                return stop.code if isinstance(stop.code, int) else 1
            return int(worker.exitcode or 0)

    def _handle(self, message: bytes, deliveries: int) -> None:
        assert self._task is not None  # noqa: S101 - the gate opens after boot
        self._instruments.pulse.delivery()
        self._task(message, deliveries)

    def _boot(self) -> int:
        attempt = 0
        while True:
            boot = Boot(self.settings, make_blob_store(self.broker), say=self.say)
            try:
                self._open(boot, boot.run())
                return 0
            except Error as error:
                denied = isinstance(error, KeyReleaseError)
                if not denied or self.settings.on_denied == "exit":
                    self.complain(f"error {error}; nothing was taken off the queue")
                    return exit_code(error)
                delay = DENIED_RETRY_SECONDS[min(attempt, len(DENIED_RETRY_SECONDS) - 1)]
                self.say(f"key release refused: {error}; nothing taken off the queue, again in {delay:.0f} s")
                gc.enable()
            except Exception as error:  # its text may hold anything
                name = type(error).__name__
                self.complain(f"error BOOT_FAILED: an unexpected {name}; nothing was taken off the queue")
                return MISUSE
            attempt += 1
            if self._stopping.wait(delay):
                return 0

    def _open(self, boot: Boot, identity: WorkerIdentity) -> None:
        gc.freeze()  # what boot has made stays; later collections need not look at it
        gc.enable()
        meter = self._instruments.tally
        pipeline = Pipeline(identity, boot.opener, boot.runner, time.time, time.monotonic, boot.ring, meter)
        self._publisher = ReplyPublisher(self.broker)
        every = self.settings.stream_interval_seconds
        self._chunks = ChunkStreams(self._publisher.publish, monotonic=time.monotonic, interval_s=every)
        pipeline.chunks = self._chunks
        pipeline.cancelled = Cancellations(boot.blobs, self.settings.pool, time.monotonic)
        publish, limit = self._publisher.publish, self.broker.inline_limit_bytes
        seal = SealBatch(lambda: pipeline.identity, boot.blobs, boot.evidence_keys(), time.time)
        watch = PolicyWatch(boot.reconsider, partial(setattr, pipeline, "identity"), self._end, self.say)
        attempts = self.settings.max_attempts
        task = JobTask(pipeline, boot.blobs, publish, limit, self._stopping, seal, watch.admit, attempts)
        task.reply_ttl, task.max_payload = self.broker.reply_ttl_s, self.settings.max_payload_bytes
        self._boot_done, self._task = boot, task
        half = self.settings.announcement_seconds / 2
        tending = Tending(boot, watch.step, half, self.settings.key_poll_seconds, self.say)
        threading.Thread(target=tending.run, args=(self._stopping,), name="renew", daemon=True).start()
        threading.Thread(target=watch.watch, args=(self._stopping,), name="policy", daemon=True).start()
        if self.drain:
            waiting = partial(depth, self.broker, self.settings.pool)
            Drain(waiting, lambda: task.in_work, self.settings.drain_idle_seconds).start()
        self._instruments.opened(boot, task, self.broker)
        self.say(
            f"ready: pool {identity.pool} worker {identity.worker_id.hex()} model {identity.model.id} "
            f"engine {identity.engine.backend}/{identity.engine.precision} mode {identity.security_mode} "
            f"| {boot.stages}, gate open {_age()}"
        )

    def _end(self, code: int) -> None:
        """Ask Celery for a warm shutdown: what is in work is finished, published and acknowledged."""
        state.should_stop = code

    def _on_stopping(self, **_: Any) -> None:
        self._instruments.stopping()
        self.say("stopping: no new messages are taken; finishing what is in work")
        grace = threading.Timer(self.settings.grace_seconds, self._stopping.set)
        grace.daemon = True
        grace.start()

    def _on_stopped(self, **_: Any) -> None:
        self._stopping.set()
        self._instruments.close()
        if self._boot_done is not None:
            self._chunks.close()
            self._boot_done.runner.close()
            self._publisher.close()
        if self._task is not None:
            self._task.pipeline.forget()
        self.say("stopped: keys dropped")


def _age() -> str:
    age = seconds_since_process_start()
    return "" if age is None else f"{age:.2f}s after process start"
