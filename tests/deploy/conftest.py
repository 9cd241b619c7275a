"""A machine on which services of docker-compose.yml run as plain processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .compose.processes import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A folder for services; all of them end with it."""
    # Not pytest's folder: PostgreSQL's own user must reach it, and sockets have short names.
    folder = Path(tempfile.mkdtemp(prefix="eml-compose-", dir="/tmp"))
    folder.chmod(0o755)
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.down()
        shutil.rmtree(folder, ignore_errors=True)
