"""Reads a Confidential Space attestation token; says nothing about whether it is genuine.

Format: Google Cloud, "Confidential Space: Attestation token claims" (top-level and
``submods`` claims) and "Attestation assertions". A token is a JWT in compact
serialisation, signed with RS256. An *OIDC* token names a key of the issuer's JWKS
(``kid``); a *PKI* token carries its chain (``x5c``: leaf, intermediate, root).

The header is closed: what could name a key from elsewhere (``jku``, ``jwk``,
``x5u``) or change the meaning (``crit``, ``b64``) is refused. The claims are open,
because the vendor adds to them; those that are read have their type and bounds.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...wire.errors import MalformedError
from ..jwt import Jwt, read_jwt
from .claims import MAX_KID_BYTES, MAX_TIME, Claims

MAX_TOKEN_BYTES: Final = 32_768  # recorded tokens: 2.6 KB, 11 KB with a chain
MAX_CHAIN: Final = 4  # recorded chains: 3
MAX_CERTIFICATE_BYTES: Final = 4_096
MAX_NONCES: Final = 6
MIN_NONCE_BYTES: Final = 8
MAX_NONCE_BYTES: Final = 88
MAX_TEXT_BYTES: Final = 512  # of an audience, there
MAX_LIST: Final = 256
MAX_LONG_TEXT_BYTES: Final = 8_192  # of one argument or variable

_HEADER: Final = frozenset({"alg", "kid", "typ", "x5c"})


@dataclass(frozen=True, slots=True)
class ConfidentialSpaceToken:
    """A well-formed token whose signature has *not* been checked.

    :param key_id: of the issuer's JWKS; None where a PKI token names none.
    :param chain: DER certificates of a PKI token, the leaf first; empty for an OIDC token.
    :param issued_at: :param not_before: :param expires_at: Unix seconds; at ``expires_at`` it is expired.
    :param nonces: ``eat_nonce``, in the token's order.
    :param debug_status: ``"disabled-since-boot"``, or anything else for a debug image.
    :param support_attributes: None where the token says nothing of support (debug images).
    :param command: the container's whole argument vector. :param gpu_cc_mode: None where it has no GPU.
    """

    raw: bytes = field(repr=False)
    jwt: Jwt = field(repr=False)
    key_id: str | None
    chain: tuple[bytes, ...] = field(repr=False)
    issuer: str
    audience: str
    subject: str
    issued_at: int
    not_before: int
    expires_at: int
    nonces: tuple[str, ...]
    debug_status: str
    secure_boot: bool
    hardware_model: str
    software_name: str
    software_version: str
    support_attributes: tuple[str, ...] | None
    service_accounts: tuple[str, ...]
    image_digest: str
    image_reference: str
    restart_policy: str | None
    command: tuple[str, ...] = field(repr=False)
    command_override: tuple[str, ...] | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    environment_override: Mapping[str, str] = field(repr=False)
    project_id: str | None
    zone: str | None
    gpu_cc_mode: str | None


def parse(data: bytes) -> ConfidentialSpaceToken:
    """Read a token and hold every claim that is used to its type and bounds.

    :raises MalformedError: the codes of :func:`~..jwt.read_jwt`, ``BAD_HEADER``, ``BAD_ALG``, ``BAD_CHAIN``,
        ``MISSING_CLAIM``, ``WRONG_TYPE``, ``OUT_OF_BOUNDS`` or ``BAD_TIMES``.
    """
    jwt = read_jwt(data, max_bytes=MAX_TOKEN_BYTES)
    key_id, chain = _header(jwt.header)
    claims = Claims(jwt.claims, "token")
    submods = claims.section("submods")
    container = submods.section("container")
    machine = submods.optional_section("gce")
    issued_at, not_before, expires_at = _times(claims)
    return ConfidentialSpaceToken(
        raw=bytes(data),
        jwt=jwt,
        key_id=key_id,
        chain=chain,
        issuer=claims.text("iss", MAX_TEXT_BYTES),
        audience=claims.text("aud", MAX_TEXT_BYTES),
        subject=claims.text("sub", MAX_TEXT_BYTES),
        issued_at=issued_at,
        not_before=not_before,
        expires_at=expires_at,
        nonces=_nonces(claims),
        debug_status=claims.text("dbgstat", MAX_TEXT_BYTES),
        secure_boot=claims.flag("secboot"),
        hardware_model=claims.text("hwmodel", MAX_TEXT_BYTES),
        software_name=claims.text("swname", MAX_TEXT_BYTES),
        software_version=_version(claims),
        support_attributes=submods.optional_section("confidential_space").optional_texts(
            "support_attributes", MAX_LIST, MAX_TEXT_BYTES
        ),
        service_accounts=claims.texts("google_service_accounts", MAX_LIST, MAX_TEXT_BYTES),
        image_digest=container.text("image_digest", MAX_TEXT_BYTES),
        image_reference=container.text("image_reference", MAX_TEXT_BYTES),
        restart_policy=container.optional_text("restart_policy", MAX_TEXT_BYTES),
        command=container.texts("args", MAX_LIST, MAX_LONG_TEXT_BYTES),
        command_override=container.optional_texts("cmd_override", MAX_LIST, MAX_LONG_TEXT_BYTES),
        environment=container.table("env", MAX_LIST, MAX_LONG_TEXT_BYTES),
        environment_override=container.table("env_override", MAX_LIST, MAX_LONG_TEXT_BYTES),
        project_id=machine.optional_text("project_id", MAX_TEXT_BYTES),
        zone=machine.optional_text("zone", MAX_TEXT_BYTES),
        gpu_cc_mode=submods.optional_section("nvidia_gpu").optional_text("cc_mode", MAX_TEXT_BYTES),
    )


def _header(header: Mapping[str, object]) -> tuple[str | None, tuple[bytes, ...]]:
    if not header.keys() <= _HEADER:
        raise MalformedError("BAD_HEADER", "the token's header has fields that are not allowed")
    if header.get("alg") != "RS256":
        raise MalformedError("BAD_ALG", "the token's algorithm is not RS256")
    if header.get("typ", "JWT") != "JWT":
        raise MalformedError("BAD_HEADER", "the token's type is not JWT")
    key_id = header.get("kid")
    if "x5c" in header:
        chain = _chain(header["x5c"])
    else:
        chain = ()
        if key_id is None:
            raise MalformedError("BAD_HEADER", "the token names neither a key nor a chain")
    if "kid" in header and not (isinstance(key_id, str) and 1 <= len(key_id.encode()) <= MAX_KID_BYTES):
        raise MalformedError("BAD_HEADER", "the token's key id is no text of 1 to 256 bytes")
    return (key_id if isinstance(key_id, str) else None), chain


def _chain(value: object) -> tuple[bytes, ...]:
    """Read ``x5c``: base64 with padding, not base64url (RFC 7515, section 4.1.6)."""
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_CHAIN:
        raise MalformedError("BAD_CHAIN", f"x5c has not 2 to {MAX_CHAIN} certificates")
    return tuple(_certificate(item) for item in value)


def _certificate(item: object) -> bytes:
    if isinstance(item, str) and item.isascii() and len(item) <= 2 * MAX_CERTIFICATE_BYTES:
        try:
            der = base64.b64decode(item, validate=True)
        except (binascii.Error, ValueError):
            der = b""
        if 0 < len(der) <= MAX_CERTIFICATE_BYTES and base64.b64encode(der).decode() == item:
            return der
    raise MalformedError("BAD_CHAIN", "a certificate of x5c is not canonical base64 of a bounded size")


def _times(claims: Claims) -> tuple[int, int, int]:
    issued_at, not_before, expires_at = (claims.uint(name, MAX_TIME) for name in ("iat", "nbf", "exp"))
    if not max(issued_at, not_before) < expires_at:
        raise MalformedError("BAD_TIMES", "the token expires before it is valid")
    return issued_at, not_before, expires_at


def _nonces(claims: Claims) -> tuple[str, ...]:
    """Read ``eat_nonce``: one text, or up to six, or absent."""
    if isinstance(claims.get("eat_nonce"), str):
        nonces: tuple[str, ...] = (claims.text("eat_nonce", MAX_NONCE_BYTES),)
    else:
        nonces = claims.texts("eat_nonce", MAX_NONCES, MAX_NONCE_BYTES)
    if any(len(nonce.encode()) < MIN_NONCE_BYTES for nonce in nonces):
        raise MalformedError("OUT_OF_BOUNDS", f"a nonce has fewer than {MIN_NONCE_BYTES} bytes")
    return nonces


def _version(claims: Claims) -> str:
    """Read ``swversion``: an array of one text (``YYYYMM##``, or ``YYMM##`` in recorded tokens)."""
    versions = claims.texts("swversion", 1, MAX_TEXT_BYTES)
    if len(versions) != 1:
        raise MalformedError("MISSING_CLAIM", "the token lacks the software's version")
    return versions[0]
