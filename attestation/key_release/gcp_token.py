"""A launcher token, exchanged for an access token: workload identity federation, by google-auth.

RFC 8693 as Google's Security Token Service speaks it; then, where a service account
is to be used, its ``generateAccessToken``. google-auth makes and reads the messages;
they travel through the house's bounded client, to the two configured addresses and
nowhere else (the library would look other things up by itself).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ...wire.errors import ConfigurationError, FetchError, KeyReleaseError, MalformedError
from ..attest.launcher import TokenKind
from ..confidential_space.details import nonces_for
from ..confidential_space.parse import parse
from ..fetch.http import fetch
from .gcp_settings import GcpSettings

# Cloud KMS, "Authorization": the narrowest scope that may encrypt and decrypt.
SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
SUBJECT_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105
NONCE_BYTES: Final = 32
MAX_ANSWER_BYTES: Final = 65_536
MAX_TOKEN_CHARACTERS: Final = 16_384


class TokenSource(Protocol):
    """What gives launcher tokens; :class:`~..attest.launcher.Launcher` is one."""

    def token(self, *, audience: str, nonces: tuple[str, ...], kind: TokenKind) -> bytes:
        """Return a fresh token.

        :raises Error: it could not be made.
        """
        ...


def access_token(
    settings: GcpSettings,
    source: TokenSource,
    *,
    timeout_s: float,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """Return an access token for Cloud KMS, for a fresh launcher token with a fresh nonce.

    :param timeout_s: for each of the requests, in seconds.
    :raises KeyReleaseError: ``KMS_DENIED`` (STS or IAM does not accept this TEE), ``KMS_UNAVAILABLE`` or
        ``KMS_THROTTLED`` (retriable), ``KMS_BAD_TOKEN`` or ``KMS_BAD_ANSWER``.
    :raises ConfigurationError: ``EXTRA_MISSING``, ``BAD_URL`` or the launcher's.
    """
    auth = _google_auth()
    credentials = _credentials(settings, _Supplier(settings, source, random), auth)
    allowed = {url for url in (settings.sts_url, settings.impersonation_url) if url is not None}
    try:
        credentials.refresh(_Transport(allowed, timeout_s))
        token = credentials.token
    except auth.exceptions.GoogleAuthError as error:
        if isinstance(error, auth.exceptions.OAuthError | auth.exceptions.RefreshError):
            raise KeyReleaseError(
                "KMS_DENIED", "STS or IAM does not accept this TEE: compare image, audience and condition"
            ) from None
        raise _bad_answer() from None
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
        # The library takes the answer's members as they come, and nests as deeply as they do.
        raise _bad_answer() from None
    # It becomes a header: whoever sends it must not choose more than its value.
    if not isinstance(token, str) or not 1 <= len(token) <= MAX_TOKEN_CHARACTERS or not _is_plain(token):
        raise _bad_answer()
    return token


def _google_auth() -> Any:
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.identity_pool
    except ImportError:
        raise missing_extra() from None
    return google.auth


def missing_extra() -> ConfigurationError:
    """Return the one line that names the extra."""
    return ConfigurationError("EXTRA_MISSING", "Google Cloud KMS needs pip install 'ephemeralml[gcp]'")


def _credentials(settings: GcpSettings, supplier: _Supplier, auth: Any) -> Any:
    return auth.identity_pool.Credentials(
        audience=settings.resource,
        subject_token_type=SUBJECT_TOKEN_TYPE,
        token_url=settings.sts_url,
        subject_token_supplier=supplier,
        service_account_impersonation_url=settings.impersonation_url,
        scopes=[SCOPE],
    )


class _Supplier:
    """Gives google-auth (its ``SubjectTokenSupplier``) a token that nobody has seen before."""

    def __init__(self, settings: GcpSettings, source: TokenSource, random: Callable[[int], bytes]) -> None:
        self._audience = settings.audience
        self._source = source
        self._random = random

    def get_subject_token(self, _context: object, _request: object) -> str:
        """Return a launcher token with a nonce of its own."""
        nonces = nonces_for(nonce=self._random(NONCE_BYTES))
        token = self._source.token(audience=self._audience, nonces=nonces, kind="OIDC")
        _check(token, self._audience, nonces)
        return token.decode("ascii")


def _check(token: bytes, audience: str, nonces: tuple[str, ...]) -> None:
    """Send nothing to STS that is not a token of this request."""
    try:
        read = parse(token)
    except MalformedError:
        raise KeyReleaseError("KMS_BAD_TOKEN", "the launcher's token does not follow its format") from None
    if read.chain or read.audience != audience or set(read.nonces) != set(nonces):
        raise KeyReleaseError("KMS_BAD_TOKEN", "the launcher's token carries other values")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What google-auth reads of an answer (its ``transport.Response``)."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _Transport:
    """Sends google-auth's messages (its ``transport.Request``), each once."""

    def __init__(self, allowed: Collection[str], timeout_s: float) -> None:
        self._allowed = allowed
        self._timeout_s = timeout_s

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> _Answer:
        """Send one.

        :raises KeyReleaseError: ``KMS_UNAVAILABLE`` or ``KMS_THROTTLED`` (retriable), or
            ``KMS_REFUSED_REQUEST``.
        """
        if url not in self._allowed or method != "POST":
            raise KeyReleaseError("KMS_REFUSED_REQUEST", "google-auth asked an address of its own")
        try:
            answer = fetch(
                url,
                max_bytes=MAX_ANSWER_BYTES,
                timeout_s=self._timeout_s,
                headers=headers,
                method="POST",
                body=body,
            )
        except FetchError:
            raise _unavailable() from None
        if answer.status == 429:
            raise KeyReleaseError(
                "KMS_THROTTLED", "STS or IAM is asked too often: ask for a higher quota", retriable=True
            )
        if answer.status >= 500:
            raise _unavailable()
        return _Answer(answer.status, answer.headers, answer.body)


def _is_plain(token: str) -> bool:
    return all("!" <= character <= "~" for character in token)


def _unavailable() -> KeyReleaseError:
    return KeyReleaseError(
        "KMS_UNAVAILABLE", "Google's STS or IAM is busy or cannot be reached", retriable=True
    )


def _bad_answer() -> KeyReleaseError:
    return KeyReleaseError("KMS_BAD_ANSWER", "STS's or IAM's answer holds no access token")
