"""Checks AWS Signature Version 4 of a KMS request (IAM User Guide, "Create a signed AWS API request").

KMS requests are ``POST /`` without a query, which is all that is accepted here. The
signature is computed again from the configured secret and compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from ....wire.errors import ConfigurationError
from .config import Principal
from .refusals import Refusal

MAX_SKEW_S: Final = 300
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]{1,128})/(\d{8})/([a-z0-9-]{1,32})/kms/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]{1,1024}), ?Signature=([0-9a-f]{64})"
)
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")
# Unsigned, any of these could be changed on the way.
_MUST_SIGN: Final = frozenset({"host", "x-amz-date", "x-amz-target"})


class Authenticator:
    """Names the principal who signed a request.

    :param region: the only region that signatures may be scoped to.
    :raises ConfigurationError: ``BAD_PRINCIPALS``: two with one access key, or an empty secret.
    """

    def __init__(self, principals: Iterable[Principal], region: str) -> None:
        everyone = list(principals)
        self._principals = {principal.access_key_id: principal for principal in everyone}
        if len(self._principals) != len(everyone) or not all(one.secret_access_key for one in everyone):
            raise ConfigurationError("BAD_PRINCIPALS", "access keys must differ and have secrets")
        self._region = region

    def authenticate(self, headers: Mapping[str, str], body: bytes, now: float) -> Principal:
        """Return who signed ``POST /`` with these headers (lower-case names) and body.

        :raises Refusal: ``MissingAuthenticationTokenException``, ``IncompleteSignatureException``,
            ``UnrecognizedClientException`` or ``InvalidSignatureException``.
        """
        authorization = headers.get("authorization")
        if authorization is None:
            raise Refusal("MissingAuthenticationTokenException", "the request is not signed")
        match = _AUTHORIZATION.fullmatch(authorization)
        if match is None:
            raise Refusal("IncompleteSignatureException", "the Authorization header is not of its form")
        access_key, day, region, signed, signature = match.groups()
        names = signed.split(";")
        if names != sorted(set(names)) or not _MUST_SIGN <= set(names) <= headers.keys():
            raise Refusal("IncompleteSignatureException", "a header that must be signed is not")
        self._check_date(headers["x-amz-date"], day, now)
        principal = self._principals.get(access_key)
        if principal is None:
            raise Refusal("UnrecognizedClientException", "the access key is unknown")
        canonical = canonical_request(headers, names, body)
        expected = sign(principal.secret_access_key, region, canonical, headers["x-amz-date"])
        if region != self._region or not hmac.compare_digest(expected, signature):
            raise Refusal("InvalidSignatureException", "the request's signature does not match")
        return principal

    def _check_date(self, date: str, day: str, now: float) -> None:
        if not _DATE.fullmatch(date) or not date.startswith(day):
            raise Refusal("IncompleteSignatureException", "the request's date is not of its form")
        try:
            made = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise Refusal("IncompleteSignatureException", "the request's date is not of its form") from None
        if abs(now - made) > MAX_SKEW_S:
            raise Refusal("InvalidSignatureException", "the request's signature has expired")


def canonical_request(headers: Mapping[str, str], names: Iterable[str], body: bytes) -> bytes:
    """Return the canonical form of a ``POST /``."""
    names = list(names)
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join(["POST", "/", "", *lines, "", ";".join(names), digest]).encode()


def sign(secret: str, region: str, request: bytes, date: str) -> str:
    """Return the signature of a canonical request, hexadecimal.

    :param date: ``YYYYMMDDTHHMMSSZ``.
    """
    scope = f"{date[:8]}/{region}/kms/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(request).hexdigest()}"
    key = ("AWS4" + secret).encode()
    for part in (date[:8], region, "kms", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()
