"""``keys list``: the fleet keys that workers made, and where they were born."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from ...attestation.key_release.birth import verify_birth
from ...attestation.verify import endorsements_for
from ...broker_config.blobs import make_blob_store
from ...broker_config.profiles import broker_running
from ...wire.encoding import decode
from ...wire.errors import Error, MalformedError
from ...wire.header import check_pool
from .common import (
    OUT,
    BrokerOption,
    PolicyOption,
    PolicyRootOption,
    StateOption,
    one_line_errors,
    read_policy,
    read_settings,
)

app = typer.Typer(help="Fleet keys: which exist, and who made them.", no_args_is_help=True)


@app.command("list")
def list_keys(
    pool: Annotated[str, typer.Option("--pool", help="Pool of workers.")],
    policy: PolicyOption,
    policy_root: PolicyRootOption = None,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """List a pool's fleet keys, each with the verdict on its birth certificate."""
    with one_line_errors(), broker_running(read_settings(broker, state_dir)) as settings:
        trusted = read_policy(policy, policy_root)
        endorsements = endorsements_for(trusted)
        blobs = make_blob_store(settings)
        now = int(datetime.now(UTC).timestamp())
        table = Table("epoch", "suite", "key id", "born", "birth certificate")
        for name in sorted(blobs.list(f"fleet/{check_pool(pool)}/")):
            try:
                wrapped, birth = _stored(blobs.get(name))
                found = verify_birth(
                    birth, pool=pool, wrapped=wrapped, endorsements=endorsements, policy=trusted, now=now
                )
                born = datetime.fromtimestamp(found.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
                key_id = found.public_key.key_id.hex()[:16]
                table.add_row(str(found.epoch), found.public_key.suite, key_id, born, "trusted")
            except Error as error:
                table.add_row(name.rsplit("/", 1)[-1], "", "", "", f"REFUSED {error.code}")
        OUT.print(table)


def _stored(data: bytes) -> tuple[bytes, bytes]:
    match decode(data, max_bytes=131_072):
        case [1, bytes() as wrapped, bytes() as birth]:
            return wrapped, birth
    raise MalformedError("WRONG_TYPE", "the stored fleet key is not of its form")
