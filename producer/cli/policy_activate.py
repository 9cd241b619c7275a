"""``policy activate`` and ``policy history``: a policy store, as its operator works with it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...attestation.policy_bundle import MAX_BUNDLE_BYTES, PolicyBundle
from ...attestation.policy_store import HistoryEntry, PolicyStore
from ...wire.errors import ConfigurationError, Error
from ...wire.exit_codes import UNSOUND
from .common import OUT, PolicyRootOption, one_line_errors, root_key
from .judging import read_file
from .policy_diff import compare
from .policy_words import change_line, lifetime, moment

StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the policy store.")]


def activate(
    bundle: Annotated[Path, typer.Argument(help="Bundle to put in force.")],
    store: StoreOption,
    policy_root: PolicyRootOption = None,
) -> None:
    """Add a bundle to a policy store and put it in force; prints what changes.

    Refused: a downgrade, a bundle that does not follow the newest one, one that has ended or not begun.
    """
    with one_line_errors():
        holder = PolicyStore(store, _needed(policy_root))
        before = holder.newest() if store.is_dir() else None
        taken = holder.activate(read_file(bundle, max_bytes=MAX_BUNDLE_BYTES), int(time.time()))
    if before is not None:
        for change in compare(before.policy, taken.policy):
            OUT.print(change_line(change), soft_wrap=True)
    OUT.print(f"in force: {taken.label}, ends {lifetime(taken.statement, int(time.time()))}", soft_wrap=True)


def history(
    store: StoreOption,
    policy_root: PolicyRootOption = None,
    words: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List a store's versions, with an arrow at the one in force; exit 2 when something does not verify."""
    with one_line_errors():
        holder = PolicyStore(store, _needed(policy_root))
        entries = holder.history()
        active, wrong = _active(holder)
        if words:
            versions = [_row(entry.bundle, entry.serial) for entry in entries]
            print(json.dumps({"active": active, "versions": versions}))
        else:
            for entry in entries:
                mark = "->" if entry.serial == active else "  "
                OUT.print(f"{mark} {_line(entry)}", soft_wrap=True)
        if wrong is not None:
            raise wrong
    if any(entry.bundle is None for entry in entries):
        raise typer.Exit(UNSOUND)


def _active(store: PolicyStore) -> tuple[int | None, Error | None]:
    """Return the serial in force, or why there is none: the history is shown all the same."""
    try:
        return store.active().statement.serial, None
    except Error as error:
        return None, error


def _line(entry: HistoryEntry) -> str:
    if entry.bundle is None:
        return f"{entry.serial}  [red]REFUSED {entry.code}[/red]"
    stated, position = entry.bundle.statement, entry.bundle.position
    back = "" if stated.rollback_of is None else f"  (brings back {stated.rollback_of})"
    return (
        f"{escape(entry.bundle.label)}  {escape(entry.bundle.policy.version)}{back}  "
        f"issued {moment(stated.issued_at)}  ends {moment(stated.expires)}  {position.digest.hex()[:16]}"
    )


def _needed(policy_root: str | None) -> bytes:
    root = root_key(policy_root)
    if root is None:
        raise ConfigurationError("NO_POLICY_ROOT", "name the policy root: --policy-root or the environment")
    return root


def _row(bundle: PolicyBundle | None, serial: int) -> dict[str, object]:
    if bundle is None:
        return {"serial": serial, "sound": False}
    stated = bundle.statement
    return {
        "serial": serial,
        "sound": True,
        "policy": bundle.policy.version,
        "issued_at": stated.issued_at,
        "expires": stated.expires,
        "rollback_of": stated.rollback_of,
        "sha256": bundle.position.digest.hex(),
    }
