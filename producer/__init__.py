"""The client: trust, seal, submit, wait, open, verify.

With a broker that runs (``broker_running``), a trust policy and its roots::

    from pathlib import Path
    from ephemeralml.attestation import endorsements_for, load_policy
    from ephemeralml.broker_config import broker_running, broker_settings, make_blob_store
    from ephemeralml.producer import Client, InputItem

    policy = load_policy(Path("policy.json").read_bytes())
    with broker_running(broker_settings()) as broker:
        client = Client(broker, make_blob_store(broker), policy, endorsements_for(policy))
        fleet = client.trust_pool("minilm")
        items = [InputItem("1", ("A sentence.",))]
        with client.plan(fleet, items, Path("my.ticket")) as ticket:
            client.push(ticket)
            for result in client.results(ticket, timeout_s=60):
                print(result.custom_id, result.status, result.assurance)

A ticket that was cut short is continued with ``Ticket.load(path)``, ``push`` and ``results``.

>>> from ephemeralml.producer import InputItem
>>> InputItem("1", ("A sentence.",)).parameters
{}
"""

from __future__ import annotations

from .async_client import AsyncClient
from .client import Client
from .inputs import InputItem, read_inputs
from .judge import JobResult
from .session import Session
from .stream import Delta
from .ticket import Ticket
from .trust import VerifiedFleet, VerifiedWorker

__all__ = [
    "AsyncClient",
    "Client",
    "Delta",
    "InputItem",
    "JobResult",
    "Session",
    "Ticket",
    "VerifiedFleet",
    "VerifiedWorker",
    "read_inputs",
]
