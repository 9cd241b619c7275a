"""EphemeralML: confidential AI inference over queues.

Clients seal jobs to a key that only attested workers can hold; workers answer
with sealed results and AIR v1 receipts that anyone can check offline.

The front door is :mod:`ephemeralml.producer` for clients,
:mod:`ephemeralml.workers` for the TEE side, and :mod:`ephemeralml.receipts`
for verifiers.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
