"""``verify batch``: a batch statement and all its outcomes, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...receipts.batch_statement import MAX_STATEMENT_BYTES, peek_batch_statement
from ...receipts.batch_verify import BatchVerification, verify_batch
from ...wire.errors import Error
from ...wire.exit_codes import NOT_JUDGED, UNSOUND
from .common import ERR, OUT, progress_bar


def batch(
    statement: Annotated[Path, typer.Argument(help="Batch statement.")],
    public_key: Annotated[
        str, typer.Option("--public-key", help="Receipt key of the worker that sealed it, hexadecimal.")
    ],
    outcomes: Annotated[Path, typer.Option("--outcomes", help="Batch file: all outcome statements.")],
    item: Annotated[int | None, typer.Option("--item", min=0, help="Also prove this one item.")] = None,
    receipt_out: Annotated[
        Path | None, typer.Option("--receipt-out", help="Write the item's inclusion receipt here.")
    ] = None,
    input_root: Annotated[
        str | None, typer.Option("--input-root", help="Root that the client committed to, hexadecimal.")
    ] = None,
    signatures: Annotated[
        bool, typer.Option("--signatures", help="Check the sealing worker's own outcomes again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Verify that a batch is whole: every item has exactly one outcome, as a TEE sealed it.

    Exit 0 sound, 1 misuse, 2 unsound (the items are named), 3 when a file cannot be read.
    """
    key = _hash(public_key, "--public-key")
    root = None if input_root is None else _hash(input_root, "--input-root")
    if receipt_out is not None and item is None:
        raise typer.BadParameter("--receipt-out needs --item")
    try:
        found = _verify(statement, key, outcomes, item, root, signatures)
        if receipt_out is not None and found.receipt is not None:
            receipt_out.write_bytes(found.receipt)
    except Error as error:
        if as_json:
            print(json.dumps({"verdict": "unsound", "code": error.code, "detail": error.message}))
        ERR.print(f"[red]unsound[/red] {error}", soft_wrap=True)
        raise typer.Exit(UNSOUND) from None
    except OSError as error:
        ERR.print(f"[red]not judged[/red] FILE_UNUSABLE: {error.strerror}", soft_wrap=True)
        raise typer.Exit(NOT_JUDGED) from None
    report = _report(found, item, root is not None)
    if as_json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            OUT.print(f"{name:<22}{value}", soft_wrap=True, markup=False)


def _verify(
    path: Path, key: bytes, outcomes: Path, item: int | None, root: bytes | None, signatures: bool
) -> BatchVerification:
    with path.open("rb") as file:
        statement = file.read(MAX_STATEMENT_BYTES + 1)
    own = peek_batch_statement(statement)

    def key_of(evidence_hash: bytes) -> bytes | None:
        return key if signatures and evidence_hash == own.attestation_doc_hash else None

    with progress_bar() as bar, outcomes.open("rb") as file:
        line = bar.add_task("verifying", total=own.head.count)
        found = verify_batch(
            statement,
            key,
            file,
            item=item,
            input_root=root,
            key_of=key_of,
            progress=lambda done: bar.update(line, completed=done),
        )
        bar.update(line, completed=own.head.count)
    return found


def _report(found: BatchVerification, item: int | None, rooted: bool) -> dict[str, object]:
    head = found.statement.head
    relied = f"not checked for {found.unchecked} of {head.count}: relied on the sealing TEE"
    report: dict[str, object] = {
        "verdict": "sound",
        "batch": head.batch_id.hex(),
        "pool": head.pool,
        "items": head.count,
        "counts": dict(found.statement.counts),
        "sealed_at": found.statement.iat,
        "input_root": head.input_root.hex(),
        "output_root": found.statement.output_root.hex(),
        "attestation_doc_hash": found.statement.attestation_doc_hash.hex(),
        "input_root_compared": "yes" if rooted else "not checked: no --input-root",
        "outcome_signatures": "all checked" if not found.unchecked else relied,
        "tee_provenance": "not checked: hold the key against evidence with verify evidence",
    }
    if found.item is not None:
        ended = found.item.code or f"receipt {(found.item.receipt_hash or b'').hex()}"
        report |= {"item": item, "item_status": found.item.status, "item_end": ended}
    return report


def _hash(text: str, option: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise typer.BadParameter(f"{option} takes 64 hexadecimal digits")
    return value
