"""``batch``: batches through a gateway, from a file of inputs to verified results."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from ...attestation.policy_source import PolicySource
from ...attestation.verify import endorsements_for
from ...wire.errors import ConfigurationError, DeliveryError
from ...wire.exit_codes import JOBS_FAILED, TIMED_OUT
from ...wire.job import Task
from ..batch import SealedBatch
from ..inputs import read_inputs
from ..judge import JobResult
from ..outputs import write_results
from ..remote import BatchStatus, GatewayApi, GatewayClient
from ..ticket import Ticket
from .common import ERR, OUT, PolicyOption, PolicyRootOption, one_line_errors, policy_source, progress_bar
from .jobs import judging

app: Final = typer.Typer(
    help="Batches through a gateway: seal and upload, follow, fetch and verify. The ticket file holds all "
    "that is needed to go on after a crash; keep it secret. Where the API key comes from: "
    "EPHEMERALML_GATEWAY_KEY.",
    no_args_is_help=True,
)
POLL_S: Final = 1.0
ENDS: Final = ("succeeded", "failed", "expired", "cancelled", "rejected")

TicketArgument = Annotated[Path, typer.Argument(help="Ticket file that `batch submit` made.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--gateway", envvar="EPHEMERALML_GATEWAY_URL", help="Address: https://host[:port]."),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="EPHEMERALML_GATEWAY_KEY",
        help="API key. Prefer the variable: others see a command's arguments.",
        show_default=False,
    ),
]
CaOption = Annotated[
    str | None,
    typer.Option("--ca-file", envvar="EPHEMERALML_GATEWAY_CA_FILE", help="Roots for its certificate."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Results file (JSON lines); by default beside the ticket."),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Give up after this many seconds without news; resumable.")
]
OldPolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        envvar="EPHEMERALML_POLICY",
        help="Trust policy that judges the results; by default the ticket's, unless that was signed.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@app.command("submit")
def submit(
    file: Annotated[Path, typer.Argument(help="Inputs: JSON lines (.jsonl) or one text per line.")],
    pool: Annotated[str, typer.Option("--pool", help="Pool of workers to use.")],
    policy: PolicyOption,
    gateway: UrlOption = None,
    api_key: KeyOption = "",
    policy_root: PolicyRootOption = None,
    ca_file: CaOption = None,
    ticket: Annotated[
        Path | None, typer.Option("--ticket", help="Ticket file to create; default FILE.ticket.")
    ] = None,
    window: Annotated[
        int, typer.Option("--window", min=60, max=14 * 86_400, help="Seconds that the batch may take.")
    ] = 86_400,
    pack: Annotated[int, typer.Option("--pack", min=1, max=1024, help="Jobs per message.")] = 32,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it and fetch the results.")] = False,
    out: OutOption = None,
    timeout: TimeoutOption = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Seal a file of inputs to the attested workers of a pool, and upload it as one batch.

    Run it again with the same ticket after a crash: what was sealed is sent, once.
    """
    path = ticket or file.with_name(file.name + ".ticket")
    with (
        one_line_errors(),
        _client(gateway, api_key, ca_file, policy_source(policy, policy_root)) as client,
        _planned(client, file, pool, path, window, pack) as opened,
    ):
        _push(client, opened)
        name = client.name_of(opened)
        ERR.print(
            f"{name}: {len(opened.jobs)} job(s) sealed to {escape(opened.head.pool)}, model "
            f"{escape(opened.head.model)}; ticket {escape(str(path))}",
            soft_wrap=True,
        )
        if wait:
            _finish(client, opened, _out(out, path), timeout, as_json)
        elif as_json:
            print(json.dumps({"batch": name, "jobs": len(opened.jobs), "ticket": str(path)}))
        else:
            ERR.print(f"next: ephemeralml batch results {escape(str(path))}", soft_wrap=True)


@app.command("status")
def status(
    ticket: TicketArgument,
    api_key: KeyOption = "",
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a batch stands, as the gateway says; only `results` verifies."""
    with one_line_errors(), Ticket.load(ticket) as opened, _api(_url(opened), api_key, ca_file) as api:
        _show(api.batch(_name(opened)), as_json)


@app.command("watch")
def watch(
    ticket: TicketArgument,
    api_key: KeyOption = "",
    ca_file: CaOption = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Stop after this many seconds; never by default.")
    ] = None,
) -> None:
    """Follow a batch with a progress bar until it has ended. Exit 75 when the time is over before."""
    with one_line_errors(), Ticket.load(ticket) as opened, _api(_url(opened), api_key, ca_file) as api:
        until = None if timeout is None else time.monotonic() + timeout
        found = _follow(api, _name(opened), until)
        _show(found, False)
        if not found.ended:
            raise typer.Exit(TIMED_OUT)


@app.command("results")
def results(
    ticket: TicketArgument,
    api_key: KeyOption = "",
    policy: OldPolicyOption = None,
    policy_root: PolicyRootOption = None,
    ca_file: CaOption = None,
    out: OutOption = None,
    timeout: TimeoutOption = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Continue a ticket: upload what was not uploaded, fetch, open and verify the results as they come.

    Exit 0 when every job succeeded, 75 when some have no end yet, 70 when some ended otherwise.
    """
    with one_line_errors(), Ticket.load(ticket) as opened:
        source = judging(opened.head, policy, policy_root)
        with _client(_url(opened), api_key, ca_file, source) as client:
            _push(client, opened)
            _finish(client, opened, _out(out, ticket), timeout, as_json)


@app.command("cancel")
def cancel(
    ticket: TicketArgument,
    api_key: KeyOption = "",
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a batch. What had run keeps its result; every other job ends with a signed `cancelled`."""
    with one_line_errors(), Ticket.load(ticket) as opened, _api(_url(opened), api_key, ca_file) as api:
        _show(api.cancel(_name(opened)), as_json)


@app.command("verify")
def verify(
    ticket: TicketArgument,
    api_key: KeyOption = "",
    policy: OldPolicyOption = None,
    policy_root: PolicyRootOption = None,
    ca_file: CaOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for statement, batch file and key.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the statement.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Verify that a batch is whole: a worker signed that every item has exactly one end, and which.

    Needs all results to have been fetched. What it writes is what an auditor needs for
    `ephemeralml verify batch`, and holds no result.
    """
    with one_line_errors(), Ticket.load(ticket) as opened:
        source = judging(opened.head, policy, policy_root)
        with _client(_url(opened), api_key, ca_file, source) as client:
            sealed = _sealed(client, opened, timeout)
        folder = out or ticket.with_name(ticket.name + ".batch")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "batch.cose").write_bytes(sealed.statement)
            (folder / "batch.outcomes").write_bytes(sealed.file)
            (folder / "batch.key").write_text(sealed.receipt_key.hex() + "\n")
        except OSError as error:
            raise ConfigurationError("OUTPUT_UNWRITABLE", f"cannot write: {error.strerror}") from None
        counts = {end: number for end, number in dict(sealed.verification.statement.counts).items() if number}
        if as_json:
            print(json.dumps({"verdict": "sound", "jobs": len(opened.jobs), "counts": counts}))
        else:
            OUT.print(f"sound: {len(opened.jobs)} job(s), each with one end: {_words(counts)}")
            OUT.print(f"for auditors: {escape(str(folder))}", soft_wrap=True)


@app.command("list")
def list_batches(
    gateway: UrlOption = None,
    api_key: KeyOption = "",
    ca_file: CaOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your batches at a gateway, the newest first, as the gateway says."""
    with one_line_errors(), _api(gateway, api_key, ca_file) as api:
        for found in api.batches(limit):
            _show(found, as_json)


@contextmanager
def _planned(
    client: GatewayClient, file: Path, pool: str, path: Path, window: int, pack: int
) -> Iterator[Ticket]:
    """Yield the ticket of a file: a new one, or the one that is there if it is for this gateway."""
    if path.exists():
        with Ticket.load(path) as opened:
            if opened.whole:
                client.name_of(opened)
                ERR.print(f"going on with {escape(str(path))}", soft_wrap=True)
                yield opened
                return
            path.unlink()  # an earlier run was ended while it sealed: nothing was sent
    items = read_inputs(file)
    fleet = client.trust_pool(pool)
    tasks = {task for worker in fleet.workers.values() for task in worker.body.tasks}
    task: Task = "embed" if "embed" in tasks else "generate"
    with client.plan(fleet, items, path, task=task, lifetime_s=window, pack_jobs=pack) as opened:
        yield opened


@contextmanager
def _api(url: str | None, key: str, ca_file: str | None) -> Iterator[GatewayApi]:
    if not url:
        raise ConfigurationError("NO_GATEWAY", "name the gateway: --gateway, or EPHEMERALML_GATEWAY_URL")
    if not key:
        raise ConfigurationError("NO_GATEWAY_KEY", "set EPHEMERALML_GATEWAY_KEY to your API key")
    with GatewayApi(url, key, ca_file=ca_file) as api:
        yield api


@contextmanager
def _client(url: str | None, key: str, ca_file: str | None, source: PolicySource) -> Iterator[GatewayClient]:
    with _api(url, key, ca_file) as api:
        yield GatewayClient(api, source, endorsements_for(source.current(time.time())))


def _url(ticket: Ticket) -> str:
    if ticket.head.gateway is None:
        raise ConfigurationError("WRONG_GATEWAY", "the ticket is for a queue: use `ephemeralml results`")
    return ticket.head.gateway


def _name(ticket: Ticket) -> str:
    return f"batch_{ticket.head.batch_id}"


def _out(out: Path | None, ticket: Path) -> Path:
    return out or ticket.with_name(ticket.name.removesuffix(".ticket") + ".results.jsonl")


def _push(client: GatewayClient, ticket: Ticket) -> None:
    if not ticket.pending_packs:
        return
    with progress_bar() as bar:
        total = len(ticket.packs)
        task = bar.add_task("uploading packs", total=total)
        client.push(ticket, lambda left: bar.update(task, completed=total - left))


def _follow(api: GatewayApi, name: str, until: float | None) -> BatchStatus:
    with progress_bar() as bar:
        found = api.batch(name)
        task = bar.add_task(found.state, total=found.counts.get("total"))
        while True:
            done = found.counts.get("total", 0) - found.counts.get("pending", 0)
            bar.update(task, completed=done, description=found.state)
            if found.ended or (until is not None and time.monotonic() > until):
                return found
            time.sleep(POLL_S)
            try:
                found = api.batch(name)
            except DeliveryError as error:
                if not error.retriable:
                    raise


def _finish(client: GatewayClient, ticket: Ticket, out: Path, timeout: float, as_json: bool) -> None:
    found: dict[str, JobResult] = {}
    with progress_bar() as bar:
        task = bar.add_task("results", total=len(ticket.jobs))
        for result in client.results(ticket, timeout):
            found[result.job_id.hex()] = result
            bar.advance(task)
    ordered = [found[job_id] for job_id in ticket.jobs if job_id in found]
    proofs = write_results(out, ordered, {one.worker.bundle.evidence for one in ordered if one.worker})
    counts = Counter(result.status for result in ordered)
    levels = Counter(result.assurance for result in ordered if result.receipt is not None)
    if as_json:
        summary = {"results": str(out), "proofs": str(proofs), "counts": counts, "receipts": levels}
        print(json.dumps({**summary, "missing": len(ticket.missing), "discarded": client.discarded}))
    else:
        OUT.print(f"results {escape(str(out))}, proofs {escape(str(proofs))}", soft_wrap=True)
        OUT.print(f"verified: {_words(counts) or 'nothing yet'}")
        if levels:
            OUT.print(f"receipts: {_words(levels)}")
    if client.discarded:
        ERR.print(f"discarded {client.discarded} repl(ies) that did not verify")
    if ticket.missing:
        ERR.print(_what_is_missing(client, ticket), soft_wrap=True)
        raise typer.Exit(TIMED_OUT)
    if set(counts) != {"succeeded"}:
        for (end, code), number in Counter((one.status, one.code) for one in ordered).items():
            if end != "succeeded":
                ERR.print(escape(f"{end} {code}: {number} job(s)"), soft_wrap=True)
        raise typer.Exit(JOBS_FAILED)


def _what_is_missing(client: GatewayClient, ticket: Ticket) -> str:
    said = client.status(ticket)
    number = len(ticket.missing)
    if said.ended:
        return (
            f"{number} job(s) have no signed end, and the gateway says the batch is {escape(said.state)}: "
            "submit them again as a new batch"
        )
    return f"{number} job(s) without an end yet ({escape(said.state)}): run `ephemeralml batch results` again"


def _sealed(client: GatewayClient, ticket: Ticket, timeout: float) -> SealedBatch:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return client.seal_batch(ticket)
        except DeliveryError as error:
            if error.code != "NO_STATEMENT" or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def _show(found: BatchStatus, as_json: bool) -> None:
    if as_json:
        values = {"id": found.name, "pool": found.pool, "status": found.state, "code": found.code}
        print(json.dumps({**values, "counts": found.counts, "expires_at": found.expires_at}))
        return
    counts = {end: found.counts[end] for end in (*ENDS, "pending") if found.counts.get(end)}
    code = f" {found.code}" if found.code else ""
    left = max(0, found.expires_at - int(time.time()))
    window = "" if found.ended else f"  ends within {left // 3600} h {left % 3600 // 60} min"
    text = f"{found.name}  {found.state}{code}  {_words(counts)} of {found.counts.get('total', 0)}{window}"
    OUT.print(escape(text), soft_wrap=True)


def _words(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {number:,}" for name, number in sorted(counts.items()))
