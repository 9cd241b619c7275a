"""What NVIDIA evidence is judged with: pinned roots, reference manifests, OCSP answers, NRAS's keys.

Every file is signed by the vendor and checked where it is used; who carried it does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ...wire.errors import MalformedError
from ..nitro.endorsements import check_fingerprints
from .jwks import NrasKey, read_jwks
from .ocsp import check_answer
from .rim import check_manifest

# SHA-256 of the DER of "NVIDIA Device Identity CA", valid from 2021-11-05, the root of the GPU's
# identity that NVIDIA's verifiers carry (github.com/NVIDIA/nvtrust, verifier_device_root.pem).
DEVICE_ROOT: Final = bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")
# "NVIDIA CoRIM signing Root CA", valid 2023-03-16 to 2053-03-08 (the same place, verifier_RIM_root.pem).
RIM_ROOT: Final = bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")
# "NVIDIA Attestation Service GPU Intermediate 004", valid 2025-12-08 to 2029-12-08: it signs the keys
# of NRAS, which live two days. Its own issuer is in no key set that NRAS publishes.
NRAS_ISSUER: Final = bytes.fromhex("2df8907cf4d6c277b855d407ec178a649930a8e73f7294e8fce66e6ee27c5175")

MAX_FILES: Final = 64
_RIM_NAME: Final = re.compile(r"(NV_[A-Z0-9_]{1,40}_[A-Za-z0-9_.\-]{1,80})\.(?:swidtag|xml)")


@dataclass(frozen=True, slots=True)
class NvidiaEndorsements:
    """Trust anchors and collateral.

    :param device_roots: :param rim_roots: SHA-256 fingerprints of root certificates, 32 bytes each.
    :param nras_issuers: the same of the certificates that sign NRAS's keys.
    :param rims: reference manifests by their id, e.g. ``"NV_GPU_DRIVER_GH100_550.90.07"``.
    :param ocsp: OCSP answers, DER. :param nras_keys: by key id.
    :raises ConfigurationError: ``BAD_FINGERPRINT``.
    """

    device_roots: tuple[bytes, ...] = (DEVICE_ROOT,)
    rim_roots: tuple[bytes, ...] = (RIM_ROOT,)
    nras_issuers: tuple[bytes, ...] = (NRAS_ISSUER,)
    rims: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ocsp: tuple[bytes, ...] = field(default=(), repr=False)
    nras_keys: Mapping[str, NrasKey] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for roots in (self.device_roots, self.rim_roots, self.nras_issuers):
            check_fingerprints(roots)

    def with_files(self, files: Mapping[str, bytes]) -> NvidiaEndorsements:
        """Return these completed by files from elsewhere; what is here already stays.

        :param files: by flat name: ``<manifest id>.swidtag`` or ``.xml``, ``*.ocsp`` (DER), ``*.jwks.json``.
        :raises MalformedError: ``UNKNOWN_COLLATERAL``, or as the readers of each kind.
        """
        if len(files) > MAX_FILES:
            raise MalformedError("OUT_OF_BOUNDS", f"there are more than {MAX_FILES} files of collateral")
        rims: dict[str, bytes] = {}
        answers: list[bytes] = []
        keys: dict[str, NrasKey] = {}
        for name, data in files.items():
            manifest = _RIM_NAME.fullmatch(name)
            if manifest is not None:
                rims[manifest[1]] = check_manifest(data)
            elif name.endswith(".ocsp"):
                answers.append(check_answer(data))
            elif name == "jwks.json" or name.endswith(".jwks.json"):
                keys |= read_jwks(data)
            else:
                raise MalformedError("UNKNOWN_COLLATERAL", "a file is no manifest, OCSP answer or key set")
        return replace(
            self,
            rims={**rims, **self.rims},
            ocsp=(*self.ocsp, *(one for one in answers if one not in self.ocsp)),
            nras_keys={**keys, **self.nras_keys},
        )


def from_files(files: Mapping[str, bytes]) -> NvidiaEndorsements:
    """Return the vendor's pinned roots with collateral from files.

    :raises MalformedError: as :meth:`NvidiaEndorsements.with_files`.
    """
    return NvidiaEndorsements().with_files(files)
