"""``ephemeralml``: the client's, the workers' and the operator's commands in one place.

This module stands above all floors; producer and workers never import each other.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import __version__


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ephemeralml {__version__}")
        raise typer.Exit()


def build() -> typer.Typer:
    """Return the whole command tree."""
    from .producer.cli import demo, doctor, jobs, keys, kms, lab, verify
    from .workers import cli as workers

    app = typer.Typer(
        help="Confidential AI inference over queues: sealed jobs, attested workers, verifiable receipts.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        """Confidential AI inference over queues: sealed jobs, attested workers, verifiable receipts."""

    app.command("demo")(demo.demo)
    app.command("submit")(jobs.submit)
    app.command("results")(jobs.results)
    app.add_typer(verify.app, name="verify")
    app.command("worker")(workers.worker)
    app.add_typer(workers.model_app, name="model")
    app.add_typer(keys.app, name="keys")
    app.add_typer(kms.app, name="kms")
    app.add_typer(lab.app, name="lab")
    app.command("doctor")(doctor.doctor)
    return app


def main() -> None:
    """Run the command line; wrong usage exits 1 (2 means: unsound)."""
    import click

    command = typer.main.get_command(build())
    try:
        code = command.main(prog_name="ephemeralml", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
