"""Makes the attesters of the platform that the settings name, and reads the collateral that travels along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..attestation.attest import Attester
from ..attestation.attest.composite import BundleAttester
from ..attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ..wire.bundle import MAX_COLLATERAL_BYTES, MAX_COLLATERAL_FILES, Collateral
from ..wire.errors import ConfigurationError
from .settings import WorkerSettings

COLLATERAL_PLATFORMS: Final = ("nvidia", "tdx")


def make_attester(settings: WorkerSettings) -> BundleAttester:
    """Return what makes this worker's evidence: the CPU's, and what must accompany it.

    :raises ConfigurationError: the platform's own settings are missing, or this machine is not one.
    """
    return BundleAttester(_cpu(settings), _companions(settings), _collateral(settings.collateral))


def _cpu(settings: WorkerSettings) -> Attester:
    # Late: each platform's device code, and only its own.
    match settings.platform:
        case "nitro":
            from ..attestation.attest.nitro import NitroAttester

            return NitroAttester()
        case "tdx":
            from ..attestation.attest.tdx import TdxAttester

            return TdxAttester()
        case "simulated":
            return _simulated(settings)


def _simulated(settings: WorkerSettings) -> SimulatedAttester:
    if settings.simulated_root is None:
        raise ConfigurationError(
            "SIMULATED_ROOT_MISSING", "platform 'simulated' needs EPHEMERALML_WORKER_SIMULATED_ROOT"
        )
    root = DevelopmentRoot.load(settings.simulated_root)
    return SimulatedAttester(root, development_pcrs(settings.simulated_image))


def _companions(settings: WorkerSettings) -> list[Attester]:
    companions: list[Attester] = []
    if settings.launcher_audience is not None:
        from ..attestation.attest.confidential_space import ConfidentialSpaceAttester
        from ..attestation.attest.launcher import Launcher

        launcher = Launcher(settings.launcher_socket)
        companions.append(ConfidentialSpaceAttester(settings.launcher_audience, launcher=launcher))
    if settings.gpu:
        from ..attestation.attest.nvidia import NvidiaAttester

        companions.append(NvidiaAttester())
    return companions


def _collateral(folder: Path | None) -> Callable[[], list[Collateral]]:
    """Return a reader of ``folder/<platform>/<file>``, called for each new evidence: files may be renewed."""

    def read() -> list[Collateral]:
        if folder is None:
            return []
        try:
            paths = [
                (platform, path)
                for platform in COLLATERAL_PLATFORMS
                for path in sorted((folder / platform).glob("*"))
                if path.is_file()
            ]
            if (
                len(paths) > MAX_COLLATERAL_FILES
                or sum(p.stat().st_size for _, p in paths) > MAX_COLLATERAL_BYTES
            ):
                raise ConfigurationError("COLLATERAL_TOO_LARGE", "the collateral folder holds too much")
            return [Collateral(platform, path.name, path.read_bytes()) for platform, path in paths]
        except OSError as error:
            raise ConfigurationError(
                "COLLATERAL_UNREADABLE", f"the collateral folder: {error.strerror}"
            ) from None

    return read
