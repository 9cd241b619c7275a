"""The Nitro Security Module's requests and answers, in CBOR.

Names of requests, fields and errors are those of the vendor's public NSM API
(aws-nitro-enclaves-nsm-api). Answers come from outside the enclave's own memory,
so they are bounded, closed maps like everything else that is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ...wire.encoding import decode_tolerant, encode
from ...wire.errors import ConfigurationError, Error, MalformedError
from ...wire.fields import Fields
from ..nitro.parse import MAX_DOCUMENT_BYTES, MAX_MODULE_ID_BYTES, PCR_COUNT, PCR_SIZES
from .nsm_device import (
    DEVICE,
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    Ioctl,
    bad_answer,
    exchange,
    kernel_ioctl,
    refuse,
)

MAX_EXTEND_BYTES: Final = 512
MAX_RANDOM_BYTES: Final = 65_536

_VERSION: Final = ("major", "minor", "patch")
_MAX_DEPTH: Final = 4
_SHORTEST_DRAW: Final = 16  # bytes; two draws of fewer could be equal by chance


@dataclass(frozen=True, slots=True)
class Register:
    """A PCR as the module describes it.

    :param value: 32, 48 or 64 bytes. :param locked: it cannot be extended until the enclave ends.
    """

    value: bytes = field(repr=False)
    locked: bool


@dataclass(frozen=True, slots=True)
class NsmDescription:
    """What the module says of itself.

    :param version: major, minor, patch. :param digest: of its registers, ``"SHA384"`` on today's hardware.
    """

    version: tuple[int, int, int]
    module_id: str
    max_pcrs: int
    locked_pcrs: frozenset[int]
    digest: str


class NitroSecurityModule:
    """The enclave's security module. The device is opened for each call, so forks and threads may share it.

    :param device: path of the device node.
    :param ioctl: how to reach it; the kernel's by default.
    """

    def __init__(self, device: str = DEVICE, *, ioctl: Ioctl = kernel_ioctl) -> None:
        self._device = device
        self._ioctl = ioctl

    def describe(self) -> NsmDescription:
        """Return what the module is.

        :raises Error: as :meth:`attestation`, or ``NSM_VERSION``: an interface that is not known here.
        """
        answer = self._map("DescribeNSM", None, None)
        with _Answer():
            version = tuple(answer.uint(f"version_{part}", maximum=65_535) for part in _VERSION)
            locked = frozenset(_indices(answer.items("locked_pcrs", 0, 65_536)))
            found = NsmDescription(
                (version[0], version[1], version[2]),
                answer.text("module_id", 1, MAX_MODULE_ID_BYTES),
                answer.uint("max_pcrs", maximum=65_535),
                locked,
                answer.text("digest", 1, 16),
            )
        if found.version[0] != 1:
            raise ConfigurationError("NSM_VERSION", "the security module speaks another version")
        return found

    def attestation(self, *, public_key: bytes | None, user_data: bytes | None, nonce: bytes | None) -> bytes:
        """Return a fresh attestation document that carries these values, at most 1,024 bytes each.

        :raises ConfigurationError: ``NO_NSM``, ``NSM_DENIED``, ``NSM_TIMEOUT``, ``NSM_UNREACHABLE``, or the
            module's refusal: ``NSM_INVALID_ARGUMENT``, ``NSM_INVALID_INDEX``, ``NSM_INVALID_RESPONSE``,
            ``NSM_READ_ONLY``, ``NSM_INVALID_OPERATION``, ``NSM_BUFFER_TOO_SMALL``,
            ``NSM_INPUT_TOO_LARGE`` or ``NSM_INTERNAL_ERROR``.
        :raises MalformedError: ``NSM_BAD_ANSWER``.
        """
        asked = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        answer = self._map("Attestation", asked, ("document",))
        with _Answer():
            return answer.octets("document", 1, MAX_DOCUMENT_BYTES)

    def random(self, size: int) -> bytes:
        """Return random bytes of the module, in as many draws as it takes.

        :param size: 0 to 65,536 bytes.
        :raises Error: as :meth:`attestation`, or ``OUT_OF_BOUNDS``; a module that repeats itself is
            ``NSM_BAD_ANSWER``.
        """
        if not 0 <= size <= MAX_RANDOM_BYTES:
            raise ConfigurationError("OUT_OF_BOUNDS", "0 to 65,536 random bytes can be drawn at once")
        drawn, previous = bytearray(), b""
        while len(drawn) < size:
            answer = self._map("GetRandom", None, ("random",))
            with _Answer():
                block = answer.octets("random", _SHORTEST_DRAW, MAX_ANSWER_BYTES)
            if block == previous or not any(block):
                raise MalformedError("NSM_BAD_ANSWER", "the security module repeats its random bytes")
            drawn += block
            previous = block
        return bytes(drawn[:size])

    def describe_pcr(self, index: int) -> Register:
        """Return a register's value and lock.

        :param index: 0 to 31. :raises Error: as :meth:`attestation`, or ``OUT_OF_BOUNDS``.
        """
        answer = self._map("DescribePCR", {"index": _index(index)}, ("lock", "data"))
        with _Answer():
            return Register(_value(answer), answer.required("lock", bool))

    def extend_pcr(self, index: int, data: bytes) -> bytes:
        """Extend a register and return its new value. Nothing takes it back.

        :param index: 16 to 31 are an enclave's own. :param data: 1 to 512 bytes.
        :raises Error: as :meth:`attestation`, or ``OUT_OF_BOUNDS``.
        """
        if not 1 <= len(data) <= MAX_EXTEND_BYTES:
            raise ConfigurationError("OUT_OF_BOUNDS", "a register is extended with 1 to 512 bytes")
        answer = self._map("ExtendPCR", {"index": _index(index), "data": data}, ("data",))
        with _Answer():
            return _value(answer)

    def lock_pcr(self, index: int) -> None:
        """Lock a register until the enclave ends. :raises Error: as :meth:`extend_pcr`."""
        self._nothing("LockPCR", {"index": _index(index)})

    def lock_pcrs(self, count: int) -> None:
        """Lock the first ``count`` registers, 1 to 32. :raises Error: as :meth:`extend_pcr`."""
        if not 1 <= count <= PCR_COUNT:
            raise ConfigurationError("OUT_OF_BOUNDS", "1 to 32 registers can be locked")
        self._nothing("LockPCRs", {"range": count})

    # --------------------------------------------------------------- the protocol

    def _map(
        self, request: str, arguments: Mapping[str, object] | None, fields: Iterable[str] | None
    ) -> Fields:
        """Return the answer's fields; ``fields`` of None lets later minor versions add some."""
        answer = self._ask(request, arguments)
        if not isinstance(answer, dict) or list(answer) != [request]:
            bad_answer()
        body = answer[request]
        with _Answer():
            return Fields(body, "answer", fields if fields is not None else _texts(body))

    def _nothing(self, request: str, arguments: Mapping[str, object]) -> None:
        if self._ask(request, arguments) != request:
            bad_answer()

    def _ask(self, request: str, arguments: Mapping[str, object] | None) -> object:
        message = encode(request if arguments is None else {request: dict(arguments)})
        if len(message) > MAX_REQUEST_BYTES:
            refuse("InputTooLarge")
        answer = exchange(self._device, self._ioctl, message)
        with _Answer():
            decoded = decode_tolerant(answer, max_bytes=MAX_ANSWER_BYTES, max_depth=_MAX_DEPTH)
        if isinstance(decoded, dict) and list(decoded) == ["Error"]:
            refuse(decoded["Error"])
        return decoded


class _Answer:
    """Turns whatever is wrong with an answer into one code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Error):
            bad_answer()


def _index(index: int) -> int:
    if not 0 <= index < PCR_COUNT:
        raise ConfigurationError("OUT_OF_BOUNDS", "a register's index is 0 to 31")
    return index


def _indices(items: Iterable[object]) -> Iterable[int]:
    for item in items:
        if type(item) is not int or not 0 <= item <= 65_535:
            raise MalformedError("OUT_OF_BOUNDS", "a register's index is out of bounds")
        yield item


def _value(answer: Fields) -> bytes:
    value = answer.required("data", bytes)
    if len(value) not in PCR_SIZES:
        raise MalformedError("OUT_OF_BOUNDS", "a register has not 32, 48 or 64 bytes")
    return value


def _texts(body: object) -> list[str]:
    return [key for key in body if isinstance(key, str)] if isinstance(body, dict) else []
