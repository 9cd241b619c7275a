"""What the judging commands share: files, times, policies, collateral, and exits 0 to 3 only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from ...attestation.confidential_space.endorsements import ConfidentialSpaceEndorsements
from ...attestation.policy import TrustPolicy
from ...attestation.verify import Endorsements, endorsements_for, with_collateral
from ...wire.bundle import Collateral
from ...wire.errors import ConfigurationError, Error, MalformedError, VerificationError
from .common import one_line_errors, read_policy

MAX_FILE_BYTES: Final = 1 << 20
MAX_COLLATERAL_FILES: Final = 64
MAX_COLLATERAL_BYTES: Final = 8 << 20

AtOption = Annotated[
    str | None, typer.Option("--at", help="Judge at this time (Unix seconds or ISO 8601), not now.")
]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="Trust policy (JSON) to appraise under.")]
CollateralFolder = Annotated[
    Path | None,
    typer.Option(
        "--collateral", help="Folder of the vendor's files: TCB information, revocation lists, keys."
    ),
]


class Misuse(Error):
    """The command was called wrongly (exit 1)."""


def misuse(message: str) -> Error:
    """Return the error for a command that was called wrongly."""
    return Misuse("MISUSE", message)


@contextmanager
def verify_errors() -> Iterator[None]:
    """Let verify commands end with 0 to 3 only: what is malformed is unsound, a bad option is misuse."""
    with one_line_errors():
        try:
            yield
        except ConfigurationError as error:
            raise Misuse(error.code, error.message) from None
        except MalformedError as error:
            if error.code == "BAD_VECTOR":
                raise Misuse(error.code, error.message) from None
            raise VerificationError(error.code, error.message) from None


def policy_of(path: Path, policy_root: str | None, at: int) -> TrustPolicy:
    """Read a trust policy as it is at a time, Unix seconds; whatever is wrong with it is misuse."""
    try:
        return read_policy(path, policy_root, at)
    except Error as error:
        raise Misuse(error.code, error.message) from None


def read_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return a file's bytes.

    :raises ConfigurationError: ``FILE_UNREADABLE``. :raises MalformedError: ``FILE_TOO_LARGE``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigurationError("FILE_UNREADABLE", f"cannot read the file: {error.strerror}") from None
    if len(data) > max_bytes:
        raise MalformedError("FILE_TOO_LARGE", f"the file is over {max_bytes} bytes")
    return data


def time_of(text: str | None) -> int:
    """Return what ``--at`` says, Unix seconds; now where it says nothing."""
    if text is None:
        return int(time.time())
    try:
        return int(text) if text.isdecimal() else int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        raise misuse("--at takes Unix seconds or an ISO 8601 time") from None


def octets_of(text: str | None, option: str) -> bytes | None:
    """Return an option's bytes, given in hexadecimal."""
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise misuse(f"{option} is not hexadecimal") from None


def read_collateral(folder: Path | None) -> dict[str, bytes]:
    """Return the files of a folder by name; folders in it and hidden files are left out.

    :raises ConfigurationError: ``FILE_UNREADABLE`` or ``COLLATERAL_TOO_LARGE``.
    """
    if folder is None:
        return {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ConfigurationError("FILE_UNREADABLE", f"cannot read the folder: {error.strerror}") from None
    files: dict[str, bytes] = {}
    left = MAX_COLLATERAL_BYTES
    for path in paths:
        if len(files) == MAX_COLLATERAL_FILES or left <= 0:
            raise ConfigurationError("COLLATERAL_TOO_LARGE", "the collateral folder holds too much")
        files[path.name] = read_file(path, max_bytes=left)
        left -= len(files[path.name])
    return files


def endorsements_of(platform: str, trusted: TrustPolicy | None, folder: Path | None) -> Endorsements:
    """Return the vendors' roots, the policy's development root, and the user's own collateral.

    :param folder: a trusted place: a key set (JWKS) in it is signed by nobody.
    :raises MalformedError: :raises EndorsementsError: a file is not what its name says.
    """
    base = Endorsements() if trusted is None else endorsements_for(trusted)
    files = read_collateral(folder)
    if platform == "confidential-space" and files:
        return replace(base, confidential_space=ConfidentialSpaceEndorsements.from_files(files))
    return with_collateral(base, [Collateral(platform, name, data) for name, data in files.items()])
