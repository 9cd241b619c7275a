"""One relay process: four loops side by side, each of which goes on after any fault."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ....attestation.policy_source import PolicySource
from ....attestation.verify import Endorsements
from ....broker_config.blobs import BlobStore, make_blob_store
from ....broker_config.health import depth
from ....broker_config.replies import PREFETCH, Delivery, ReplyQueue
from ....broker_config.settings import BrokerSettings
from ....broker_config.submit import Submitter
from ....wire.errors import Error
from ..store import Store, identity
from ..webhooks.courier import Courier
from ..webhooks.keys import Master
from ..webhooks.sender import Sender
from ..webhooks.settings import WebhookSettings
from .collect import Collector
from .dispatch import Dispatcher
from .drive import Driver
from .seal import Sealing
from .settings import RelaySettings
from .worker_keys import WorkerKeys

LOG: Final = logging.getLogger("ephemeralml.relay")
BACKOFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
RECEIVE_SECONDS: Final = 0.5
#: Waiting for more messages that can be stored with the first.
GATHER_SECONDS: Final = 0.003
AGAIN_SECONDS: Final = 1.0
#: The longest wait between two looks into the store where nothing happens.
IDLE_SECONDS: Final = 1.0


class Rest:
    """Waits between looks into the store: longer each time there is nothing, up to a second.

    :param stopping: ends every wait. :param poll_s: the first wait, in seconds.
    """

    def __init__(self, stopping: threading.Event, poll_s: float) -> None:
        self._stopping, self._poll_s = stopping, poll_s
        self._wait_s = poll_s

    def after(self, worked: object) -> None:
        """Wait where a look found nothing to do."""
        if worked:
            self._wait_s = self._poll_s
            return
        self._stopping.wait(self._wait_s)
        self._wait_s = max(self._poll_s, min(2 * self._wait_s, IDLE_SECONDS))


class Reconnecting:
    """Submits over one connection, which is made when needed and anew after a loss; for one thread."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._open: Submitter | None = None

    def submit(self, pool: str, message: bytes) -> None:
        """See :meth:`.dispatch.Submits.submit`.

        :raises DeliveryError: ``BROKER_UNREACHABLE``.
        """
        if self._open is None:
            self._open = Submitter(self._settings).__enter__()
        try:
            self._open.submit(pool, message)
        except Error:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.__exit__(None, None, None)


@dataclass
class Relay:
    """A relay on a store and a broker that runs.

    :param policy: judges workers' announcements, where there is one; :param endorsements: roots for that.
    :param master: signs webhooks; without it none are sent.
    """

    store: Store
    broker: BrokerSettings
    settings: RelaySettings
    webhooks: WebhookSettings
    master: Master | None
    policy: PolicySource | None = None
    endorsements: Endorsements | None = None
    now: Callable[[], float] = time.time
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.blobs: BlobStore = make_blob_store(self.broker)
        with self.store.reading() as connection:
            self._reply_to = identity.reply_to(connection)
        self.collector = Collector(self.store, self.blobs, self._keys(), self.now)
        self.courier = None if self.master is None else self._courier(self.master)
        self.dispatcher: Dispatcher | None = None
        self._looked = 0.0

    def run(self) -> None:
        """Work until :attr:`stopping` is set; what is in work then is finished."""
        loops = {"collect": self._collect, "dispatch": self._dispatch, "drive": self._drive}
        if self.courier is not None:
            loops["webhooks"] = partial(self._deliver, self.courier)
        threads = [
            threading.Thread(target=self._forever, args=(name, body), name=name)
            for name, body in loops.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.courier is not None:
            self.courier.close()

    def _forever(self, name: str, body: Callable[[], None]) -> None:
        """Run a loop that ends when the relay stops; begin it again after whatever broke it off."""
        faults = 0
        while not self.stopping.is_set():
            begun = time.monotonic()
            try:
                body()
            except Error as error:
                LOG.warning("%s: %s; tried again", name, error.code)
            except Exception as error:  # its text may hold anything
                LOG.error("%s: an unexpected %s; tried again", name, type(error).__name__)
            faults = 0 if time.monotonic() - begun > BACKOFF_SECONDS[-1] else faults + 1
            self.stopping.wait(BACKOFF_SECONDS[min(faults, len(BACKOFF_SECONDS) - 1)])

    def _keys(self) -> WorkerKeys:
        return WorkerKeys(self.blobs, self.policy, self.endorsements, self.now)

    def _courier(self, master: Master) -> Courier:
        web = self.webhooks
        sender = Sender(web.allow_loopback_http, web.attempt_timeout_s)
        return Courier(
            self.store,
            master,
            sender,
            web.workers,
            web.per_endpoint,
            web.keep_s,
            self.settings.lease_s,
            self.now,
        )

    def _collect(self) -> None:
        with ReplyQueue(self.broker, self._reply_to) as queue:
            while not self.stopping.is_set():
                found: list[Delivery] = []
                delivery = queue.receive(RECEIVE_SECONDS)
                while delivery is not None:
                    found.append(delivery)
                    delivery = queue.receive(GATHER_SECONDS) if len(found) < PREFETCH else None
                if found:
                    self.collector.take(found)

    def _dispatch(self) -> None:
        submitter = Reconnecting(self.broker)
        dispatcher = self.dispatcher = Dispatcher(
            self.store,
            self.blobs,
            submitter,
            partial(depth, self.broker),
            self.broker.inline_limit_bytes,
            self.settings.resubmit_leases * self.broker.visibility_timeout_s,
            self.settings.lease_s,
            self.now,
        )
        rest = Rest(self.stopping, self.settings.poll_s)
        try:
            while not self.stopping.is_set():
                worked = dispatcher.step()
                if not worked and time.monotonic() - self._looked > AGAIN_SECONDS:
                    self._looked = time.monotonic()
                    worked = dispatcher.again()
                rest.after(worked)
        finally:
            submitter.close()

    def _drive(self) -> None:
        submitter = Reconnecting(self.broker)
        patience, again = self.settings.seal_patience_s, self.settings.seal_again_s
        sealing = Sealing(self.store, self.blobs, submitter, self._keys(), patience, again)
        driver = Driver(
            self.store,
            self.blobs,
            submitter,
            sealing,
            self.broker.inline_limit_bytes,
            self.settings.expiry_grace_s,
            self.settings.lease_s,
            self.now,
        )
        rest = Rest(self.stopping, self.settings.poll_s)
        try:
            while not self.stopping.is_set():
                rest.after(driver.step())
        finally:
            submitter.close()

    def _deliver(self, courier: Courier) -> None:
        rest = Rest(self.stopping, self.settings.poll_s)
        while not self.stopping.is_set():
            rest.after(courier.step())
            courier.tidy()
