"""Opening what was sealed; the trusted half of :mod:`.sealing`.

Untrusted code (gateway, relay) may not import this module; import-linter holds that.
"""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .encoding import decode, encode, sha256
from .errors import MalformedError, SealingError
from .keys import SUITES
from .padding import unpad
from .private_keys import PrivateKey
from .sealing import (
    CONTENT_KEY_BYTES,
    HEADER_ALG,
    HEADER_EK,
    HEADER_KID,
    IV_BYTES,
    Purpose,
    Sealed,
    content_aad,
    recipient_info,
)

MAX_RECIPIENT_BYTES: Final = 4096
DEFAULT_CACHE_SIZE: Final = 1024


class Opener:
    """Opens messages sealed to any of some private keys. Safe for threads.

    Unwrapped content keys are kept by the hash of their recipient block, the least
    recently used leaving first, so that a batch costs one decapsulation.

    :param private_keys: the keys that may open.
    :param cache_size: how many content keys are kept.
    """

    def __init__(
        self, private_keys: Iterable[PrivateKey], purpose: Purpose, *, cache_size: int = DEFAULT_CACHE_SIZE
    ) -> None:
        self._keys = {key.public_key.key_id: key for key in private_keys}
        self._purpose = purpose
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, tuple[AESGCM, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, header: bytes, sealed: Sealed) -> bytes:
        """Open one message under its public header and remove the padding.

        :raises SealingError: whatever the cause; they are not told apart.
        """
        if len(sealed.iv) != IV_BYTES:
            raise SealingError()
        try:
            aead = self._content_key(sealed.recipient)
            return unpad(aead.decrypt(sealed.iv, sealed.ciphertext, content_aad(header)))
        except (InvalidTag, MalformedError, ValueError, OverflowError):
            raise SealingError() from None

    def add(self, private_key: PrivateKey) -> None:
        """Let one more key open, e.g. the next epoch's."""
        with self._lock:
            self._keys[private_key.public_key.key_id] = private_key

    def remove(self, key_id: bytes) -> None:
        """Let a key open nothing any more, nor what it has unwrapped; harmless when it is not there."""
        with self._lock:
            self._keys.pop(key_id, None)
            for digest in [digest for digest, (_, owner) in self._cache.items() if owner == key_id]:
                del self._cache[digest]

    def forget(self) -> None:
        """Drop every key (best effort: Python cannot promise to wipe memory)."""
        with self._lock:
            self._cache.clear()
            self._keys.clear()

    def _content_key(self, block: bytes) -> AESGCM:
        digest = sha256(block)
        with self._lock:
            known = self._cache.get(digest)
            if known is not None:
                self._cache.move_to_end(digest)
                return known[0]
        content_key, key_id = self._unwrap(block)
        aead = AESGCM(content_key)
        with self._lock:
            if key_id not in self._keys:  # removed meanwhile
                raise SealingError()
            self._cache[digest] = aead, key_id
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return aead

    def _unwrap(self, block: bytes) -> tuple[bytes, bytes]:
        """Return the content key and the id of the key that unwrapped it."""
        protected, enc, ciphertext = _split(block)
        kid = decode(protected)
        if not isinstance(kid, dict) or kid.keys() != {HEADER_ALG, HEADER_KID}:
            raise SealingError()
        key = self._keys.get(kid[HEADER_KID]) if isinstance(kid[HEADER_KID], bytes) else None
        if key is None:
            raise SealingError()
        suite = SUITES[key.public_key.suite]
        expected = encode({HEADER_ALG: suite.algorithm, HEADER_KID: key.public_key.key_id})
        if not hmac.compare_digest(protected, expected) or len(enc) != suite.encapsulated_bytes:
            raise SealingError()
        info = recipient_info(suite, protected, self._purpose)
        content_key: bytes = suite.hpke.decrypt(enc + ciphertext, key.hpke_key, info=info)
        if len(content_key) != CONTENT_KEY_BYTES:
            raise SealingError()
        return content_key, key.public_key.key_id


def _split(block: bytes) -> tuple[bytes, bytes, bytes]:
    parts = decode(block, max_bytes=MAX_RECIPIENT_BYTES)
    if not isinstance(parts, list) or len(parts) != 3:
        raise SealingError()
    protected, unprotected, ciphertext = parts
    if not (isinstance(protected, bytes) and isinstance(unprotected, dict) and isinstance(ciphertext, bytes)):
        raise SealingError()
    enc = unprotected.get(HEADER_EK)
    if unprotected.keys() != {HEADER_EK} or not isinstance(enc, bytes):
        raise SealingError()
    return protected, enc, ciphertext
