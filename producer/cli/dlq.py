"""``dlq``: messages that no worker could answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from ...broker_config.blobs import make_blob_store
from ...broker_config.dead_letters import DeadLetter, DeadLetters
from ...broker_config.ledger import Ledger
from ...broker_config.profiles import broker_running
from ...broker_config.settings import BrokerSettings
from ...broker_config.submit import Submitter
from ...wire.errors import ConfigurationError, MalformedError
from ...wire.header import JobHeader
from ...wire.pack import PackReference, SealedJob, decode_jobs, decode_message
from .common import OUT, BrokerOption, StateOption, one_line_errors, read_settings

app = typer.Typer(
    help="Dead letters: messages that no worker could answer. All that is shown is public or ciphertext.",
    no_args_is_help=True,
)
PoolOption = Annotated[str, typer.Option("--pool", help="Pool of workers.")]
LetterArgument = Annotated[str, typer.Argument(help="Id of the letter, or its first 8 digits or more.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("list")
def list_letters(
    pool: PoolOption, as_json: JsonOption = False, broker: BrokerOption = None, state_dir: StateOption = None
) -> None:
    """List a pool's dead letters, the oldest first."""
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        letters = sorted(_letters(settings, pool).list(), key=lambda letter: letter.died_at)
    if as_json:
        for letter in letters:
            print(json.dumps(_row(letter)))
        return
    if not letters:
        OUT.print(f"no dead letters in pool {pool}")
    for letter in letters:
        died, failed = _row(letter)["died_at"], f"{letter.jobs} job(s) failed"
        OUT.print(
            f"{letter.id[:16]}  {died}  {letter.code:<20} delivered {letter.deliveries} times, {failed}",
            soft_wrap=True,
        )


@app.command("show")
def show(
    letter: LetterArgument,
    pool: PoolOption,
    as_json: JsonOption = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Show a dead letter and the public headers of its jobs."""
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        found = _find(_letters(settings, pool), letter)
        report = _row(found) | {"jobs": _headers(found)}
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        if name != "jobs":
            OUT.print(f"{name:<12}{value}", soft_wrap=True)
    for job in _headers(found):
        OUT.print("  " + "  ".join(f"{name} {value}" for name, value in job.items()), soft_wrap=True)


@app.command("requeue")
def requeue(
    letter: LetterArgument, pool: PoolOption, broker: BrokerOption = None, state_dir: StateOption = None
) -> None:
    """Put a dead letter's message back onto its queue.

    Jobs that have ended already keep their end: a job has exactly one. Only jobs without one run.
    """
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        letters = _letters(settings, pool)
        found = _find(letters, letter)
        with Submitter(settings) as submitter:
            submitter.submit(pool, found.message)
        letters.remove(found.id)
    OUT.print(f"requeued {found.id[:16]}")


@app.command("purge")
def purge(
    pool: PoolOption,
    letter: Annotated[str | None, typer.Argument(help="Id of one letter; without it, all of them.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Remove a dead letter, or all of a pool, for good."""
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        letters = _letters(settings, pool)
        doomed = list(letters.list()) if letter is None else [_find(letters, letter)]
        if not yes and doomed:
            typer.confirm(f"remove {len(doomed)} dead letter(s) of pool {pool} for good?", abort=True)
        ledger = Ledger(make_blob_store(settings), pool)
        for one in doomed:
            ledger.forget(one.id)
            letters.remove(one.id)
    OUT.print(f"removed {len(doomed)} dead letter(s)")


def _letters(settings: BrokerSettings, pool: str) -> DeadLetters:
    return DeadLetters(make_blob_store(settings), pool)


def _find(letters: DeadLetters, ident: str) -> DeadLetter:
    if len(ident) < 8:
        raise ConfigurationError("LETTER_AMBIGUOUS", "give at least 8 digits of the letter's id")
    found = [letter for letter in letters.list() if letter.id.startswith(ident.lower())]
    if len(found) != 1:
        raise ConfigurationError(
            "LETTER_UNKNOWN" if not found else "LETTER_AMBIGUOUS",
            "no dead letter of this pool has that id" if not found else "several dead letters begin so",
        )
    return found[0]


def _row(letter: DeadLetter) -> dict[str, object]:
    died = datetime.fromtimestamp(letter.died_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {
        "id": letter.id,
        "died_at": died,
        "code": letter.code,
        "deliveries": letter.deliveries,
        "failed": letter.jobs,
        "bytes": len(letter.message),
    }


def _headers(letter: DeadLetter) -> list[dict[str, object]]:
    """Return what is public of a letter's jobs; nothing where the message cannot be read."""
    try:
        pack = decode_message(letter.message)
        jobs = () if isinstance(pack, PackReference) else decode_jobs(pack)[1]
    except MalformedError:
        return []
    return [_header(job) for job in jobs]


def _header(job: SealedJob) -> dict[str, object]:
    try:
        header = JobHeader.decode(job.header)
    except MalformedError as error:
        return {"unreadable": error.code}
    return {"job": header.job_id.hex(), "reply_to": header.reply_to, "not_after": header.not_after}
