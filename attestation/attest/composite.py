"""Makes whole evidence bundles: the CPU's evidence, its companions, and collateral to judge them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...wire.bundle import Collateral, EvidenceBundle
from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError
from ..evidence import Measurements
from . import Attester


class BundleAttester:
    """The attesters of one machine, together.

    :param cpu: makes the evidence that receipts name.
    :param companions: ``nvidia`` is asked with the SHA-256 of the CPU's evidence as its nonce,
        ``confidential-space`` with the same key and digest as the CPU.
    :param collateral: called for each bundle; returns the files to carry along.
    :raises ConfigurationError: ``BAD_COMPANION``.
    """

    def __init__(
        self,
        cpu: Attester,
        companions: Sequence[Attester] = (),
        collateral: Callable[[], Sequence[Collateral]] = tuple,
    ) -> None:
        if any(companion.platform not in ("nvidia", "confidential-space") for companion in companions):
            raise ConfigurationError("BAD_COMPANION", "only nvidia and confidential-space accompany a CPU")
        self._cpu = cpu
        self._companions = companions
        self._collateral = collateral

    @property
    def platform(self) -> str:
        """The CPU's platform."""
        return self._cpu.platform

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return fresh evidence of the CPU alone, e.g. for a KMS.

        :raises Error: the attester's own.
        """
        return self._cpu.attest(public_key=public_key, user_data=user_data, nonce=nonce)

    def measurements(self) -> Measurements | None:
        """Return what the CPU measured."""
        return self._cpu.measurements()

    def bundle(self, *, public_key: bytes, user_data: bytes) -> EvidenceBundle:
        """Return fresh evidence of everything, bound to a receipt key and a digest.

        :param public_key: raw Ed25519 key, 32 bytes. :param user_data: SHA-256, 32 bytes.
        :raises Error: the attesters' own.
        """
        evidence = self._cpu.attest(public_key=public_key, user_data=user_data)
        companions = tuple(
            (
                companion.platform,
                companion.attest(nonce=sha256(evidence))
                if companion.platform == "nvidia"
                else companion.attest(public_key=public_key, user_data=user_data),
            )
            for companion in self._companions
        )
        return EvidenceBundle(self._cpu.platform, evidence, companions, tuple(self._collateral()))
