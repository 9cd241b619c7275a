"""``ephemeralml``: the client's, the workers' and the operator's commands in one place.

This module stands above all floors; producer and workers never import each other. Only
the command that is called is imported: a worker's cold start pays for nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from . import __version__
from .wire.exit_codes import MISUSE

#: Command: module (below this package) and the function or group in it; in the order of ``--help``.
COMMANDS: Final = {
    "demo": (".producer.cli.demo", "demo"),
    "submit": (".producer.cli.jobs", "submit"),
    "results": (".producer.cli.jobs", "results"),
    "batch": (".producer.cli.batch", "app"),
    "proxy": (".producer.cli.proxy", "proxy"),
    "verify": (".producer.cli.verify", "app"),
    "attest": (".producer.cli.attest", "app"),
    "worker": (".workers.cli", "worker"),
    "model": (".workers.model_cli", "model_app"),
    "gateway": (".producer.cli.gateway", "app"),
    "relay": (".producer.cli.relay", "relay"),
    "webhooks": (".producer.cli.webhooks", "app"),
    "dlq": (".producer.cli.dlq", "app"),
    "queues": (".producer.cli.queues", "app"),
    "blobs": (".producer.cli.blobs", "app"),
    "keys": (".producer.cli.keys", "app"),
    "policy": (".producer.cli.policy", "app"),
    "kms": (".producer.cli.kms", "app"),
    "lab": (".producer.cli.lab", "app"),
    "doctor": (".producer.cli.doctor", "doctor"),
}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ephemeralml {__version__}")
        raise typer.Exit()


def build(only: str | None = None) -> typer.Typer:
    """Return the command tree, or the part of it that one command needs.

    :param only: a name in :data:`COMMANDS`; anything else builds the whole tree.
    """
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

    for name in [only] if only in COMMANDS else COMMANDS:
        module, attribute = COMMANDS[name]
        found: typer.Typer | Callable[..., None] = getattr(import_module(module, __package__), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def main() -> None:
    """Run the command line; wrong usage exits 1, because 2 means unsound."""
    usage_error: Any = typer.BadParameter.__bases__[0]  # typer carries a click of its own
    command = typer.main.get_command(build(sys.argv[1] if len(sys.argv) > 1 else None))
    try:
        code = command.main(prog_name="ephemeralml", standalone_mode=False)
    except usage_error as error:
        error.show()
        sys.exit(MISUSE)
    except typer.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
