"""NVIDIA's management library, as far as attestation needs it.

Calls and constants: NVML API Reference, "Confidential Computing" (docs.nvidia.com/deploy/nvml-api);
the library comes with the driver, its Python face is the ``gpu`` extra.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ...wire.errors import ConfigurationError
from ..nvidia.parse import Architecture

ARCHITECTURES: Final[dict[int, Architecture]] = {9: "HOPPER", 10: "BLACKWELL"}  # NVML_DEVICE_ARCH_*
_MULTI_GPU_NONE: Final = 0


@dataclass(frozen=True, slots=True)
class CcState:
    """How the driver runs its GPUs.

    :param on: confidential computing: one GPU, several with encrypted links, or protected PCIe.
    :param dev_tools: the mode in which profilers and debuggers may look in.
    """

    on: bool
    dev_tools: bool


class Gpu(Protocol):
    """One GPU."""

    def architecture(self) -> int:
        """Return ``NVML_DEVICE_ARCH_…``."""
        ...

    def report(self, nonce: bytes) -> bytes:
        """Return a report that answers a nonce of 32 bytes."""
        ...

    def chain(self) -> bytes:
        """Return the attestation certificate chain, PEM, leaf first."""
        ...


class Nvml(Protocol):
    """The library; tests bring their own."""

    def state(self) -> CcState:
        """Return how the driver runs its GPUs."""
        ...

    def gpus(self) -> Sequence[Gpu]:
        """Return all GPUs."""
        ...


class NvmlLibrary:
    """The library of the driver that is installed.

    :raises ConfigurationError: ``EXTRA_MISSING``; from every call ``NO_GPU`` (no driver) or ``GPU_REFUSED``
        (the driver did not do what it was asked).
    """

    def __init__(self) -> None:
        try:
            import pynvml  # type: ignore[import-untyped]
        except ImportError:
            detail = "GPU evidence needs an extra: pip install 'ephemeralml[gpu]'"
            raise ConfigurationError("EXTRA_MISSING", detail) from None
        self._library: Any = pynvml

    def state(self) -> CcState:
        """Return how the driver runs its GPUs; older drivers know the first two words only."""
        with self._session() as library:
            settings = library.c_nvmlSystemConfComputeSettings_v1_t()
            try:
                result = library.nvmlSystemGetConfComputeSettings(ctypes.byref(settings))
            except library.NVMLError:  # the driver lacks the call
                result = library.NVML_ERROR_FUNCTION_NOT_FOUND
            multi = _MULTI_GPU_NONE
            if result == library.NVML_SUCCESS:
                multi = int(settings.multiGpuMode)
            else:
                settings = library.nvmlSystemGetConfComputeState()
            return CcState(
                on=int(settings.ccFeature) == library.NVML_CC_SYSTEM_FEATURE_ENABLED
                or multi != _MULTI_GPU_NONE,
                dev_tools=int(settings.devToolsMode) != library.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF,
            )

    def gpus(self) -> Sequence[Gpu]:
        """Return all GPUs that the driver has."""
        with self._session() as library:
            return [_LibraryGpu(self._session, index) for index in range(library.nvmlDeviceGetCount())]

    @contextmanager
    def _session(self) -> Iterator[Any]:
        library = self._library
        try:
            library.nvmlInit()
        except library.NVMLError:
            raise ConfigurationError(
                "NO_GPU", "no NVIDIA driver answers: install it, or pass the GPU through to this machine"
            ) from None
        try:
            yield library
        except library.NVMLError as error:
            number = int(getattr(error, "value", 0))
            raise ConfigurationError(
                "GPU_REFUSED", f"the NVIDIA driver refused a call (NVML error {number})", retriable=True
            ) from None
        finally:
            library.nvmlShutdown()


class _LibraryGpu:
    def __init__(self, session: Callable[[], Any], index: int) -> None:
        self._session = session
        self._index = index

    def architecture(self) -> int:
        with self._session() as library:
            return int(library.nvmlDeviceGetArchitecture(library.nvmlDeviceGetHandleByIndex(self._index)))

    def report(self, nonce: bytes) -> bytes:
        with self._session() as library:
            handle = library.nvmlDeviceGetHandleByIndex(self._index)
            found = library.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
            return bytes(found.attestationReport[: found.attestationReportSize])

    def chain(self) -> bytes:
        with self._session() as library:
            handle = library.nvmlDeviceGetHandleByIndex(self._index)
            found = library.nvmlDeviceGetConfComputeGpuCertificate(handle)
            return bytes(found.attestationCertChain[: found.attestationCertChainSize])
