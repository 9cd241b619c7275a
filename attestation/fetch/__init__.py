"""The only network of attestation: collateral is fetched apart, and verified like any other bytes.

>>> from ephemeralml.attestation.fetch import fetch
>>> from ephemeralml.wire.errors import ConfigurationError
>>> try:
...     fetch("http://example.org/collateral", max_bytes=1024)
... except ConfigurationError as error:
...     print(error.code)
BAD_URL
"""

from __future__ import annotations

from .http import Fetched, fetch

__all__ = ["Fetched", "fetch"]
