"""Reads what NVIDIA's Remote Attestation Service answers; says nothing about whether it is genuine.

Form (docs.nvidia.com/attestation, "GPU Claims", versions 2.0 to 4.0; RFC 9711, section 4.2.18, detached
submodules): ``[["JWT", overall], {"GPU-0": token, …}]``. The overall token states, for every device,
the SHA-256 of its token as it stands in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...wire.encoding import sha256
from ...wire.errors import MalformedError
from ..jwt import Jwt, read_jwt
from ..strict_json import read_json

MAX_ANSWER_BYTES: Final = 65_536
MAX_DEVICES: Final = 8
MAX_TIME: Final = 253_402_300_799  # the last second of the year 9999
_NAME: Final = re.compile(r"GPU-[0-7]")
_NONCE: Final = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_KID: Final = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A token of the service's, and what all of them have; unverified.

    :param digest: SHA-256 of the token as it stands in the answer, 32 bytes.
    :param nonce: 32 bytes; None where it states none, as it does for a device that it could not judge.
    :param issued_at: :param not_before: :param expires_at: Unix seconds.
    """

    jwt: Jwt = field(repr=False)
    digest: bytes = field(repr=False)
    key_id: str
    issuer: str
    nonce: bytes | None = field(repr=False)
    issued_at: int
    not_before: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; unverified.

    :param result: the service's overall word. :param digests: of the devices' tokens, by name.
    """

    overall: ServiceToken
    result: bool
    nonce: bytes = field(repr=False)
    digests: Mapping[str, bytes] = field(repr=False)
    devices: Mapping[str, ServiceToken]


def read_answer(data: bytes) -> Answer:
    """Read an answer.

    :param data: JSON in UTF-8, at most 65,536 bytes.
    :raises MalformedError: ``BAD_ANSWER``, or as :func:`~..strict_json.read_json` and
        :func:`~..jwt.read_jwt`.
    """
    match read_json(data, max_bytes=MAX_ANSWER_BYTES):
        case [["JWT", str() as overall], dict() as devices] if 1 <= len(devices) <= MAX_DEVICES:
            token = _token(overall)
            result = token.jwt.claims.get("x-nvidia-overall-att-result")
            if not isinstance(result, bool) or token.nonce is None:
                raise _bad("no overall result, or no nonce")
            return Answer(
                token,
                result,
                token.nonce,
                _digests(token.jwt.claims.get("submods")),
                {_name(name): _token(text) for name, text in sorted(devices.items())},
            )
    raise _bad("no overall token beside those of one to eight devices")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _bad("a device of another kind")
    return name


def _token(text: object) -> ServiceToken:
    if not isinstance(text, str):
        raise _bad("no token where one should be")
    data = text.encode()
    jwt = read_jwt(data, max_bytes=MAX_ANSWER_BYTES)
    key_id, issuer, nonce = jwt.header.get("kid"), jwt.claims.get("iss"), jwt.claims.get("eat_nonce")
    if not isinstance(key_id, str) or not _KID.fullmatch(key_id) or not isinstance(issuer, str):
        raise _bad("a token without key id or issuer")
    if set(jwt.header) - {"alg", "kid", "typ"}:
        raise _bad("a token with a header that is not known")
    if nonce is not None and not (isinstance(nonce, str) and _NONCE.fullmatch(nonce)):
        raise _bad("a nonce that is not 32 bytes in hexadecimal")
    issued_at, not_before, expires_at = (_time(jwt, name) for name in ("iat", "nbf", "exp"))
    if expires_at < max(issued_at, not_before):
        raise _bad("a token that expires before it is valid")
    return ServiceToken(
        jwt,
        sha256(data),
        key_id,
        issuer,
        None if nonce is None else bytes.fromhex(nonce),
        issued_at,
        not_before,
        expires_at,
    )


def _time(jwt: Jwt, name: str) -> int:
    value = jwt.claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_TIME:
        raise _bad("a token without its times")
    return value


def _digests(value: object) -> dict[str, bytes]:
    if not isinstance(value, dict):
        raise _bad("no digests of devices")
    found: dict[str, bytes] = {}
    for name, entry in value.items():
        match entry:
            case ["DIGEST", [("SHA-256" | "SHA256"), str() as digest]] if _DIGEST.fullmatch(digest):
                found[_name(name)] = bytes.fromhex(digest)
            case _:
                raise _bad("a device without a SHA-256 digest")
    return found


def _bad(what: str) -> MalformedError:
    return MalformedError("BAD_ANSWER", f"an NRAS answer has {what}")
