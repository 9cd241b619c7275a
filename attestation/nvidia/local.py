"""Verifies devices' own reports: signature, chain, firmware, distinctness, manifests, revocation."""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest
from itertools import pairwise
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from ...wire.encoding import sha256
from ...wire.errors import MalformedError, VerificationError
from ..evidence import VERIFIER_TOKEN, Finding, VerifiedEvidence
from ..nitro.chain import VerifiedChain, verify_chain
from .compare import Comparison, compare_measurements
from .details import NvidiaDetails, NvidiaDevice
from .endorsements import NvidiaEndorsements
from .identity import CHIPS, Identity, read_identity
from .manifests import Manifests
from .ocsp import Window, check_revocation
from .parse import Architecture, Device, DeviceEvidence
from .spdm import Report

_COORDINATE: Final = 48


def verify_devices(
    data: bytes, evidence: DeviceEvidence, endorsements: NvidiaEndorsements, now: int
) -> VerifiedEvidence:
    """Verify reports of one machine's devices.

    1. every report answers the evidence's nonce;
    2. its certificate chains to a pinned root, valid at ``now``, and that key signed it;
    3. the certificate names a chip of the stated architecture, and the firmware that the report states;
    4. no device stands twice;
    5. the manifests of its driver and VBIOS, where they are at hand, are the vendor's, and every
       measurement that they name is compared; a difference is for appraisal;
    6. the OCSP answers at hand about any certificate of devices and manifests say it is good.

    What could not be checked is a finding: ``MEASUREMENTS_NOT_COMPARED``, ``DEBUG_NOT_CHECKED``,
    ``OCSP_NOT_CHECKED``, ``FWID_NOT_STATED``, ``CC_MODE_NOT_STATED``.

    :param data: the evidence's bytes. :param now: Unix seconds.
    :raises Error: as :func:`.verify.verify`.
    """
    judged = _Judged(evidence, endorsements, now)
    for device in evidence.devices:
        judged.add(device)
    return VerifiedEvidence(
        platform="nvidia",
        evidence_hash=sha256(data),
        measurements=None,
        issued_at=None,
        not_before=max(one.not_before for one in judged.windows),
        not_after=min(one.not_after for one in judged.windows),
        root_fingerprint=judged.root,
        # Debugging shows in the measurements, and only there; see DEBUG_NOT_CHECKED.
        debug=False,
        simulated=False,
        details=NvidiaDetails("local", evidence.kind, evidence.nonce, tuple(judged.devices)),
        findings=tuple(
            finding for place, one in enumerate(judged.devices) for finding in _findings(place, one)
        ),
        token=VERIFIER_TOKEN,
    )


class _Judged:
    """The devices that were verified so far; manifests and revocations are asked for once."""

    def __init__(self, evidence: DeviceEvidence, endorsements: NvidiaEndorsements, now: int) -> None:
        self.devices: list[NvidiaDevice] = []
        self.windows: list[Window] = []
        self.root = b""
        self._evidence = evidence
        self._endorsements = endorsements
        self._now = now
        self._ids: set[bytes] = set()
        self._manifests = Manifests(endorsements, now)
        self._answered: dict[tuple[bytes, bytes], Window | None] = {}

    def add(self, device: Device) -> None:
        """Verify one more device; the steps are those of :func:`verify_devices`."""
        architecture = self._evidence.architecture
        if not compare_digest(device.report.nonce, self._evidence.nonce):  # 1
            detail = "a report answers another nonce than the evidence states"
            raise VerificationError("NONCE_MISMATCH", detail)
        chain = _verify_signed(device, self._endorsements, self._now)  # 2
        identity = _verify_identity(device, architecture)  # 3
        if identity.device_id in self._ids:  # 4
            raise VerificationError("DEVICE_TWICE", "two reports are of one device")
        self._ids.add(identity.device_id)
        compared = compare_measurements(device.report, identity, architecture, self._manifests)  # 5
        answers = [self._revocation(*link) for link in _links(device, compared)]  # 6
        self.root = chain.root_fingerprint
        self.windows.append(Window(chain.not_before, chain.not_after))
        self.windows += [Window(one.not_before, one.not_after) for one in compared.manifests]
        self.windows += [one for one in answers if one is not None]
        self.devices.append(_device(device.report, identity, architecture, compared, None not in answers))

    def _revocation(self, certificate: bytes, issuer: bytes) -> Window | None:
        link = (certificate, issuer)
        if link not in self._answered:
            self._answered[link] = check_revocation(*link, self._endorsements.ocsp, self._now)
        return self._answered[link]


def _verify_signed(device: Device, endorsements: NvidiaEndorsements, now: int) -> VerifiedChain:
    root_first = device.chain[::-1]
    chain = verify_chain(root_first[:-1], root_first[-1], endorsements.device_roots, now)
    _check_signature(device.report, chain.public_key)
    return chain


def _check_signature(report: Report, public_key: EllipticCurvePublicKey) -> None:
    r = int.from_bytes(report.signature[:_COORDINATE], "big")
    s = int.from_bytes(report.signature[_COORDINATE:], "big")
    try:
        public_key.verify(encode_dss_signature(r, s), report.signed, ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        raise VerificationError("SIG_FAILED", "a report's signature does not match") from None


def _verify_identity(device: Device, architecture: Architecture) -> Identity:
    identity = read_identity(device.chain[0], device.chain[1])
    if not CHIPS[architecture].fullmatch(identity.chip):
        raise VerificationError("ARCHITECTURE_MISMATCH", "a device is of another architecture than stated")
    stated = device.report.opaque.fwid
    # A digest of zeros stands in the list for firmware that is not loaded.
    if stated is not None and not any(any(one) and compare_digest(one, stated) for one in identity.fwids):
        raise VerificationError("FWID_MISMATCH", "a report's firmware is not the one its key belongs to")
    if architecture != "LS10" and (device.report.opaque.driver is None or device.report.opaque.vbios is None):
        raise MalformedError("BAD_OPAQUE_DATA", "a GPU's report does not state its driver and VBIOS")
    return identity


def _links(device: Device, compared: Comparison) -> Iterator[tuple[bytes, bytes]]:
    """Yield certificate and issuer; the vendor answers for no device's leaf, and a root is pinned."""
    yield from pairwise(device.chain[1:])
    for manifest in compared.manifests:
        yield from pairwise(manifest.chain[::-1])


def _device(
    report: Report, identity: Identity, architecture: str, compared: Comparison, answered: bool
) -> NvidiaDevice:
    return NvidiaDevice(
        chip=identity.chip,
        architecture=architecture,
        serial=identity.serial,
        driver=report.opaque.driver,
        vbios=report.opaque.vbios,
        mode=report.opaque.mode,
        compared=compared.count,
        differing=compared.differing,
        revocation_checked=answered,
        firmware_bound=report.opaque.fwid is not None,
    )


def _findings(position: int, device: NvidiaDevice) -> Iterator[Finding]:
    who = f"device {position}"
    if device.compared is None:
        yield "MEASUREMENTS_NOT_COMPARED", f"{who}: a manifest of its driver or VBIOS is not at hand"
        yield "DEBUG_NOT_CHECKED", f"{who}: debugging shows only in measurements, which were not compared"
    if not device.revocation_checked:
        yield "OCSP_NOT_CHECKED", f"{who}: no OCSP answer for one of its certificates, or a manifest's"
    if not device.firmware_bound:
        yield "FWID_NOT_STATED", f"{who}: its report does not say which firmware it runs"
    if device.mode is None:
        yield "CC_MODE_NOT_STATED", f"{who}: its report does not say how it is passed through"
