"""``submit`` and ``results``."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...attestation.policy import load_policy
from ...attestation.policy_source import PolicySource, StaticPolicy
from ...broker_config.profiles import broker_running
from ...wire.errors import ConfigurationError, MalformedError
from ...wire.exit_codes import JOBS_FAILED, TIMED_OUT
from ...wire.job import Task
from ..client import Client
from ..inputs import read_inputs
from ..judge import JobResult
from ..outputs import write_results
from ..ticket import Ticket, TicketHead
from .common import (
    ERR,
    OUT,
    BrokerOption,
    PolicyOption,
    PolicyRootOption,
    StateOption,
    make_client,
    one_line_errors,
    policy_source,
    progress_bar,
    read_settings,
)

OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Results file (JSON lines); default FILE.results.jsonl.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Give up after this many seconds without news; resumable.")
]


def submit(
    file: Annotated[Path, typer.Argument(help="Inputs: JSON lines (.jsonl) or one text per line.")],
    pool: Annotated[str, typer.Option("--pool", help="Pool of workers to use.")],
    policy: PolicyOption,
    policy_root: PolicyRootOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the results.")] = False,
    ticket: Annotated[
        Path | None, typer.Option("--ticket", help="Ticket file to create; default FILE.ticket.")
    ] = None,
    out: OutOption = None,
    lifetime: Annotated[
        int, typer.Option("--lifetime", help="Seconds until workers refuse the jobs.")
    ] = 3600,
    pack: Annotated[int, typer.Option("--pack", min=1, max=1024, help="Jobs per message.")] = 32,
    timeout: TimeoutOption = 120.0,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Seal a file of inputs to the attested workers of a pool and submit them.

    The ticket is everything you need to fetch and open the results later, also after a
    crash: keep it secret, and use `ephemeralml results TICKET`.
    """
    with one_line_errors():
        items = read_inputs(file)
        path = ticket or file.with_name(file.name + ".ticket")
        settings = read_settings(broker, state_dir)
        with broker_running(settings) as running:
            client = make_client(running, policy_source(policy, policy_root))
            fleet = client.trust_pool(pool)
            # A pool has one model, so its workers have one task; where they have both, texts are embedded.
            tasks = {task for worker in fleet.workers.values() for task in worker.body.tasks}
            task: Task = "embed" if "embed" in tasks else "generate"
            with client.plan(fleet, items, path, task=task, lifetime_s=lifetime, pack_jobs=pack) as opened:
                _push(client, opened)
                ERR.print(
                    f"submitted {len(items)} job(s) to {pool}: {len(fleet.workers)} trusted worker(s), "
                    f"model {fleet.model.id}; ticket {escape(str(path))}",
                    soft_wrap=True,
                )
                if wait:
                    _finish(client, opened, out or file.with_name(file.name + ".results.jsonl"), timeout)
                else:
                    ERR.print(f"next: ephemeralml results {escape(str(path))}", soft_wrap=True)


def results(
    ticket: Annotated[Path, typer.Argument(help="Ticket file that `submit` made.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            envvar="EPHEMERALML_POLICY",
            help="Trust policy that judges the results; by default the ticket's, unless that was signed.",
        ),
    ] = None,
    policy_root: PolicyRootOption = None,
    out: OutOption = None,
    timeout: TimeoutOption = 120.0,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Continue a ticket: submit what was not submitted yet, then fetch, open and verify the results."""
    with (
        one_line_errors(),
        broker_running(read_settings(broker, state_dir)) as running,
        Ticket.load(ticket) as opened,
    ):
        client = make_client(running, judging(opened.head, policy, policy_root))
        _push(client, opened)
        _finish(client, opened, out or ticket.with_name(ticket.name + ".results.jsonl"), timeout)


def judging(head: TicketHead, policy: Path | None, policy_root: str | None) -> PolicySource:
    """Return the policy in force; the ticket's own copy only where there never was a signed one."""
    if policy is not None:
        source = policy_source(policy, policy_root)
        if head.signed_policy and not source.in_force(time.time()).signed:
            raise ConfigurationError(
                "POLICY_NOT_SIGNED", "the ticket was made under a signed policy, and this one is not signed"
            )
        return source
    if head.signed_policy:
        raise ConfigurationError(
            "POLICY_NEEDED", "the ticket was made under a signed policy: name the one in force with --policy"
        )
    return StaticPolicy(load_policy(head.policy.encode()))


def _push(client: Client, ticket: Ticket) -> None:
    if not ticket.pending_packs:
        return
    with progress_bar() as bar:
        task = bar.add_task("submitting", total=len(ticket.pending_packs))
        client.push(ticket, lambda left: bar.update(task, completed=bar.tasks[task].total - left))  # type: ignore[operator]


def collect(client: Client, ticket: Ticket, timeout: float) -> list[JobResult]:
    """Collect verified results under a progress bar, in the order of the inputs."""
    found: dict[str, JobResult] = {}
    with progress_bar() as bar:
        task = bar.add_task("results", total=len(ticket.jobs))
        for result in client.results(ticket, timeout):
            found[result.job_id.hex()] = result
            bar.advance(task)
    return [found[job_id] for job_id in ticket.jobs if job_id in found]


def _finish(client: Client, ticket: Ticket, out: Path, timeout: float) -> None:
    if not ticket.jobs:
        raise MalformedError("TICKET_EMPTY", "the ticket holds no jobs: the submission never began")
    found = collect(client, ticket, timeout)
    evidence = {result.worker.bundle.evidence for result in found if result.worker is not None}
    proofs = write_results(out, found, evidence)
    counts = Counter(result.status for result in found)
    levels = Counter(result.assurance for result in found if result.receipt is not None)
    OUT.print(f"results {escape(str(out))}, proofs {escape(str(proofs))}", soft_wrap=True)
    OUT.print("  ".join(f"{status} {count}" for status, count in sorted(counts.items())) or "nothing yet")
    if levels:
        OUT.print("receipts " + "  ".join(f"{level} {count}" for level, count in sorted(levels.items())))
    if client.discarded:
        ERR.print(f"discarded {client.discarded} repl(ies) that did not verify")
    if ticket.missing:
        ERR.print(f"{len(ticket.missing)} job(s) still without an answer; run `ephemeralml results` again")
        raise typer.Exit(TIMED_OUT)
    if set(counts) != {"succeeded"}:
        for result in found:
            if result.status != "succeeded":
                ERR.print(escape(f"{result.status} {result.custom_id}: {result.code}"), soft_wrap=True)
        raise typer.Exit(JOBS_FAILED)
