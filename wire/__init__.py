"""The shared ground: formats, sealing and errors. Pure: no clock, no I/O.

What can open a message (``wire.opening``, ``wire.private_keys``) is not imported here, so
that untrusted code may use this package without it.

>>> import time
>>> from ephemeralml.wire import JobHeader, Sealer
>>> from ephemeralml.wire.opening import Opener
>>> from ephemeralml.wire.private_keys import PrivateKey
>>> fleet = PrivateKey.generate("xwing")
>>> header = JobHeader(bytes(16), "minilm", fleet.public_key.key_id, "reply." + "0" * 32, 2000000000).encode()
>>> sealed = Sealer(fleet.public_key, "job", monotonic=time.monotonic).seal(header, b"for the TEE only")
>>> Opener([fleet], "job").open(header, sealed)
b'for the TEE only'
"""

from __future__ import annotations

from .errors import Error
from .generation import GenerateParameters
from .header import JobHeader, ReplyHeader
from .job import Completion, Embedding, Job, Response, Turn
from .keys import PublicKey
from .sealing import Sealed, Sealer

__all__ = [
    "Completion",
    "Embedding",
    "Error",
    "GenerateParameters",
    "Job",
    "JobHeader",
    "PublicKey",
    "ReplyHeader",
    "Response",
    "Sealed",
    "Sealer",
    "Turn",
]
