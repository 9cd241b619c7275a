"""The attester: what it asks of the driver, what it refuses to ask, what it does not hand out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from ephemeralml.attestation.attest import Attester
from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.attest.nvidia import NvidiaAttester
from ephemeralml.attestation.attest.nvml import CcState, Gpu, NvmlLibrary
from ephemeralml.attestation.nvidia import NvidiaDetails
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, MalformedError

from . import service
from .forge import NONCE, NOW, Party, ReportParts, device, endorsements, make_report, other_device
from .test_vendor import pem


@dataclass
class FakeGpu:
    chain_of: tuple[Party, ...] = field(default_factory=device)
    kind: int = 9
    answered: bytes | None = None

    def architecture(self) -> int:
        return self.kind

    def report(self, nonce: bytes) -> bytes:
        parts = ReportParts(nonce=nonce if self.answered is None else self.answered)
        return make_report(parts, self.chain_of[-1].key)

    def chain(self) -> bytes:
        return pem([party.certificate for party in reversed(self.chain_of)])


@dataclass
class FakeNvml:
    present: Sequence[Gpu] = field(default_factory=lambda: [FakeGpu()])
    on: bool = True
    dev_tools: bool = False

    def state(self) -> CcState:
        return CcState(self.on, self.dev_tools)

    def gpus(self) -> Sequence[Gpu]:
        return self.present


def refused(nvml: FakeNvml, **asked: bytes | None) -> str:
    with pytest.raises((ConfigurationError, MalformedError)) as caught:
        NvidiaAttester(nvml).attest(**({"nonce": NONCE} | asked))
    return caught.value.code


def test_what_gpus_say_verifies() -> None:
    attester: Attester = NvidiaAttester(FakeNvml([FakeGpu(), FakeGpu(other_device())]))
    data = attester.attest(nonce=NONCE)
    assert len(NvidiaDetails.of(verify(data, endorsements(), NOW)).devices) == 2
    assert (attester.platform, attester.measurements()) == ("nvidia", None)


def test_beside_a_cpu_the_nonce_is_its_evidences_hash() -> None:
    cpu = SimulatedAttester(DevelopmentRoot.create(), development_pcrs("image"))
    bundle = BundleAttester(cpu, [NvidiaAttester(FakeNvml())]).bundle(
        public_key=bytes(32), user_data=bytes(32)
    )
    ((platform, data),) = bundle.companions
    assert platform == "nvidia"
    assert verify(data, endorsements(), NOW).details.binds_nonce(sha256(bundle.evidence))


def test_the_services_answer_can_travel_instead() -> None:
    seen: list[bytes] = []
    said = service.make_evidence()

    def exchange(evidence: bytes) -> bytes:
        seen.append(evidence)
        return said

    assert NvidiaAttester(FakeNvml(), exchange=exchange).attest(nonce=NONCE) == said
    assert NvidiaDetails.of(verify(seen[0], endorsements(), NOW)).nonce == NONCE
    for answer, code in ((b"x", "GPU_BAD_ANSWER"), (seen[0], "GPU_WRONG_ANSWER")):
        with pytest.raises(MalformedError, match=code):
            NvidiaAttester(FakeNvml(), exchange=lambda _, answer=answer: answer).attest(nonce=NONCE)  # type: ignore[misc]
    with pytest.raises(MalformedError, match="GPU_WRONG_ANSWER"):
        NvidiaAttester(FakeNvml(), exchange=exchange).attest(nonce=bytes(32))


@pytest.mark.parametrize(
    ("nvml", "code"),
    [
        (FakeNvml(on=False), "CC_OFF"),
        (FakeNvml(dev_tools=True), "CC_DEV_TOOLS"),
        (FakeNvml(on=False, dev_tools=True), "CC_OFF"),
        (FakeNvml([]), "NO_GPU"),
        (FakeNvml([FakeGpu(())] * 9), "TOO_MANY_GPUS"),
        (FakeNvml([FakeGpu((), 8)]), "GPU_ARCHITECTURE"),
        (FakeNvml([FakeGpu((), 9), FakeGpu((), 10)]), "GPU_ARCHITECTURE"),
    ],
)
def test_a_machine_that_cannot_is_told_what_to_do(nvml: FakeNvml, code: str) -> None:
    assert refused(nvml) == code


def test_only_a_nonce_of_32_bytes_is_answered() -> None:
    assert refused(FakeNvml(), nonce=None) == "OUT_OF_BOUNDS"
    assert refused(FakeNvml(), nonce=bytes(31)) == "OUT_OF_BOUNDS"
    assert refused(FakeNvml(), public_key=bytes(32)) == "OUT_OF_BOUNDS"
    assert refused(FakeNvml(), user_data=bytes(32)) == "OUT_OF_BOUNDS"


def test_what_is_wrong_is_not_handed_out() -> None:
    assert refused(FakeNvml([FakeGpu(answered=bytes(32))])) == "GPU_WRONG_ANSWER"
    broken = FakeGpu()
    broken.report = lambda nonce: b"\x11" * 100  # type: ignore[method-assign]
    assert refused(FakeNvml([broken])) == "GPU_BAD_ANSWER"
    chainless = FakeGpu()
    chainless.chain = bytes  # type: ignore[method-assign]
    assert refused(FakeNvml([chainless])) == "GPU_BAD_ANSWER"


class LibraryError(Exception):
    value = 999


class Settings(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint),
        ("environment", ctypes.c_uint),
        ("ccFeature", ctypes.c_uint),
        ("devToolsMode", ctypes.c_uint),
        ("multiGpuMode", ctypes.c_uint),
    )


class Library:
    """The parts of ``pynvml`` that are used, with a driver of the tests' own."""

    NVMLError = LibraryError
    NVML_SUCCESS = 0
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_CC_SYSTEM_FEATURE_ENABLED = 1
    NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF = 0
    c_nvmlSystemConfComputeSettings_v1_t = Settings

    def __init__(
        self, *, feature: int = 1, tools: int = 0, multi: int | None = 0, driver: bool = True
    ) -> None:
        self.feature, self.tools, self.multi, self.driver = feature, tools, multi, driver
        self.opened = 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise LibraryError
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetConfComputeSettings(self, reference: Any) -> int:
        if self.multi is None:
            raise LibraryError
        settings = reference._obj
        settings.ccFeature, settings.devToolsMode = self.feature, self.tools
        settings.multiGpuMode = self.multi
        return 0

    def nvmlSystemGetConfComputeState(self) -> Any:
        return SimpleNamespace(ccFeature=self.feature, devToolsMode=self.tools)

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetArchitecture(self, handle: int) -> int:
        return 9

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: int, nonce: bytes) -> Any:
        if nonce == bytes(32):
            raise LibraryError
        data = make_report(ReportParts(nonce=nonce))
        return SimpleNamespace(attestationReport=[*data, *bytes(9)], attestationReportSize=len(data))

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: int) -> Any:
        data = pem()
        return SimpleNamespace(attestationCertChain=[*data, *bytes(9)], attestationCertChainSize=len(data))


def installed(monkeypatch: pytest.MonkeyPatch, library: Library) -> NvmlLibrary:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return NvmlLibrary()


def test_the_library_is_asked_as_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    data = NvidiaAttester(installed(monkeypatch, library)).attest(nonce=NONCE)
    assert NvidiaDetails.of(verify(data, endorsements(), NOW)).nonce == NONCE
    assert library.opened == 0


@pytest.mark.parametrize(
    ("library", "on", "tools"),
    [
        (Library(), True, False),
        (Library(feature=0), False, False),
        (Library(feature=0, multi=1), True, False),
        (Library(feature=0, multi=2, tools=1), True, True),
        (Library(multi=None), True, False),
        (Library(multi=None, feature=0), False, False),
        (Library(multi=None, tools=1), True, True),
    ],
)
def test_the_state_is_read_from_new_and_old_drivers(
    library: Library, on: bool, tools: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed(monkeypatch, library).state() == CcState(on, tools)
    assert library.opened == 0


def test_a_driver_that_is_not_there_or_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="NO_GPU"):
        installed(monkeypatch, Library(driver=False)).state()
    with pytest.raises(ConfigurationError, match="GPU_REFUSED") as caught:
        NvidiaAttester(installed(monkeypatch, Library())).attest(nonce=bytes(32))
    assert caught.value.retriable
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigurationError, match="EXTRA_MISSING"):
        NvidiaAttester()


def test_the_real_library_has_what_is_called() -> None:
    library = pytest.importorskip("pynvml")
    names = [name for name in dir(Library) if name.startswith(("nvml", "NVML", "c_nvml"))]
    assert len(names) > 10
    assert [name for name in names if not hasattr(library, name)] == []
    settings = library.c_nvmlSystemConfComputeSettings_v1_t()
    assert (settings.multiGpuMode, settings.ccFeature, settings.devToolsMode) == (0, 0, 0)
    assert library.NVML_DEVICE_ARCH_HOPPER == 9
    assert library.NVML_DEVICE_ARCH_BLACKWELL == 10
    assert library.NVML_CC_SYSTEM_FEATURE_ENABLED == Library.NVML_CC_SYSTEM_FEATURE_ENABLED
    assert library.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF == Library.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
