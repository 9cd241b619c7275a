"""``ephemeralml blobs``: what lies in the blob store, and what may go."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from ...broker_config.blobs import collect, make_blob_store
from ...broker_config.profiles import broker_running
from .common import OUT, BrokerOption, StateOption, one_line_errors, read_settings

app = typer.Typer(no_args_is_help=True, help="The blob store: large packs and what is kept beside them.")


@app.callback()
def _group() -> None:
    """The blob store: large packs and what is kept beside them."""


@app.command("collect")
def collect_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Remove large packs whose deadline passed more than an hour ago.

    Announcements, evidence, wrapped keys, orders, the ledger and dead letters are never touched.
    Run it every hour, from anywhere; several at once do no harm. Redis forgets by itself.
    """
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        done = collect(make_blob_store(settings), time.time(), dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"removed": done.removed, "kept": done.kept, "dry_run": dry_run}))
        return
    verb = "would be removed" if dry_run else "removed"
    OUT.print(f"{done.removed} expired blob(s) {verb}, {done.kept} kept until their time")
