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
        """Which verifier reads the evidence: ``"nitro"`` or ``"simulated"``."""
        ...

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return fresh evidence that carries these values.

        :param public_key: :param user_data: :param nonce: at most 1,024 bytes each.
        :raises MalformedError: ``OUT_OF_BOUNDS``.
        """
        ...

    def measurements(self) -> Measurements:
        """Return what the evidence will say was measured."""
        ...
