"""Reports of the kernel's TSM interface: a folder for each, made and removed here.

Linux, ``Documentation/ABI/testing/configfs-tsm-report``: write up to 64 bytes to ``inblob``, read the report
from ``outblob``; ``generation`` counts writes, so that a writer in between is noticed; ``provider`` names who
makes the report, ``tdx_guest`` here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ...wire.errors import ConfigurationError, MalformedError

TSM_REPORTS: Final = "/sys/kernel/config/tsm/report"
PROVIDER: Final = "tdx_guest"
MAX_REPORT_BYTES: Final = 32_768
_ATTEMPTS: Final = 8
_PAUSE_S: Final = 0.05
_AGAIN: Final = (errno.EINTR, errno.EBUSY, errno.EAGAIN)
_MAX_ATTRIBUTE_BYTES: Final = 256


class TsmFiles:
    """The file operations, as the kernel offers them; an emulator overrides them.

    :param root: where report folders are made.
    """

    def __init__(self, root: Path = Path(TSM_REPORTS)) -> None:
        self.root = root

    def make(self, name: str) -> None:
        """Make a folder, in which the kernel puts its files."""
        (self.root / name).mkdir()

    def remove(self, name: str) -> None:
        """Remove a folder with the kernel's files."""
        (self.root / name).rmdir()

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Write an attribute in one write."""
        descriptor = os.open(self.root / name / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "short write")
        finally:
            os.close(descriptor)

    def read(self, name: str, attribute: str, limit: int) -> bytes:
        """Read an attribute, at most ``limit`` bytes and one more."""
        with (self.root / name / attribute).open("rb", buffering=0) as file:
            parts = b""
            while len(parts) <= limit and (part := file.read(limit + 1 - len(parts))):
                parts += part
            return parts


def tsm_report(
    report_data: bytes, files: TsmFiles | None = None, *, pause: Callable[[float], None] = time.sleep
) -> bytes:
    """Return a fresh report, which carries these bytes; asked again where others are in the way.

    :param report_data: 64 bytes. :param pause: waits, in seconds.
    :raises ConfigurationError: ``NO_TSM``: the interface is not there, ``NO_TDX_GUEST``: another kind of
        guest, ``TSM_DENIED``, ``TSM_BUSY`` (worth another try) or ``TSM_FAILED``.
    :raises MalformedError: ``TSM_BAD_ANSWER``: the report is too long or empty.
    """
    kernel = TsmFiles() if files is None else files
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(_PAUSE_S * attempt)
        try:
            report = _ask(kernel, report_data)
        except OSError as error:
            if error.errno not in _AGAIN:
                raise _unreachable(error) from None
            continue
        if report is not None:
            return report
    raise ConfigurationError("TSM_BUSY", "the TDX report interface is busy: try again", retriable=True)


def _ask(kernel: TsmFiles, report_data: bytes) -> bytes | None:
    """Return a report; None where somebody else wrote to the folder meanwhile."""
    name = f"ephemeralml-{os.getpid()}-{secrets.token_hex(8)}"
    kernel.make(name)
    try:
        if kernel.read(name, "provider", _MAX_ATTRIBUTE_BYTES).strip() != PROVIDER.encode():
            raise ConfigurationError("NO_TDX_GUEST", "this machine's reports are not of a TDX guest")
        before = _generation(kernel, name)
        kernel.write(name, "inblob", report_data)
        report = kernel.read(name, "outblob", MAX_REPORT_BYTES)
        if _generation(kernel, name) != before + 1:
            return None
    finally:
        # A folder that stays behind costs a little memory; what went wrong before is worth more.
        with contextlib.suppress(OSError):
            kernel.remove(name)
    if not 0 < len(report) <= MAX_REPORT_BYTES:
        raise MalformedError("TSM_BAD_ANSWER", "the TDX report interface does not answer with a quote")
    return report


def _generation(kernel: TsmFiles, name: str) -> int:
    text = kernel.read(name, "generation", _MAX_ATTRIBUTE_BYTES).strip()
    if not text.isdigit() or len(text) > 20:
        raise MalformedError("TSM_BAD_ANSWER", "the TDX report interface does not count its writes")
    return int(text)


def _unreachable(error: OSError) -> ConfigurationError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ConfigurationError(
            "NO_TSM",
            "no TDX report interface: run in a TDX guest with Linux 6.7 or newer, the module tdx_guest, "
            "and configfs mounted (mount -t configfs none /sys/kernel/config)",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigurationError(
            "TSM_DENIED", "the TDX report interface may only be used by root: see its rights"
        )
    # ENXIO and EIO: the host's quote generation service does not answer.
    words = "the TDX report interface failed: does the host run a quote generation service?"
    return ConfigurationError("TSM_FAILED", words, retriable=error.errno in (errno.EIO, errno.ETIMEDOUT))
