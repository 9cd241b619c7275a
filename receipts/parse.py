"""Layer 1 of AIR v1: from bytes to a claims map, with nothing accepted that has a second form."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..wire.encoding import Tag, decode
from ..wire.errors import MalformedError
from .checks import PARSE, Check, all_passed, failed, judged, passed, rest
from .issue import CONTENT_TYPE, MAX_RECEIPT_BYTES, MESSAGE_HEAD, PROTECTED, SIGNATURE_HEAD
from .rules import Fault, fault_in_profile

_TAG: Final = 18
_CODES: Final = {
    "CBOR_NOT_DETERMINISTIC": "NOT_DETERMINISTIC",
    "CBOR_TRAILING_BYTES": "TRAILING_BYTES",
    "CBOR_DUPLICATE_KEY": "DUPLICATE_KEY",
}


class Parsed(NamedTuple):
    """A receipt taken apart; ``claims`` is None unless every check of the layer passed."""

    checks: list[Check]
    payload: bytes
    signature: bytes
    claims: dict[object, object] | None


class _Refused(Exception):
    def __init__(self, check: str, code: str, detail: str) -> None:
        super().__init__(code)
        self.report = failed(PARSE, check, code, detail)


def parse_receipt(data: object) -> Parsed:
    """Take a receipt apart and report every check of layer 1. Never raises.

    Codes: ``RECEIPT_TOO_LARGE COSE_DECODE_FAILED NOT_DETERMINISTIC TRAILING_BYTES DUPLICATE_KEY
    NON_EMPTY_UNPROTECTED BAD_ALG BAD_CONTENT_TYPE EXTRA_PROTECTED_HEADER MISSING_PAYLOAD
    PAYLOAD_NOT_MAP WRONG_PROFILE``.
    """
    done: list[Check] = []
    try:
        return _parse(data, done)
    except _Refused as refused:
        return Parsed(rest(PARSE, [*done, refused.report]), b"", b"", None)


def _parse(data: object, done: list[Check]) -> Parsed:
    if not isinstance(data, bytes):
        raise _Refused("COSE", "COSE_DECODE_FAILED", "a receipt is a byte string")
    if len(data) > MAX_RECEIPT_BYTES:
        raise _Refused("SIZE", "RECEIPT_TOO_LARGE", f"more than {MAX_RECEIPT_BYTES} bytes")
    done.append(passed(PARSE, "SIZE"))
    protected, unprotected, payload, signature = _envelope(data)
    done.append(passed(PARSE, "COSE"))
    if unprotected:
        raise _Refused("UNPROTECTED", "NON_EMPTY_UNPROTECTED", "the unprotected header is not empty")
    done.append(passed(PARSE, "UNPROTECTED"))
    # Determinism leaves one encoding of the one header that is allowed.
    if protected != PROTECTED:
        done += _protected(protected)
        return Parsed(rest(PARSE, done), payload, signature, None)
    done += (passed(PARSE, "ALG"), passed(PARSE, "CTYPE"), passed(PARSE, "PROTECTED"))
    claims = _payload(payload)
    fault = fault_in_profile(claims)
    if fault is None:
        return Parsed(all_passed(PARSE), payload, signature, claims)
    done += (passed(PARSE, "PAYLOAD"), judged(PARSE, "PROFILE", fault))
    return Parsed(done, payload, signature, None)


def _decode(data: bytes, check: str, what: str, tags: tuple[int, ...] = ()) -> object:
    try:
        return decode(data, max_bytes=MAX_RECEIPT_BYTES, tags=tags)
    except MalformedError as error:
        code = _CODES.get(error.code, "COSE_DECODE_FAILED")
        raise _Refused(check, code, f"the {what}: {error.message}") from None


def _envelope(data: bytes) -> tuple[bytes, dict[object, object], bytes, bytes]:
    usual = _usual_envelope(data)
    if usual is not None:
        return PROTECTED, {}, *usual
    message = _decode(data, "COSE", "envelope", (_TAG,))
    if not isinstance(message, Tag):
        raise _Refused("COSE", "COSE_DECODE_FAILED", "tag 18 is missing")
    match message.value:
        case [bytes() as protected, dict() as unprotected, bytes() | None as payload, bytes() as signature]:
            return protected, unprotected, payload or b"", signature
    raise _Refused("COSE", "COSE_DECODE_FAILED", "not the four parts of a COSE_Sign1")


def _usual_envelope(data: bytes) -> tuple[bytes, bytes] | None:
    """Cut payload and signature out of an envelope that is byte for byte as :mod:`.issue` writes it.

    Such an envelope is deterministic by its form; any other goes through the decoder, which says why not.
    """
    start = len(MESSAGE_HEAD) + 3
    stop = len(data) - len(SIGNATURE_HEAD) - 64
    if stop - start < 0x100 or not data.startswith(MESSAGE_HEAD):
        return None
    payload_head = b"\x59" + (stop - start).to_bytes(2, "big")
    if data[start - 3 : start] != payload_head or data[stop : stop + 2] != SIGNATURE_HEAD:
        return None
    return data[start:stop], data[stop + 2 :]


def _protected(protected: bytes) -> list[Check]:
    """Report what is wrong in a header that is not the allowed one: ALG, CTYPE, PROTECTED."""
    header = _decode(protected, "PROTECTED", "protected header") if protected else {}
    if not isinstance(header, dict):
        raise _Refused("PROTECTED", "COSE_DECODE_FAILED", "the protected header is not a map")
    return [
        judged(PARSE, "ALG", _exactly(header, 1, -8, ("BAD_ALG", "the algorithm is not EdDSA"))),
        judged(
            PARSE,
            "CTYPE",
            _exactly(header, 3, CONTENT_TYPE, ("BAD_CONTENT_TYPE", "the content type is not 61")),
        ),
        judged(
            PARSE,
            "PROTECTED",
            ("EXTRA_PROTECTED_HEADER", "the protected header holds more than alg and content type")
            if header.keys() - {1, 3}
            else None,
        ),
    ]


def _exactly(header: dict[object, object], label: int, wanted: int, fault: Fault) -> Fault:
    value = header.get(label)
    # The type too: -8.0 equals -8 in Python.
    return None if type(value) is int and value == wanted else fault


def _payload(payload: bytes) -> dict[object, object]:
    if not payload:
        raise _Refused("PAYLOAD", "MISSING_PAYLOAD", "the payload is detached or empty")
    claims = _decode(payload, "PAYLOAD", "payload")
    if not isinstance(claims, dict):
        raise _Refused("PAYLOAD", "PAYLOAD_NOT_MAP", "the payload is not a map")
    return claims
