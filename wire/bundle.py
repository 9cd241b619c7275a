"""Evidence bundle: the CPU's evidence, what accompanies it, and what it is judged with.

One CPU attestation document is what receipts name. A GPU's report or a launcher's
token may travel beside it (*companions*), and so may *collateral*: files that the
vendor signed (TCB information, revocation lists, reference manifests), so that an
archived bundle can be verified offline years later. Nothing here is trusted because
it is here: roots are the verifier's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from .encoding import sha256
from .errors import MalformedError

MAX_EVIDENCE_BYTES: Final = 65_536
MAX_COMPANIONS: Final = 4
MAX_COMPANION_BYTES: Final = 262_144  # eight GPUs with their chains: 98 KB recorded
MAX_COLLATERAL_FILES: Final = 64
MAX_COLLATERAL_BYTES: Final = 524_288
MAX_PLATFORM_BYTES: Final = 32
MAX_NAME_BYTES: Final = 128
MAX_BUNDLE_BYTES: Final = MAX_EVIDENCE_BYTES + MAX_COMPANION_BYTES + MAX_COLLATERAL_BYTES + 16_384


@dataclass(frozen=True)
class Collateral:
    """A file that the vendor of a platform signed.

    :param platform: whose verifier reads it. :param name: flat file name, e.g. ``"tcb_info.json"``.
    """

    platform: str
    name: str
    data: bytes


@dataclass(frozen=True)
class EvidenceBundle:
    """Evidence of one TEE.

    :param platform: which verifier reads the evidence, e.g. ``"nitro"``.
    :param companions: pairs of platform and evidence, each bound to the same TEE.
    """

    platform: str
    evidence: bytes
    companions: tuple[tuple[str, bytes], ...] = ()
    collateral: tuple[Collateral, ...] = ()

    @cached_property
    def evidence_hash(self) -> bytes:
        """SHA-256 of the CPU's evidence, 32 bytes: what receipts name."""
        return sha256(self.evidence)

    def to_list(self) -> list[object]:
        """Return the array ``[platform, evidence, companions, collateral]``."""
        return [
            self.platform,
            self.evidence,
            [list(pair) for pair in self.companions],
            [[file.platform, file.name, file.data] for file in self.collateral],
        ]

    @classmethod
    def from_list(cls, value: object) -> EvidenceBundle:
        """Read the array.

        :raises MalformedError: ``WRONG_TYPE`` or ``OUT_OF_BOUNDS``.
        """
        match value:
            case [str() as platform, bytes() as evidence, list() as companions, list() as collateral]:
                bundle = cls(
                    platform,
                    evidence,
                    tuple(map(_companion, companions)),
                    tuple(map(_collateral, collateral)),
                )
                bundle._check_bounds()
                return bundle
        raise MalformedError("WRONG_TYPE", "an evidence bundle is not of its form")

    def _check_bounds(self) -> None:
        platforms = [self.platform, *(name for name, _ in self.companions)]
        platforms += [file.platform for file in self.collateral]
        names = [(file.platform, file.name) for file in self.collateral]
        if (
            not all(1 <= len(name.encode()) <= MAX_PLATFORM_BYTES for name in platforms)
            or not all(1 <= len(name.encode()) <= MAX_NAME_BYTES for _, name in names)
            or len(self.evidence) > MAX_EVIDENCE_BYTES
            or len(self.companions) > MAX_COMPANIONS
            or sum(len(data) for _, data in self.companions) > MAX_COMPANION_BYTES
            or len(names) > MAX_COLLATERAL_FILES
            or sum(len(file.data) for file in self.collateral) > MAX_COLLATERAL_BYTES
        ):
            raise MalformedError("OUT_OF_BOUNDS", "an evidence bundle is over its bounds")
        if len({name for name, _ in self.companions}) != len(self.companions) or len(set(names)) != len(
            names
        ):
            raise MalformedError("OUT_OF_BOUNDS", "an evidence bundle names something twice")


def _companion(value: object) -> tuple[str, bytes]:
    match value:
        case [str() as platform, bytes() as evidence]:
            return platform, evidence
    raise MalformedError("WRONG_TYPE", "a companion of an evidence bundle is not of its form")


def _collateral(value: object) -> Collateral:
    match value:
        case [str() as platform, str() as name, bytes() as data]:
            return Collateral(platform, name, data)
    raise MalformedError("WRONG_TYPE", "collateral of an evidence bundle is not of its form")
