"""The client through a gateway: the same calls as on the queue, over HTTPS.

::

    from pathlib import Path
    from ephemeralml.attestation import endorsements_for, load_policy
    from ephemeralml.producer import read_inputs
    from ephemeralml.producer.remote import GatewayApi, GatewayClient

    policy = load_policy(Path("policy.json").read_bytes())
    with GatewayApi("https://gateway.example", key) as api:
        client = GatewayClient(api, policy, endorsements_for(policy))
        items = read_inputs(Path("inputs.jsonl"))
        with client.plan(client.trust_pool("minilm"), items, Path("my.ticket")) as ticket:
            client.push(ticket)
            for result in client.results(ticket, timeout_s=600):
                print(result.custom_id, result.status)

The gateway is not trusted: evidence, outcomes, receipts and the batch statement are verified here,
against what the ticket holds.
"""

from __future__ import annotations

from .api import BatchStatus, GatewayApi
from .async_client import AsyncGatewayClient
from .client import GatewayClient

__all__ = ["AsyncGatewayClient", "BatchStatus", "GatewayApi", "GatewayClient"]
