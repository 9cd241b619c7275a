"""Key release: no key, no job. A KMS gives keys to attested TEEs only.

:mod:`.protocol` says what a key release offers, :mod:`.aws` asks AWS KMS (or the
local one), :mod:`.local_kms` is a KMS for one machine that speaks AWS's protocol,
:mod:`.birth` proves that a fleet key was made inside a TEE.

>>> from ephemeralml.attestation.key_release import DataKey
>>> DataKey(plaintext=b"s" * 32, wrapped=b"blob")
DataKey(wrapped=b'blob')
"""

from __future__ import annotations

from .protocol import DataKey, KeyRelease

__all__ = ["DataKey", "KeyRelease"]
