"""An emulated TSM interface: files in a folder that behave as the kernel's do, without kernel or threads."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from ephemeralml.attestation.attest.tsm import TsmFiles

from .forge import Forge

ATTRIBUTES = ("inblob", "outblob", "provider", "generation")


def quote_of(report_data: bytes) -> bytes:
    """Return a quote that carries these bytes, under the test root."""
    return Forge(report={"report_data": report_data}).quote()


class EmulatedTsm(TsmFiles):
    """Keeps the kernel's rules: what a folder holds, who may write what, and the count of writes.

    :param answer: makes the report. :param failures: errors by operation, raised once each, in order.
    :param meddle: how often somebody else writes between our write and our read.
    """

    def __init__(
        self,
        root: Path,
        *,
        answer: Callable[[bytes], bytes] = quote_of,
        provider: bytes = b"tdx_guest\n",
        failures: dict[str, list[int]] | None = None,
        meddle: int = 0,
    ) -> None:
        super().__init__(root)
        self.answer = answer
        self.provider = provider
        self.failures = failures or {}
        self.meddle = meddle
        self.made: list[str] = []

    def make(self, name: str) -> None:
        self._fail("make")
        super().make(name)
        self.made.append(name)
        for attribute in ATTRIBUTES:
            (self.root / name / attribute).touch()
        (self.root / name / "provider").write_bytes(self.provider)
        (self.root / name / "generation").write_bytes(b"0\n")

    def remove(self, name: str) -> None:
        self._fail("remove")
        for attribute in ATTRIBUTES:
            (self.root / name / attribute).unlink()
        super().remove(name)

    def write(self, name: str, attribute: str, data: bytes) -> None:
        self._fail("write")
        if attribute != "inblob":
            raise OSError(errno.EACCES, "read only")
        if not 0 < len(data) <= 64:
            raise OSError(errno.EINVAL, "inblob")
        super().write(name, attribute, data)
        self._count(name)
        if self.meddle:
            self.meddle -= 1
            (self.root / name / "inblob").write_bytes(bytes(64))
            self._count(name)

    def read(self, name: str, attribute: str, limit: int) -> bytes:
        self._fail(f"read {attribute}")
        if attribute == "outblob":
            asked = (self.root / name / "inblob").read_bytes()
            if not asked:
                raise OSError(errno.EINVAL, "nothing asked")
            (self.root / name / "outblob").write_bytes(self.answer(asked))
        return super().read(name, attribute, limit)

    def _count(self, name: str) -> None:
        path = self.root / name / "generation"
        path.write_bytes(b"%d\n" % (int(path.read_bytes()) + 1))

    def _fail(self, operation: str) -> None:
        waiting = self.failures.get(operation)
        if waiting:
            raise OSError(waiting.pop(0), "emulated")
