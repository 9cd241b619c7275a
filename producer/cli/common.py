"""What the client's commands share: settings, trust policy, and one line for every error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ...attestation.policy import TrustPolicy, load_policy
from ...attestation.verify import endorsements_for
from ...broker_config.blobs import make_blob_store
from ...broker_config.settings import BrokerSettings, broker_settings
from ...wire.errors import ConfigurationError, Error
from ...wire.exit_codes import exit_code
from ..client import Client

OUT: Final = Console(highlight=False)
ERR: Final = Console(stderr=True, highlight=False)

PolicyOption = Annotated[
    Path,
    typer.Option(
        "--policy",
        envvar="EPHEMERALML_POLICY",
        help="Trust policy (JSON): which measurements and models you accept.",
    ),
]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", help="Broker address; the default is the embedded Redis.")
]
StateOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder of the embedded profile's broker and blobs.")
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr and the error's stable exit code."""
    try:
        yield
    except Error as error:
        ERR.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        ERR.print("interrupted")
        raise typer.Exit(130) from None


def read_policy(path: Path) -> TrustPolicy:
    """Read a trust policy file.

    :raises ConfigurationError: ``POLICY_UNREADABLE``. :raises MalformedError: it is not a policy.
    """
    try:
        return load_policy(path.read_bytes())
    except OSError as error:
        raise ConfigurationError("POLICY_UNREADABLE", f"cannot read the policy: {error.strerror}") from None


def read_settings(broker: str | None, state_dir: Path | None) -> BrokerSettings:
    """Return broker settings from options, environment and file."""
    return broker_settings(broker_url=broker, state_dir=state_dir)


def make_client(settings: BrokerSettings, policy: TrustPolicy) -> Client:
    """Return a client for the given broker and policy."""
    return Client(settings, make_blob_store(settings), policy, endorsements_for(policy), time.time)


def progress_bar() -> Progress:
    """Return a progress bar on stderr; plain when it is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=ERR,
        disable=not sys.stderr.isatty(),
    )
