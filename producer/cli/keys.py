"""``keys list``, ``keys rotate``, ``keys revoke``: the fleet keys of a pool, for its operator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.table import Table

from ...attestation.key_release.orders import Kind
from ...broker_config.profiles import broker_running
from ...wire.errors import ConfigurationError
from ...wire.exit_codes import TIMED_OUT
from ...wire.header import check_pool
from ..key_orders import KeyOffice, KeyRow, KeySurvey
from .common import (
    ERR,
    OUT,
    BrokerOption,
    PolicyOption,
    PolicyRootOption,
    StateOption,
    make_client,
    one_line_errors,
    progress_bar,
    read_policy,
    read_settings,
)

app = typer.Typer(help="Fleet keys: list, rotate, revoke.", no_args_is_help=True)

PoolOption = Annotated[str, typer.Option("--pool", help="Pool of workers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
KeyOption = Annotated[
    Path,
    typer.Option(
        "--key",
        envvar="EPHEMERALML_OPERATOR_KEY",
        help="Operator's Ed25519 seed, 32 bytes; its public half stands in the trust policy.",
    ),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait for the workers.")]


@app.command("list")
def list_keys(
    pool: PoolOption,
    policy: PolicyOption,
    policy_root: PolicyRootOption = None,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a pool's fleet keys: where each was born, its state, and how many workers announce it.

    A birth is verified under your policy; what is refused shows its code and is used by no worker.
    """
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        trust = make_client(settings, read_policy(policy, policy_root)).trust
        survey = KeyOffice(trust, check_pool(pool)).survey()
        if as_json:
            print(json.dumps(_as_json(pool, survey)))
        else:
            OUT.print(_table(survey))


@app.command("rotate")
def rotate(
    pool: PoolOption,
    policy: PolicyOption,
    key: KeyOption,
    epoch: Annotated[int | None, typer.Option(help="Epoch to end; the current one by default.")] = None,
    policy_root: PolicyRootOption = None,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
    timeout: TimeoutOption = 180,
    as_json: JsonOption = False,
) -> None:
    """End the current epoch now: workers make a new key; jobs in flight still run under the old one."""
    _order("rotate", pool, policy, key, epoch, policy_root, broker, state_dir, timeout, as_json)


@app.command("revoke")
def revoke(
    pool: PoolOption,
    policy: PolicyOption,
    key: KeyOption,
    epoch: Annotated[int, typer.Option(help="Epoch whose key nobody may use any more.")],
    policy_root: PolicyRootOption = None,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
    timeout: TimeoutOption = 180,
    as_json: JsonOption = False,
) -> None:
    """Revoke an epoch: workers drop its key at once, and its jobs end as rejected, KEY_REVOKED."""
    _order("revoke", pool, policy, key, epoch, policy_root, broker, state_dir, timeout, as_json)


def _order(
    kind: Kind,
    pool: str,
    policy: Path,
    key: Path,
    epoch: int | None,
    policy_root: str | None,
    broker: str | None,
    state_dir: Path | None,
    timeout: float,
    as_json: bool,
) -> None:
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        trust = make_client(settings, read_policy(policy, policy_root)).trust
        office = KeyOffice(trust, check_pool(pool))
        order, before = office.give(kind, epoch, read_operator_key(key))
        ERR.print(f"order {order.serial} is placed: {kind} epoch {order.epoch}")
        with progress_bar() as bar:
            task = bar.add_task("workers that moved", total=None)
            moved = office.wait(
                order, before, timeout, lambda done, of: bar.update(task, completed=done, total=of)
            )
        after = office.survey()
    if as_json:
        told = {"kind": kind, "serial": order.serial, "ended": order.epoch, "moved": moved}
        print(json.dumps({**told, **_as_json(pool, after)}))
    elif moved and before.announced:
        OUT.print(f"all {len(before.announced)} worker(s) announce epoch {after.current}")
    elif moved:
        OUT.print("no worker announces this pool; those that start obey the order")
    if not moved:
        ERR.print(
            "not all workers have moved in time; the order stands. See: ephemeralml keys list, and the "
            "lines 'keys:' of the workers that still announce the old epoch",
            soft_wrap=True,
        )
        raise typer.Exit(TIMED_OUT)


def read_operator_key(path: Path) -> Ed25519PrivateKey:
    """Read an operator's seed.

    :raises ConfigurationError: ``OPERATOR_KEY_UNUSABLE``.
    """
    try:
        with path.open("rb") as file:
            return Ed25519PrivateKey.from_private_bytes(file.read(33))
    except OSError as error:
        raise ConfigurationError("OPERATOR_KEY_UNUSABLE", f"the operator's key: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError("OPERATOR_KEY_UNUSABLE", "the operator's key is not 32 bytes") from None


def _table(survey: KeySurvey) -> Table:
    table = Table("epoch", "state", "suite", "key id", "born", "born in", "workers")
    for row in survey.rows:
        born = "" if row.born_at is None else datetime.fromtimestamp(row.born_at, UTC)
        table.add_row(
            str(row.epoch),
            _state(row),
            row.suite,
            row.key_id.hex()[:16],
            f"{born:%Y-%m-%d %H:%M} UTC" if born else "",
            row.born_by.hex()[:16],
            str(row.workers),
        )
    return table


def _state(row: KeyRow) -> str:
    if row.state == "refused":
        return f"REFUSED {row.code}"
    if row.state == "revoked" and row.stored:
        return "revoked, its blob is still there"
    return row.state


def _as_json(pool: str, survey: KeySurvey) -> dict[str, Any]:
    return {
        "pool": pool,
        "current": survey.current,
        "serial": survey.standing.serial,
        "ended_through": survey.standing.through,
        "keys": [
            {
                "epoch": row.epoch,
                "state": row.state,
                "code": row.code,
                "stored": row.stored,
                "suite": row.suite,
                "key_id": row.key_id.hex(),
                "born_at": row.born_at,
                "born_by": row.born_by.hex(),
                "workers": row.workers,
            }
            for row in survey.rows
        ],
    }
