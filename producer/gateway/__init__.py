"""The untrusted half of the producer's side: what may run outside the client's premises.

Only code that handles ciphertext, hashes, padded sizes and timings may live here: batch API,
store, relay, webhook sender. An import contract (``gateway`` in ``pyproject.toml``) refuses any
module below this one that reaches :mod:`ephemeralml.wire.opening` or
:mod:`ephemeralml.wire.private_keys`, directly or through others.
"""
