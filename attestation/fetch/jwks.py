"""Fetches the issuer's JWKS for OIDC tokens of Confidential Space.

Discovery (OpenID Connect Discovery 1.0, section 4): the issuer's
``/.well-known/openid-configuration`` names the JWKS by ``jwks_uri``. Both hosts are
pinned: a discovery document must not lead to somebody else's keys, for a JWKS is
signed by nobody. What the cache holds is read again by the same strict reader, and
whoever may write there chooses the keys: it must be the verifier's own folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ...wire.errors import EndorsementsError, FetchError, MalformedError
from ..confidential_space.endorsements import (
    GOOGLE_ISSUER,
    JWKS_FILE,
    MAX_JWKS_BYTES,
    ConfidentialSpaceEndorsements,
    read_jwks,
)
from ..strict_json import read_json_object
from .http import fetch

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
MAX_DISCOVERY_BYTES: Final = 16_384
# Where Google's discovery document leads.
GOOGLE_JWKS_HOSTS: Final = ("www.googleapis.com",)
DEFAULT_MAX_AGE_S: Final = 3_600
DEFAULT_MAX_STALE_S: Final = 7 * 86_400


def fetch_jwks(
    *, issuer: str = GOOGLE_ISSUER, jwks_hosts: Collection[str] = GOOGLE_JWKS_HOSTS, timeout_s: float = 10.0
) -> bytes:
    """Return the issuer's JWKS, well formed.

    :param issuer: its address; the discovery document must name the same.
    :param jwks_hosts: where the JWKS may lie. :param timeout_s: for each of the two requests, in seconds.
    :raises FetchError: those of :func:`.http.fetch`, or ``FETCH_REFUSED``: a status other than 200.
    :raises EndorsementsError: ``WRONG_ISSUER``, ``JWKS_ELSEWHERE`` (the discovery document leads to another
        host) or ``NO_KEYS``.
    :raises MalformedError: as :func:`~..confidential_space.endorsements.read_jwks`, or ``BAD_DISCOVERY``.
    """
    discovery = _get(issuer + DISCOVERY_PATH, MAX_DISCOVERY_BYTES, timeout_s)
    jwks = _get(_jwks_uri(discovery, issuer, jwks_hosts), MAX_JWKS_BYTES, timeout_s)
    read_jwks(jwks)
    return jwks


def cached_endorsements(
    folder: Path,
    now: float,
    *,
    max_age_s: float = DEFAULT_MAX_AGE_S,
    max_stale_s: float = DEFAULT_MAX_STALE_S,
    issuer: str = GOOGLE_ISSUER,
    jwks_hosts: Collection[str] = GOOGLE_JWKS_HOSTS,
    timeout_s: float = 10.0,
) -> ConfidentialSpaceEndorsements:
    """Return endorsements with the issuer's keys: from the folder while they are young, else fetched.

    Where fetching fails, keys from the folder serve a while longer; not for ever, because a key that the
    issuer withdrew would then stay good for whoever can block the network.

    :param folder: the verifier's own; made where it is not there. :param now: Unix seconds.
    :param max_age_s: of a file that is not fetched again, in seconds.
    :param max_stale_s: of a file that serves where fetching fails, in seconds.
    :raises Error: as :func:`fetch_jwks`, when nothing young enough is cached.
    """
    path = folder / JWKS_FILE
    cached = _cached(path)
    if cached is None or not 0 <= now - cached[1] <= max_age_s:
        try:
            data = fetch_jwks(issuer=issuer, jwks_hosts=jwks_hosts, timeout_s=timeout_s)
        except (FetchError, EndorsementsError, MalformedError):
            if cached is None or not 0 <= now - cached[1] <= max_stale_s:
                raise
        else:
            _write(path, data, now)
            cached = (data, now)
    return ConfidentialSpaceEndorsements.from_files({JWKS_FILE: cached[0]}, issuer=issuer)


def _jwks_uri(discovery: bytes, issuer: str, hosts: Collection[str]) -> str:
    document = read_json_object(discovery, max_bytes=MAX_DISCOVERY_BYTES)
    if document.get("issuer") != issuer:
        raise EndorsementsError("WRONG_ISSUER", "the discovery document is of another issuer")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str) or not uri.isascii():
        raise MalformedError("BAD_DISCOVERY", "the discovery document names no JWKS")
    try:
        host = urlsplit(uri).hostname
    except ValueError:
        host = None
    if host not in hosts:
        raise EndorsementsError("JWKS_ELSEWHERE", "the discovery document leads to a host that is not pinned")
    return uri


def _get(url: str, max_bytes: int, timeout_s: float) -> bytes:
    answer = fetch(url, max_bytes=max_bytes, timeout_s=timeout_s)
    if answer.status != 200:
        raise FetchError("FETCH_REFUSED", f"the issuer's address answers {answer.status}")
    return answer.body


def _cached(path: Path) -> tuple[bytes, float] | None:
    """Return a JWKS that can be read, and when it was fetched (Unix seconds)."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JWKS_BYTES + 1)
            fetched_at = os.fstat(file.fileno()).st_mtime
        read_jwks(data)
    except (OSError, MalformedError, EndorsementsError):
        return None
    return data, fetched_at


def _write(path: Path, data: bytes, now: float) -> None:
    """Replace the file whole; a cache that cannot be written is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.utime(temporary, (now, now))
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
