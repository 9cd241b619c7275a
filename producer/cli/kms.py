"""``kms serve``: the local KMS, speaking AWS KMS's protocol."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from ..lab import Lab
from .common import OUT, one_line_errors

app = typer.Typer(help="The local KMS: releases keys only against attestation.", no_args_is_help=True)


@app.command("serve")
def serve(
    folder: Annotated[Path, typer.Argument(help="Laboratory folder that `lab init` made.")],
) -> None:
    """Run a laboratory's KMS until SIGTERM or Ctrl-C."""
    with one_line_errors():
        lab = Lab(folder)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with lab.kms():
            OUT.print(f"KMS ready at {lab.endpoint}; audit log in {folder}/kms")
            stop.wait()
        OUT.print("KMS stopped")
