"""Says in words what a Nitro document claims. Nothing here is verified."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509

from ...wire.encoding import sha256
from .endorsements import AWS_NITRO_ROOT_G1
from .parse import NitroDocument, parse

_REGISTERS = {
    0: "the enclave's image",
    1: "kernel and boot",
    2: "the application",
    3: "the parent instance's IAM role",
    4: "the parent instance's id",
    8: "who signed the image",
}


def show(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return labels and words for a document, in the order of interest.

    :raises MalformedError: as :func:`.parse.parse`.
    """
    return tuple(_lines(parse(data)))


def _lines(document: NitroDocument) -> Iterator[tuple[str, str]]:
    real = sha256(document.cabundle[0]) == AWS_NITRO_ROOT_G1
    yield "platform", "AWS Nitro Enclave" if real else "Nitro's format under a root that is not AWS's"
    yield "module", document.module_id
    yield "made at", _time(document.timestamp_ms / 1000)
    yield "sha-256", sha256(document.raw).hex()
    debug = any(not any(document.pcrs[index]) for index in (0, 1, 2))
    yield "debug", "yes: its host may read its memory" if debug else "no"
    for index, value in sorted(document.pcrs.items()):
        if any(value) or index in _REGISTERS:
            meaning = f" ({_REGISTERS[index]})" if index in _REGISTERS else ""
            yield f"PCR{index}{meaning}", value.hex() if any(value) else "zero"
    yield "public key", _value(document.public_key)
    yield "user data", _value(document.user_data)
    yield "nonce", _value(document.nonce)
    yield "root", sha256(document.cabundle[0]).hex()
    for position, der in enumerate((*document.cabundle, document.certificate)):
        yield f"certificate {position}", _certificate(der)


def _value(value: bytes | None) -> str:
    return "none" if value is None else f"{value.hex()} ({len(value)} bytes)" if value else "empty"


def _certificate(der: bytes) -> str:
    try:
        certificate = x509.load_der_x509_certificate(der)
        window = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        name = certificate.subject.rfc4514_string()
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        return "cannot be read"
    return f"{name}, valid {window[0]:%Y-%m-%d %H:%M:%S} to {window[1]:%Y-%m-%d %H:%M:%S} UTC"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
