"""``relay``: carries sealed batches between the gateway's store, the queue and webhooks."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ...attestation.policy_source import PolicySource
from ...broker_config.settings import BrokerSettings
from .common import (
    ERR,
    BrokerOption,
    PolicyRootOption,
    StateOption,
    one_line_errors,
    policy_source,
    read_settings,
)
from .gateway import StoreOption, _extra


def relay(
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            envvar="EPHEMERALML_RELAY_POLICY",
            help="Trust policy: replies of workers that it does not want are refused before they are stored.",
        ),
    ] = None,
    policy_root: PolicyRootOption = None,
    store: StoreOption = None,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Relay batches until SIGTERM: submit, collect, seal, end, send webhooks. Untrusted: it holds no key.

    Run as many as you like on one store; each may be killed at any point. Settings come from
    `EPHEMERALML_RELAY_*` and `EPHEMERALML_WEBHOOK_*`.
    """
    with one_line_errors(), _extra():
        source = None if policy is None else policy_source(policy, policy_root)
        _run(read_settings(broker, state_dir), store, source)


def _run(settings: BrokerSettings, store_url: str | None, policy: PolicySource | None) -> None:
    from ...attestation.verify import endorsements_for
    from ...broker_config.profiles import broker_running
    from ..gateway.relay.service import Relay
    from ..gateway.relay.settings import relay_settings
    from ..gateway.serve import log_to_stderr, open_store
    from ..gateway.settings import gateway_settings
    from ..gateway.webhooks.settings import webhook_settings

    log_to_stderr()
    opened = open_store(gateway_settings(store_url=store_url), settings)
    webhooks = webhook_settings()
    master = webhooks.master(settings.state_dir, shared=not opened.is_sqlite)
    roots = None if policy is None else endorsements_for(policy.current(time.time()))
    with broker_running(settings) as running:
        found = Relay(opened, running, relay_settings(), webhooks, master, policy, roots)

        def stop(_: int, __: FrameType | None) -> None:
            found.stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        judged = "by the trust policy" if policy else "by their announcements' word: see --policy"
        sent = "webhooks on" if master else "webhooks off: EPHEMERALML_WEBHOOK_MASTER_SECRET is not set"
        ERR.print(f"ready: relay; workers judged {judged}; {sent}", soft_wrap=True)
        found.run()
    opened.close()
    ERR.print("stopped: what was in work is finished")
