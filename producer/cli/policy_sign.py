"""``policy keygen``, ``policy sign``, ``policy rollback``: what needs the policy root's private key."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...attestation.policy import TrustPolicy, load_policy
from ...attestation.policy_bundle import (
    MAX_BUNDLE_BYTES,
    PolicyBundle,
    PolicyStatement,
    canonical_policy,
    make_policy_bundle,
    open_policy_bundle,
)
from ...attestation.policy_store import PolicyStore
from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError
from .common import ERR, one_line_errors
from .judging import read_file, time_of
from .policy_diff import compare
from .policy_words import change_line, moment

SEED_BYTES: Final = 32
DEFAULT_DAYS: Final = 90

KeyOption = Annotated[Path, typer.Option("--key", help="Policy root's private key file.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="File to write; never overwritten.")]
DaysOption = Annotated[int, typer.Option("--days", min=1, max=400, help="Days until it ends.")]
BeginsOption = Annotated[
    str | None, typer.Option("--begins", help="When it begins (Unix seconds or ISO 8601); now by default.")
]


def keygen(file: Annotated[Path, typer.Argument(help="Key file to make.")]) -> None:
    """Make a policy root: writes the private key (mode 0600), prints the public one."""
    with one_line_errors():
        key = Ed25519PrivateKey.generate()
        write_new(file, key.private_bytes_raw(), mode=0o600)
    ERR.print("keep this file offline: whoever has it decides what everybody trusts", soft_wrap=True)
    print(key.public_key().public_bytes_raw().hex())


def sign(
    file: Annotated[Path, typer.Argument(help="Policy (JSON).")],
    key: KeyOption,
    out: OutOption,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the line of versions; as before by default.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Policy store that holds the version before.")
    ] = None,
    previous: Annotated[Path | None, typer.Option("--previous", help="Bundle of the version before.")] = None,
    begins: BeginsOption = None,
    days: DaysOption = DEFAULT_DAYS,
) -> None:
    """Sign a policy as the next version, or as the first where there is none before it."""
    with one_line_errors():
        signer = _read_key(key)
        before = _before(signer, store, previous)
        if before is None and name is None:
            raise ConfigurationError("POLICY_NAME_NEEDED", "a first version needs --name")
        data = _sign(signer, load_policy(read_file(file)), before, name=name, begins=begins, days=days)
        write_new(out, data)
        _say_signed(data, signer, before, out)


def rollback(
    serial: Annotated[int, typer.Argument(help="Version whose policy comes back.")],
    store: Annotated[Path, typer.Option("--store", help="Folder of the policy store.")],
    key: KeyOption,
    out: OutOption,
    begins: BeginsOption = None,
    days: DaysOption = DEFAULT_DAYS,
) -> None:
    """Sign a new version that carries an old version's policy; nobody ever goes back a number."""
    with one_line_errors():
        signer = _read_key(key)
        before = _before(signer, store, None)
        if before is None:
            raise ConfigurationError("POLICY_STORE_EMPTY", "the policy store holds no version")
        old = PolicyStore(store, _public(signer)).bundle(serial)
        data = _sign(signer, old, before, name=None, begins=begins, days=days)
        write_new(out, data)
        _say_signed(data, signer, before, out)


# ------------------------------------------------------------------- signing


def _sign(
    signer: Ed25519PrivateKey,
    wanted: TrustPolicy | PolicyBundle,
    before: PolicyBundle | None,
    *,
    name: str | None,
    begins: str | None,
    days: int,
) -> bytes:
    """Sign the version after ``before``; an old bundle is brought back byte for byte."""
    now = int(time.time())
    start = now if begins is None else time_of(begins)
    if start < now:
        raise ConfigurationError("BAD_BEGINS", "a version begins now or later")
    old = wanted if isinstance(wanted, PolicyBundle) else None
    statement = PolicyStatement(
        name=name or ("" if before is None else before.statement.name),
        serial=1 if before is None else before.statement.serial + 1,
        issued_at=now,
        not_before=start,
        expires=start + days * 86_400,
        policy=wanted.statement.policy if isinstance(wanted, PolicyBundle) else canonical_policy(wanted),
        previous=None if before is None else before.position.digest,
        rollback_of=None if old is None else old.statement.serial,
    )
    return make_policy_bundle(statement, signer)


def _before(signer: Ed25519PrivateKey, store: Path | None, previous: Path | None) -> PolicyBundle | None:
    if store is not None and previous is not None:
        raise ConfigurationError("BAD_OPTIONS", "--store and --previous exclude one another")
    if previous is not None:
        return open_policy_bundle(read_file(previous, max_bytes=MAX_BUNDLE_BYTES), _public(signer))
    return None if store is None or not store.is_dir() else PolicyStore(store, _public(signer)).newest()


def _say_signed(data: bytes, signer: Ed25519PrivateKey, before: PolicyBundle | None, out: Path) -> None:
    made = open_policy_bundle(data, _public(signer))
    if before is not None:
        for change in compare(before.policy, made.policy):
            ERR.print(change_line(change), soft_wrap=True)
    ERR.print(f"signed {made.label}, ends {moment(made.statement.expires)}", soft_wrap=True)
    print(
        json.dumps(
            {
                "bundle": str(out),
                "name": made.statement.name,
                "serial": made.statement.serial,
                "sha256": sha256(data).hex(),
                "policy_root": _public(signer).hex(),
            }
        )
    )


# ------------------------------------------------------------------- keys and files


def _public(signer: Ed25519PrivateKey) -> bytes:
    return signer.public_key().public_bytes_raw()


def _read_key(path: Path) -> Ed25519PrivateKey:
    seed = read_file(path, max_bytes=SEED_BYTES)
    try:
        open_to = path.stat().st_mode & 0o077
    except OSError as error:
        raise ConfigurationError("SIGNING_KEY_UNUSABLE", f"the signing key: {error.strerror}") from None
    if open_to:
        raise ConfigurationError("SIGNING_KEY_OPEN", "others may read the signing key: chmod 600")
    if len(seed) != SEED_BYTES:
        raise ConfigurationError("SIGNING_KEY_UNUSABLE", f"the signing key is not {SEED_BYTES} bytes")
    return Ed25519PrivateKey.from_private_bytes(seed)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigurationError("FILE_EXISTS", "the file exists already and stays as it is") from None
    except OSError as error:
        raise ConfigurationError("FILE_UNWRITABLE", f"cannot write the file: {error.strerror}") from None
