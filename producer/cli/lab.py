"""``lab``: a laboratory on one machine, for trying everything by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lab import Lab, minilm_folder
from .common import ERR, OUT, one_line_errors

app = typer.Typer(
    help="A laboratory: simulated TEE, local KMS, packaged model, policy.", no_args_is_help=True
)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="New folder to make.")],
    model: Annotated[Path | None, typer.Option(help="Model folder; default all-MiniLM-L6-v2.")] = None,
) -> None:
    """Make a laboratory: development root, local KMS, encrypted MiniLM, trust policy, settings."""
    with one_line_errors():
        lab = Lab.create(folder)
        with lab.kms():
            lab.package(model or minilm_folder())
        OUT.print(f"laboratory ready in {folder}; next, each in a shell of its own:")
        OUT.print(f"  ephemeralml kms serve {folder}")
        OUT.print(f"  . {folder}/lab.env && ephemeralml worker")
        OUT.print(f"  . {folder}/lab.env && ephemeralml submit FILE --pool minilm --wait")
        ERR.print("the TEE is simulated: only this laboratory's policy accepts it")
