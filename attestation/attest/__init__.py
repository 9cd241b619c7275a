"""The side inside the TEE: what can be asked for evidence about itself.

>>> from ephemeralml.attestation.attest import Attester
>>> from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
>>> attester: Attester = SimulatedAttester(DevelopmentRoot.create(), development_pcrs("my-image"))
>>> evidence = attester.attest(public_key=b"k" * 32, nonce=b"challenge")
>>> attester.platform
'simulated'
"""

from __future__ import annotations

from typing import Protocol

from ..evidence import Measurements

__all__ = ["Attester"]


class Attester(Protocol):
    """Makes evidence about the machine that it runs in."""

    @property
    def platform(self) -> str:
        """Which verifier reads the evidence, e.g. ``"nitro"``."""
        ...

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return fresh evidence that carries these values.

        :param public_key: :param user_data: :param nonce: at most 1,024 bytes each; fewer on some platforms.
        :raises MalformedError: ``OUT_OF_BOUNDS``.
        :raises ConfigurationError: the device is not there, with what to do.
        """
        ...

    def measurements(self) -> Measurements | None:
        """Return what the evidence will say was measured, in AIR's slots; None where it has none."""
        ...
