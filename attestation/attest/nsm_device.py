"""Reaches the Nitro Security Module through ``/dev/nsm``.

One ioctl carries a CBOR request and brings a CBOR answer: magic 0x0A, number 0,
two (address, length) pairs of 64 bits; requests up to 4,096 bytes, answers up to
12,288, longer ones cut (Linux, ``include/uapi/linux/nsm.h`` and ``drivers/misc/nsm.c``).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from ...wire.errors import ConfigurationError, MalformedError

DEVICE: Final = "/dev/nsm"
NSM_IOCTL_RAW: Final = 0xC0200A00  # _IOWR(0x0A, 0, 32 bytes)
MAX_REQUEST_BYTES: Final = 0x1000
MAX_ANSWER_BYTES: Final = 0x3000
MESSAGE: Final = struct.Struct("=QQQQ")
"""Address and length of the request, address and length of the answer's buffer."""

# The module's error answers: code here, words, and whether asking again may help.
REFUSALS: Final[Mapping[str, tuple[str, str, bool]]] = {
    "InvalidArgument": ("NSM_INVALID_ARGUMENT", "the security module refuses an argument", False),
    "InvalidIndex": ("NSM_INVALID_INDEX", "the security module has no such register", False),
    "InvalidResponse": ("NSM_INVALID_RESPONSE", "the security module lost track of the request", True),
    "ReadOnlyIndex": ("NSM_READ_ONLY", "the register is locked", False),
    "InvalidOperation": ("NSM_INVALID_OPERATION", "the security module cannot do this", False),
    "BufferTooSmall": ("NSM_BUFFER_TOO_SMALL", "the answer does not fit its buffer", False),
    "InputTooLarge": ("NSM_INPUT_TOO_LARGE", "the request is too large for the security module", False),
    "InternalError": ("NSM_INTERNAL_ERROR", "the security module failed", True),
}

Ioctl = Callable[[int, int, bytearray], int]
"""Does an ioctl: descriptor, request code, and the message, which it changes in place."""


def kernel_ioctl(descriptor: int, code: int, message: bytearray) -> int:
    """Ask the kernel."""
    return int(fcntl.ioctl(descriptor, code, message, True))


def exchange(device: str, ioctl: Ioctl, request: bytes) -> bytes:
    """Send a request and return the answer's bytes, as they are.

    :param request: CBOR, at most 4,096 bytes.
    :raises ConfigurationError: ``NO_NSM``, ``NSM_DENIED``, ``NSM_TIMEOUT``, ``NSM_UNREACHABLE`` or
        ``NSM_INPUT_TOO_LARGE``. :raises MalformedError: ``NSM_BAD_ANSWER``.
    """
    asked = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(MAX_ANSWER_BYTES)
    message = bytearray(
        MESSAGE.pack(ctypes.addressof(asked), len(request), ctypes.addressof(answer), MAX_ANSWER_BYTES)
    )
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            ioctl(descriptor, NSM_IOCTL_RAW, message)
        finally:
            os.close(descriptor)
    except OSError as error:
        _unreachable(error)
    # The kernel writes back how much of the buffer it used.
    size = MESSAGE.unpack(message)[3]
    if not 0 < size <= MAX_ANSWER_BYTES:
        bad_answer()
    try:
        return ctypes.string_at(answer, size)
    finally:
        ctypes.memset(answer, 0, MAX_ANSWER_BYTES)  # it may have held random bytes


def bad_answer() -> NoReturn:
    """Refuse an answer that does not follow its format."""
    raise MalformedError(
        "NSM_BAD_ANSWER", "the security module's answer does not follow its format"
    ) from None


def refuse(reason: object) -> NoReturn:
    """Raise what stands for one of the module's own error answers."""
    if not isinstance(reason, str) or reason not in REFUSALS:
        bad_answer()
    code, words, retriable = REFUSALS[reason]
    raise ConfigurationError(code, words, retriable=retriable) from None


def _unreachable(error: OSError) -> NoReturn:
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTTY):
        raise ConfigurationError(
            "NO_NSM",
            "no Nitro Security Module: run inside a Nitro Enclave whose kernel has the nsm driver, "
            "or choose another platform",
        ) from None
    if error.errno in (errno.EACCES, errno.EPERM):
        raise ConfigurationError(
            "NSM_DENIED", "the security module may not be used: run as root, with CAP_SYS_ADMIN"
        ) from None
    if error.errno == errno.EMSGSIZE:
        refuse("InputTooLarge")
    if error.errno == errno.ETIMEDOUT:
        raise ConfigurationError(
            "NSM_TIMEOUT", "the security module does not answer", retriable=True
        ) from None
    raise ConfigurationError(
        "NSM_UNREACHABLE", f"the security module cannot be asked: {error.strerror}", retriable=True
    ) from None
