"""A TEE for development: real Nitro-format documents under a root of your own. Proves nothing.

Default policies refuse it, and what it attests is of security mode ``evaluation``.

>>> import time
>>> from ephemeralml.attestation.simulated import (
...     DevelopmentRoot, SimulatedAttester, SimulatedEndorsements, development_pcrs)
>>> from ephemeralml.attestation.simulated.verify import verify
>>> root = DevelopmentRoot.create()
>>> document = SimulatedAttester(root, development_pcrs("my-image")).attest(nonce=b"challenge")
>>> evidence = verify(document, SimulatedEndorsements((root.fingerprint,)), int(time.time()))
>>> evidence.simulated, evidence.debug, evidence.details.binds_nonce(b"challenge")
(True, False, True)
"""

from __future__ import annotations

from .attester import SimulatedAttester, development_pcrs
from .endorsements import SimulatedEndorsements
from .policy import SimulatedPolicy
from .root import DevelopmentRoot

__all__ = [
    "DevelopmentRoot",
    "SimulatedAttester",
    "SimulatedEndorsements",
    "SimulatedPolicy",
    "development_pcrs",
]
