"""Which TEEs this machine is, by the devices and sockets that it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...wire.errors import ConfigurationError
from . import Attester
from .confidential_space import ConfidentialSpaceAttester
from .launcher import SOCKET as LAUNCHER_SOCKET
from .nitro import NitroAttester
from .nsm_device import DEVICE as NSM_DEVICE
from .nvidia import NvidiaAttester
from .tdx import TdxAttester
from .tsm import TSM_REPORTS


@dataclass(frozen=True, slots=True)
class Device:
    """What a platform's attester needs of a machine.

    :param what: in words. :param path: where it is looked for. :param fix: what to do where it is missing.
    """

    platform: str
    what: str
    path: str
    fix: str


DEVICES: Final = (
    Device(
        "nitro",
        "the Nitro Security Module",
        NSM_DEVICE,
        "only inside a Nitro Enclave, with the nsm driver",
    ),
    Device(
        "confidential-space",
        "the Confidential Space launcher",
        LAUNCHER_SOCKET,
        "only in a Confidential Space workload",
    ),
    Device(
        "tdx",
        "the TDX report interface",
        TSM_REPORTS,
        "only in a TDX guest: mount -t configfs none /sys/kernel/config; Linux 6.7 or newer",
    ),
)

GPU: Final = Device("nvidia", "an NVIDIA GPU", "/dev/nvidiactl", "only for GPU work: NVIDIA's driver")


def is_here(device: Device, root: str = "/") -> bool:
    """Return whether the machine has the device. :param root: where its file system begins."""
    try:
        return Path(root, device.path.lstrip("/")).exists()
    except OSError:
        return False


def detect_platform(root: str = "/") -> str:
    """Return the platform whose device this machine has; the first of :data:`DEVICES`.

    :raises ConfigurationError: ``NO_TEE``.
    """
    for device in DEVICES:
        if is_here(device, root):
            return device.platform
    raise ConfigurationError(
        "NO_TEE", "this machine has no device of a TEE: run inside one, or see `ephemeralml doctor`"
    )


def local_attester(platform: str, *, audience: str | None = None) -> Attester:
    """Return the attester of this machine for a platform.

    :param audience: who a Confidential Space token is for; needed there, meaningless elsewhere.
    :raises ConfigurationError: ``UNKNOWN_PLATFORM`` or ``AUDIENCE_MISSING``.
    """
    match platform:
        case "nitro":
            return NitroAttester()
        case "confidential-space":
            if audience is None:
                raise ConfigurationError("AUDIENCE_MISSING", "a token needs an audience: who it is for")
            return ConfidentialSpaceAttester(audience)
        case "nvidia":
            return NvidiaAttester()
        case "tdx":
            return TdxAttester()
        case _:
            raise ConfigurationError("UNKNOWN_PLATFORM", "no attester for this platform")
