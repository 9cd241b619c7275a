"""The workers' command: ``worker``."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..wire.errors import Error
from ..wire.exit_codes import exit_code


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr and the error's stable exit code."""
    try:
        yield
    except Error as error:
        print(f"error {error}", file=sys.stderr)
        raise typer.Exit(exit_code(error)) from None


def worker(
    pool: Annotated[str | None, typer.Option("--pool", help="Pool to serve.")] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Exit 0 once the queue has stayed empty.")] = False,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Trust policy: signed bundle, policy store, or JSON.")
    ] = None,
    policy_root: Annotated[
        str | None, typer.Option("--policy-root", help="Policy root's Ed25519 key, hexadecimal.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Encrypted model package: path or URL.")
    ] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="Engine: see docs/engines.md.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Packs in work at once.")] = None,
    simulated_image: Annotated[
        str | None, typer.Option("--simulated-image", help="Image name that simulated PCRs derive from.")
    ] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="Broker address.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Folder of the embedded profile.")
    ] = None,
) -> NoReturn:
    """Run one attested worker.

    It takes its first job only after the KMS has released the fleet key and the model key
    against its attestation. Everything can also be set by EPHEMERALML_WORKER_* variables.
    SIGTERM drains: finish, acknowledge, drop the keys, exit 0. Exit 77: key release denied.
    """
    gc.disable()  # until the gate opens: collecting what imports make is a good part of a cold start
    with one_line_errors():
        from ..broker_config.settings import broker_settings
        from .app import Worker
        from .logs import Spoken, configure_logging
        from .settings import worker_settings

        settings = worker_settings(
            pool=pool,
            policy=policy,
            policy_root=policy_root,
            model=model,
            backend=backend,
            concurrency=concurrency,
            simulated_image=simulated_image,
        )
        configure_logging(settings.log)
        made = Worker(settings, broker_settings(broker_url=broker, state_dir=state_dir), drain=drain)
        if settings.log == "json":
            made.say, made.complain = Spoken(logging.INFO), Spoken(logging.ERROR)
        code = made.run()
    raise typer.Exit(code)
