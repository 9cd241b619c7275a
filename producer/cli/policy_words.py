"""Policies and bundles in words: for ``policy show``, ``policy diff`` and ``policy history``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape

from ...attestation.closed import UNCHECKED
from ...attestation.policy import TrustPolicy, load_policy
from ...attestation.policy_bundle import (
    MAX_BUNDLE_BYTES,
    PolicyStatement,
    open_policy_bundle,
    peek_policy_bundle,
)
from ...attestation.policy_source import is_signed
from ...attestation.policy_store import PolicyStore
from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError
from .judging import read_file
from .policy_diff import Change, lay_out, show_place

_MARKS = {"looser": "[red]LOOSER [/red]", "tighter": "[green]tighter[/green]", "same": "       "}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy from a file.

    :param statement: None for JSON. :param digest: the bundle's SHA-256, None for JSON.
    :param checked: whether the policy root's signature was verified.
    """

    policy: TrustPolicy
    statement: PolicyStatement | None = None
    digest: bytes | None = None
    checked: bool = False


def load(path: Path, policy_root: bytes | None) -> Loaded:
    """Read JSON, a bundle (verified where a root is given), or what a store has in force (root needed).

    :raises ConfigurationError: ``POLICY_UNREADABLE``, ``NO_POLICY_ROOT``. :raises Error: it is no policy.
    """
    if path.is_dir():
        if policy_root is None:
            raise ConfigurationError("NO_POLICY_ROOT", "a policy store is read under --policy-root only")
        data = PolicyStore(path, policy_root).active().data
    else:
        data = read_file(path, max_bytes=MAX_BUNDLE_BYTES)
        if not is_signed(path):
            return Loaded(load_policy(data))
    if policy_root is None:
        statement = peek_policy_bundle(data)
        return Loaded(load_policy(statement.policy), statement, sha256(data))
    bundle = open_policy_bundle(data, policy_root)
    return Loaded(bundle.policy, bundle.statement, sha256(data), checked=True)


def bundle_lines(loaded: Loaded, now: int) -> Iterator[tuple[str, str]]:
    """Yield label and words for a bundle's own fields, in rich markup; nothing for JSON."""
    statement = loaded.statement
    if statement is None or loaded.digest is None:
        yield "signature", "[yellow]none: this is JSON, for development or for `policy sign`[/yellow]"
        return
    yield "bundle", f"{statement.name}#{statement.serial}"
    checked = (
        "verified under the policy root" if loaded.checked else "[red]NOT CHECKED: no --policy-root[/red]"
    )
    yield "signature", checked
    yield "issued", moment(statement.issued_at)
    yield "begins", moment(statement.not_before)
    yield "ends", f"{moment(statement.expires)}, {lifetime(statement, now)}"
    yield "SHA-256", loaded.digest.hex()
    yield "before it", "nothing" if statement.previous is None else statement.previous.hex()
    if statement.rollback_of is not None:
        yield "brings back", f"the policy of {statement.name}#{statement.rollback_of}"


def lifetime(statement: PolicyStatement, now: int) -> str:
    """Return in words where now lies in a bundle's time, in rich markup."""
    if now >= statement.expires:
        return f"[red]ENDED {span(now - statement.expires)} ago[/red]"
    if now < statement.not_before:
        return f"[yellow]begins in {span(statement.not_before - now)}[/yellow]"
    left = statement.expires - now
    words = f"in {span(left)}"
    return f"[yellow]{words}[/yellow]" if left < 14 * 86_400 else words


def policy_lines(policy: TrustPolicy) -> Iterator[tuple[str, str]]:
    """Yield place and value for everything that a policy says, in rich markup."""
    for place, value in lay_out(policy).items():
        if place in (("platforms",), ("version",)):
            continue
        loud = value == UNCHECKED or (place[-1].startswith("dangerous_") and value == "true")
        shown = escape("" if value == "listed" else value)
        yield escape(show_place(place)), f"[red]{shown}[/red]" if loud else shown


def change_line(change: Change) -> str:
    """Return one line of a diff, in rich markup."""
    place = escape(change.place)
    match change.before, change.after:
        case None, "listed":
            words = f"+ {place}"
        case "listed", None:
            words = f"- {place}"
        case before, after:
            words = f"~ {place}: {escape(before or 'nothing')} -> {escape(after or 'nothing')}"
    return f"{_MARKS[change.verdict]} {words}"


def as_json(loaded: Loaded) -> str:
    """Return a policy and its bundle's fields as one JSON object."""
    statement = loaded.statement
    about: dict[str, object] = {"signed": statement is not None, "signature_checked": loaded.checked}
    if statement is not None and loaded.digest is not None:
        about |= {
            "name": statement.name,
            "serial": statement.serial,
            "issued_at": statement.issued_at,
            "not_before": statement.not_before,
            "expires": statement.expires,
            "sha256": loaded.digest.hex(),
            "previous": None if statement.previous is None else statement.previous.hex(),
            "rollback_of": statement.rollback_of,
        }
    return json.dumps({**about, "policy": loaded.policy.model_dump(mode="json", by_alias=True)})


def moment(seconds: int) -> str:
    """Return a time in UTC, to the minute; beyond the calendar, the number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def span(seconds: int) -> str:
    """Return a span of time in one unit, rounded down."""
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
