"""Attestation: is evidence genuine, is it what I wanted, and whose key does it vouch for?

``verify_evidence`` → :class:`VerifiedEvidence` (genuine) → ``appraise`` → :class:`Appraisal` (wanted);
``check_binding`` ties it to a receipt key. All are functions of their arguments: bytes, policy, ``now``.

>>> import json, time
>>> from ephemeralml.attestation import (
...     DevelopmentRoot, SimulatedAttester, appraise, check_binding, development_pcrs, endorsements_for,
...     load_policy, verify_evidence)
>>> root, pcrs = DevelopmentRoot.create(), development_pcrs("my-image")
>>> policy = load_policy(json.dumps({
...     "version": "1",
...     "security_modes": ["evaluation"],
...     "platforms": {"simulated": {
...         "dangerous_allow": True,
...         "root_fingerprint": root.fingerprint.hex(),
...         "measurement_sets": [{"name": "mine", **{f"pcr{n}": pcrs[n].hex() for n in range(3)}}],
...     }},
... }).encode())
>>> document = SimulatedAttester(root, pcrs).attest(public_key=b"k" * 32)
>>> now = int(time.time())
>>> evidence = verify_evidence("simulated", document, endorsements_for(policy), now)
>>> check_binding(evidence, b"k" * 32, None)
>>> appraisal = appraise(evidence, policy, now)
>>> appraisal.measurement_set, appraisal.security_mode
('mine', 'evaluation')
"""

from __future__ import annotations

from .appraise import Appraisal, appraise
from .attest import Attester
from .binding import check_binding
from .evidence import Measurements, VerifiedEvidence
from .nitro import MeasurementSet, NitroEndorsements
from .policy import ModelReference, Platforms, TrustPolicy, load_policy
from .simulated import (
    DevelopmentRoot,
    SimulatedAttester,
    SimulatedEndorsements,
    SimulatedPolicy,
    development_pcrs,
)
from .verify import Endorsements, endorsements_for, verify_evidence

__all__ = [
    "Appraisal",
    "Attester",
    "DevelopmentRoot",
    "Endorsements",
    "MeasurementSet",
    "Measurements",
    "ModelReference",
    "NitroEndorsements",
    "Platforms",
    "SimulatedAttester",
    "SimulatedEndorsements",
    "SimulatedPolicy",
    "TrustPolicy",
    "VerifiedEvidence",
    "appraise",
    "check_binding",
    "development_pcrs",
    "endorsements_for",
    "load_policy",
    "verify_evidence",
]
