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

from ...attestation.policy import TrustPolicy
from ...attestation.policy_memory import PolicyMemory, default_memory
from ...attestation.policy_source import PolicySource, StaticPolicy, open_policy, policy_at
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
        help="Trust policy: a signed bundle, a policy store's folder, or unsigned JSON.",
    ),
]
PolicyRootOption = Annotated[
    str | None,
    typer.Option(
        "--policy-root",
        envvar="EPHEMERALML_POLICY_ROOT",
        help="Policy root's Ed25519 key, hexadecimal. With it, only signed policies are taken.",
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


def read_policy(path: Path, policy_root: str | None = None, at: int | None = None) -> TrustPolicy:
    """Read a trust policy once.

    :param policy_root: hexadecimal; a signed policy needs it. :param at: Unix seconds; now by default.
    :raises ConfigurationError: ``POLICY_UNREADABLE``, ``NO_POLICY_ROOT``, ``POLICY_NOT_SIGNED``.
    :raises Error: it is not a policy, or not one to use at that time.
    """
    return policy_at(path, policy_root=root_key(policy_root), at=int(time.time()) if at is None else at)


def policy_source(path: Path, policy_root: str | None) -> PolicySource:
    """Return the source of a trust policy, which a signed one may change while it is in use.

    What is seen is remembered (:func:`~ephemeralml.attestation.policy_memory.default_memory`), so that no
    later command takes an older one.

    :raises Error: as :func:`read_policy`, and for a downgrade.
    """
    return open_policy(
        path,
        policy_root=root_key(policy_root),
        now=time.time(),
        notify=lambda event: ERR.print(f"[yellow]policy[/yellow] {escape(str(event))}", soft_wrap=True),
        memory=PolicyMemory(default_memory()),
    )


def root_key(text: str | None) -> bytes | None:
    """Return a policy root's raw Ed25519 key, 32 bytes.

    :raises ConfigurationError: ``BAD_POLICY_ROOT``.
    """
    if not text:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigurationError("BAD_POLICY_ROOT", "a policy root is 64 hexadecimal digits")
    return key


def read_settings(broker: str | None, state_dir: Path | None) -> BrokerSettings:
    """Return broker settings from options, environment and file."""
    return broker_settings(broker_url=broker, state_dir=state_dir)


def make_client(settings: BrokerSettings, policy: TrustPolicy | PolicySource) -> Client:
    """Return a client for the given broker and policy.

    :raises AppraisalError: the policy has ended.
    """
    source = StaticPolicy(policy) if isinstance(policy, TrustPolicy) else policy
    endorsements = endorsements_for(source.current(time.time()))
    return Client(settings, make_blob_store(settings), source, endorsements, time.time)


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
