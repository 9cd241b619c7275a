"""``queues``: the broker's queues, and who needs which rights on them."""

from __future__ import annotations

import json
from typing import Annotated, Final

import typer

from ...broker_config.carriers import carrier_of
from ...broker_config.health import depth
from ...broker_config.profiles import broker_running
from ...broker_config.queues import jobs_queue
from ...wire.errors import ConfigurationError
from .common import ERR, OUT, BrokerOption, StateOption, one_line_errors, read_settings

app = typer.Typer(
    help="The broker's queues: make them, look at them, say who needs which rights. The broker is that of "
    "EPHEMERALML_PROFILE (embedded, redis, sqs, pubsub) and its settings.",
    no_args_is_help=True,
)
PoolsOption = Annotated[list[str], typer.Option("--pool", help="Pool of workers; give it again for more.")]
ROLES: Final = ("worker", "client", "relay", "operator")
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("create")
def create(pool: PoolsOption, broker: BrokerOption = None, state_dir: StateOption = None) -> None:
    """Make the queues of pools, or bring them to the settings.

    Workers make no queue: where the broker needs them made (SQS, Pub/Sub), run this once per pool, with an
    operator's rights, before the first worker starts, and again after a change of settings. What is
    there stays with what is in it.
    """
    with one_line_errors():
        settings = read_settings(broker, state_dir)
        for line in carrier_of(settings).create(settings, pool):
            OUT.print(line, soft_wrap=True, markup=False)


@app.command("show")
def show(
    pool: PoolsOption, as_json: JsonOption = False, broker: BrokerOption = None, state_dir: StateOption = None
) -> None:
    """Say how many messages wait in pools' queues, and how many are in work.

    A message holds up to 32 jobs or more. SQS estimates; Pub/Sub does not say.
    """
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        for one in pool:
            full = depth(settings, one)
            row = {"pool": one, "waiting": full.waiting, "in_flight": full.in_flight, "exact": full.exact}
            if as_json:
                print(json.dumps(row))
                continue
            about = "" if full.exact else "about "
            waiting, in_flight = (
                "unknown" if number is None else f"{about}{number}"
                for number in (full.waiting, full.in_flight)
            )
            OUT.print(f"{jobs_queue(one)}: waiting {waiting}, in work {in_flight}", soft_wrap=True)


@app.command("policy")
def policy(
    role: Annotated[str, typer.Argument(help="worker, client, relay or operator.")],
    pool: Annotated[str | None, typer.Option("--pool", help="Pool to put where POOL stands.")] = None,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Print the least rights that a role needs, in the broker's own language.

    An IAM policy for SQS, gcloud commands for Pub/Sub, an ACL rule for Redis. Words in capitals (POOL,
    ACCOUNT, PASSWORD) are for you to fill in. It asks the broker for nothing and changes nothing.
    """
    with one_line_errors():
        if role not in ROLES:
            raise ConfigurationError("UNKNOWN_ROLE", f"the roles are {', '.join(ROLES)}")
        settings = read_settings(broker, state_dir)
        text = carrier_of(settings).rights(settings, role)
        if pool is not None:
            jobs_queue(pool)
            text = text.replace("POOL", pool)
    print(text)
    if pool is None and "POOL" in text:
        ERR.print("POOL stands for a pool's name; --pool NAME fills it in", soft_wrap=True)
