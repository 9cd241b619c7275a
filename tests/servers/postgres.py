"""A private PostgreSQL for tests: a cluster in a folder of its own, on a unix socket, never as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

PORT = 5432  # only in the socket's name: the server listens on no network


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None where it is not installed."""
    found = shutil.which("postgres")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root: become its own user, or nobody, first."""
    if os.geteuid() != 0:
        return []
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


class Postgres:
    """A running server that makes databases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    def database(self) -> str:
        """Make an empty database and return its address."""
        self._made += 1
        name = f"test{self._made}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.address(name)

    def address(self, name: str) -> str:
        """Return a database's address."""
        return f"postgresql://test@/{name}?host={quote(str(self.folder))}"


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server that goes, with its folder, on leaving; skips where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # Not pytest's folder: a socket's path is short, and the server's user must reach it.
    folder = Path(tempfile.mkdtemp(prefix="eml-pg-", dir="/tmp"))
    user = _unprivileged()
    try:
        if user:
            uid, gid = (int(word.split("=")[1]) for word in user[1:3])
            os.chown(folder, uid, gid)
        folder.chmod(0o755)
        data = str(folder / "data")
        command = [*user, str(programs / "initdb"), "-D", data, "-U", "test", "-A", "trust", "--no-sync"]
        subprocess.run(
            [*command, "--encoding=UTF8", "--locale=C"], check=True, capture_output=True, cwd=folder
        )
        yield from _serving([*user, str(programs / "pg_ctl"), "-D", data], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serving(control: list[str], folder: Path) -> Iterator[Postgres]:
    options = f"-k {folder} -c listen_addresses='' -p {PORT} -c fsync=off -c max_connections=60"
    log = str(folder / "log")
    subprocess.run(
        [*control, "-w", "-t", "60", "-l", log, "-o", options, "start"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        yield Postgres(folder)
    finally:
        subprocess.run(
            [*control, "-m", "immediate", "-w", "stop"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
