"""Makes the attester of the platform that the settings name."""

from __future__ import annotations

from ..attestation.attest.composite import BundleAttester
from ..attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ..wire.errors import ConfigurationError
from .settings import WorkerSettings


def make_attester(settings: WorkerSettings) -> BundleAttester:
    """Return what makes this worker's evidence.

    :raises ConfigurationError: the platform's own settings are missing.
    """
    if settings.simulated_root is None:
        raise ConfigurationError(
            "SIMULATED_ROOT_MISSING", "platform 'simulated' needs EPHEMERALML_WORKER_SIMULATED_ROOT"
        )
    root = DevelopmentRoot.load(settings.simulated_root)
    return BundleAttester(SimulatedAttester(root, development_pcrs(settings.simulated_image)))
