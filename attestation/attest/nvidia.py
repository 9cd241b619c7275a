"""The attester of NVIDIA GPUs: a companion of the CPU's, bound to its evidence by the nonce.

>>> from ephemeralml.attestation.attest.nvidia import NvidiaAttester
>>> from ephemeralml.attestation.attest.nvml import CcState
>>> from ephemeralml.wire.errors import ConfigurationError
>>> class Off:
...     def state(self):
...         return CcState(on=False, dev_tools=False)
...     def gpus(self):
...         return []
>>> try:
...     NvidiaAttester(Off()).attest(nonce=bytes(32))
... except ConfigurationError as error:
...     print(error.code)
CC_OFF
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from ...wire.errors import ConfigurationError, MalformedError
from ..nvidia.parse import MAX_DEVICES, Architecture, DeviceEvidence, ServiceEvidence, encode_devices, parse
from ..nvidia.spdm import NONCE_BYTES
from ..nvidia.vendor import read_pem_chain
from .nvml import ARCHITECTURES, Gpu, Nvml, NvmlLibrary

__all__ = ["NvidiaAttester"]


class NvidiaAttester:
    """Asks every GPU of the machine for a report.

    :param nvml: the driver's library by default.
    :param exchange: where set, called with the reports; returns the vendor's service's answer to them as
        evidence (:func:`~..fetch.nvidia.attest`), which then travels in their place.
    """

    platform: Final[Literal["nvidia"]] = "nvidia"

    def __init__(self, nvml: Nvml | None = None, *, exchange: Callable[[bytes], bytes] | None = None) -> None:
        self._nvml = NvmlLibrary() if nvml is None else nvml
        self._exchange = exchange

    def measurements(self) -> None:
        """Return None: AIR v1 has no slot for what GPUs measure."""
        return

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return fresh evidence of all GPUs that answers a nonce.

        The evidence is read again before it is handed out: what answers something else would be noticed by
        every verifier, but here it can still be said why.

        :param public_key: :param user_data: None: a GPU vouches for neither.
        :param nonce: 32 bytes; the SHA-256 of the CPU's evidence.
        :raises ConfigurationError: ``NO_GPU``, ``TOO_MANY_GPUS``, ``CC_OFF``, ``CC_DEV_TOOLS``,
            ``GPU_ARCHITECTURE``, or as :class:`.nvml.NvmlLibrary`.
        :raises MalformedError: ``OUT_OF_BOUNDS``, ``GPU_BAD_ANSWER`` or ``GPU_WRONG_ANSWER``.
        """
        if nonce is None or len(nonce) != NONCE_BYTES or public_key is not None or user_data is not None:
            raise MalformedError(
                "OUT_OF_BOUNDS", "GPUs answer a nonce of 32 bytes, and vouch for nothing else"
            )
        self._check_state()
        gpus = self._nvml.gpus()
        architecture = _architecture(gpus)
        try:
            devices = [(gpu.report(nonce), read_pem_chain(gpu.chain())) for gpu in gpus]
            data = encode_devices("gpu", architecture, nonce, devices)
            evidence = parse(data)
        except MalformedError:
            raise MalformedError(
                "GPU_BAD_ANSWER", "a GPU's report or chain does not follow its format"
            ) from None
        if not isinstance(evidence, DeviceEvidence) or any(
            device.report.nonce != nonce for device in evidence.devices
        ):
            raise MalformedError("GPU_WRONG_ANSWER", "a GPU's report answers another nonce")
        return data if self._exchange is None else _checked(self._exchange(data), nonce)

    def _check_state(self) -> None:
        state = self._nvml.state()
        if not state.on:
            raise ConfigurationError(
                "CC_OFF",
                "the GPU's confidential computing is off: its owner must turn it on, and reset the GPU",
            )
        if state.dev_tools:
            raise ConfigurationError(
                "CC_DEV_TOOLS", "the GPU runs in DevTools mode, in which others may look in: turn CC fully on"
            )


def _architecture(gpus: Sequence[Gpu]) -> Architecture:
    if not gpus:
        raise ConfigurationError("NO_GPU", "the driver has no GPU: pass one through to this machine")
    if len(gpus) > MAX_DEVICES:
        raise ConfigurationError("TOO_MANY_GPUS", f"evidence holds at most {MAX_DEVICES} GPUs")
    kinds = {ARCHITECTURES.get(gpu.architecture()) for gpu in gpus}
    if len(kinds) != 1 or None in kinds:
        raise ConfigurationError("GPU_ARCHITECTURE", "the GPUs must all be Hopper, or all Blackwell")
    return next(kind for kind in kinds if kind is not None)


def _checked(answer: bytes, nonce: bytes) -> bytes:
    try:
        evidence = parse(answer)
    except MalformedError:
        raise MalformedError("GPU_BAD_ANSWER", "the vendor's service does not follow its format") from None
    if not isinstance(evidence, ServiceEvidence) or evidence.answer.nonce != nonce:
        raise MalformedError("GPU_WRONG_ANSWER", "the vendor's service answers for another nonce")
    return answer
