"""An honest Nitro Security Module in software: speaks the device's protocol below the ioctl.

It reads the caller's memory through the addresses of the message, as the kernel does, and
decodes with another CBOR library than the driver under test.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import cbor2

from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester

IOCTL_RAW: Final = 0xC0200A00
MESSAGE: Final = struct.Struct("<QQQQ")
REQUEST_LIMIT: Final = 4096
LOCKED_AT_BOOT: Final = 16
REGISTERS: Final = 32
DRAW: Final = 256
FIELD_LIMIT: Final = 1024


class Refusal(Exception):
    """An error answer by its name."""


class EmulatedNsm:
    """A module with 32 registers of SHA-384, the first 16 locked at boot.

    :param tamper: changes the answer's bytes on their way back. :param error: the ioctl fails with it.
    """

    def __init__(
        self,
        root: DevelopmentRoot,
        pcrs: Mapping[int, bytes],
        *,
        tamper: Callable[[bytes], bytes] = bytes,
        error: int | None = None,
    ) -> None:
        self.root = root
        self.pcrs = dict.fromkeys(range(REGISTERS), bytes(48)) | dict(pcrs)
        self.locked = set(range(LOCKED_AT_BOOT))
        self.tamper = tamper
        self.error = error
        self.requests: list[object] = []

    def __call__(self, descriptor: int, code: int, message: bytearray) -> int:
        """Do the ioctl."""
        os.fstat(descriptor)
        if code != IOCTL_RAW or len(message) != MESSAGE.size:
            raise OSError(errno.EINVAL, "Invalid argument")
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        asked_at, asked_size, answer_at, capacity = MESSAGE.unpack(message)
        if asked_size > REQUEST_LIMIT:
            raise OSError(errno.EMSGSIZE, "Message too long")
        answer = self.tamper(cbor2.dumps(self.answer(cbor2.loads(ctypes.string_at(asked_at, asked_size)))))
        used = min(len(answer), capacity)
        ctypes.memmove(answer_at, answer, used)
        message[:] = MESSAGE.pack(asked_at, asked_size, answer_at, used)
        return 0

    def answer(self, request: object) -> object:
        """Return the answer to a request, as the vendor's API names things."""
        self.requests.append(request)
        name = next(iter(request)) if isinstance(request, dict) else request
        arguments = request[name] if isinstance(request, dict) else {}
        try:
            found = self.act(str(name), **arguments)
        except Refusal as refusal:
            return {"Error": str(refusal)}
        return name if found is None else {name: found}

    def act(self, name: str, **arguments: Any) -> dict[str, object] | None:
        """Do what is asked; None where the answer is the bare name."""
        acts: dict[str, Callable[..., dict[str, object] | None]] = {
            "GetRandom": lambda: {"random": os.urandom(DRAW)},
            "DescribeNSM": self.description,
            "DescribePCR": lambda index: {"data": self.register(index), "lock": index in self.locked},
            "ExtendPCR": lambda index, data: {"data": self.extend(index, data)},
            "LockPCR": lambda index: self.lock([index]),
            "LockPCRs": lambda range: self.lock(builtins.range(range)),
            "Attestation": lambda **values: {"document": self.document(values)},
        }
        if name not in acts:
            raise Refusal("InvalidOperation")
        return acts[name](**arguments)

    def description(self) -> dict[str, object]:
        """Return what the module says of itself."""
        return {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": "i-emulated-enc0",
            "max_pcrs": REGISTERS,
            "locked_pcrs": sorted(self.locked),
            "digest": "SHA384",
        }

    def register(self, index: int) -> bytes:
        """Return a register."""
        if index not in self.pcrs:
            raise Refusal("InvalidIndex")
        return self.pcrs[index]

    def extend(self, index: int, data: bytes) -> bytes:
        """Extend a register that is not locked."""
        value = self.register(index)
        if index in self.locked:
            raise Refusal("ReadOnlyIndex")
        self.pcrs[index] = hashlib.sha384(value + data).digest()
        return self.pcrs[index]

    def lock(self, indices: Iterable[int]) -> None:
        """Lock registers."""
        for index in indices:
            self.register(index)
            self.locked.add(index)

    def document(self, values: Mapping[str, bytes | None]) -> bytes:
        """Return a document of the locked registers."""
        if any(value is not None and len(value) > FIELD_LIMIT for value in values.values()):
            raise Refusal("InvalidArgument")
        locked = {index: self.pcrs[index] for index in self.locked}
        return SimulatedAttester(self.root, locked).attest(**values)
