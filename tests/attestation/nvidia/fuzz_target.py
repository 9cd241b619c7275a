"""Fuzz target: evidence, chains, manifests, OCSP answers, key sets and foreign forms, by the first byte.

What passes must say what one of the seeds says, because nobody else could sign it.
"""

from __future__ import annotations

import json
from functools import cache

from ephemeralml.attestation.der import read_elements
from ephemeralml.attestation.nvidia import NvidiaDetails, NvidiaEndorsements, evidence_from
from ephemeralml.attestation.nvidia.identity import read_identity
from ephemeralml.attestation.nvidia.jwks import read_jwks, verify_key
from ephemeralml.attestation.nvidia.ocsp import check_answer, check_revocation
from ephemeralml.attestation.nvidia.parse import parse
from ephemeralml.attestation.nvidia.rim import verify_manifest
from ephemeralml.attestation.nvidia.show import show
from ephemeralml.attestation.nvidia.spdm import read_report
from ephemeralml.attestation.nvidia.vendor import read_pem_chain
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.wire.encoding import sha256

from ...fuzz.seeds import recorded
from . import service
from .forge import (
    NOW,
    answers,
    blackwell,
    device,
    driver_manifest,
    endorsements,
    leaf_first,
    make_evidence,
    make_report,
    rim_signers,
    vbios_manifest,
)
from .test_vendor import pem, request

EVIDENCE, REPORT, MANIFEST, ANSWER, KEYS, FOREIGN, CHAIN, LEAF = range(8)


@cache
def seeds() -> list[bytes]:
    """Good ones of every kind, and recorded manifests and lists where the corpus is here."""
    kinds = {
        EVIDENCE: [make_evidence(), service.make_evidence()],
        REPORT: [make_report()],
        MANIFEST: [driver_manifest(), vbios_manifest(), *recorded("nvidia/nolicense/*.swidtag")],
        ANSWER: list(answers()[:2]),
        KEYS: [service.jwks()],
        FOREIGN: [
            json.dumps(request()).encode(),
            json.dumps(service.answer()).encode(),
            make_report().hex().encode() + pem(),
            *recorded("nvidia/sdk/hopper_evidence.json"),
        ],
        CHAIN: [pem()],
        LEAF: [device()[-1].certificate, blackwell()[-1].certificate],
    }
    return [bytes((kind,)) + data for kind, all_of_it in kinds.items() for data in all_of_it]


@cache
def _endorsements() -> NvidiaEndorsements:
    return endorsements(
        nras_issuers=service.endorsements().nras_issuers, nras_keys=service.endorsements().nras_keys
    )


@cache
def _said() -> frozenset[NvidiaDetails]:
    found = [verify(data, _endorsements(), NOW) for data in (make_evidence(), service.make_evidence())]
    return frozenset(NvidiaDetails.of(one) for one in found)


def target(data: bytes) -> None:
    """Feed one reader, chosen by the first byte, and the verifier behind it."""
    kind, rest = data[:1], data[1:]
    match kind[0] % 8 if kind else EVIDENCE:
        case 0:
            _evidence(rest)
        case 1:
            read_report(rest)
        case 2:
            _manifest(rest)
        case 3:
            _revocation(rest)
        case 4:
            for key in read_jwks(rest).values():
                verify_key(key, _endorsements().nras_issuers, NOW)
        case 5:
            _evidence(evidence_from(rest))
        case 6:
            for der in read_pem_chain(rest):
                read_elements(der)
        case _:
            read_identity(rest, leaf_first(device())[1])


def _evidence(data: bytes) -> None:
    show(data)
    parse(data)
    verified = verify(data, _endorsements(), NOW)
    assert NvidiaDetails.of(verified) in _said(), "forged evidence verifies"


def _manifest(data: bytes) -> None:
    found = verify_manifest(data, (sha256(rim_signers()[0].certificate),), NOW)
    assert found.version in ("550.90.07", "96.00.9F.00.01"), "a forged manifest verifies"


def _revocation(data: bytes) -> None:
    check_answer(data)
    subject, issuer = device()[1], device()[0]
    check_revocation(subject.certificate, issuer.certificate, [data], NOW)
