"""Reads the JSON bodies of KMS requests; closed shapes, bounded sizes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .refusals import Refusal, invalid

MAX_BODY_BYTES: Final = 524_288
MAX_CONTEXT_BYTES: Final = 8_192
MAX_PLAINTEXT_BYTES: Final = 4_096
MAX_BLOB_BYTES: Final = 6_144
MAX_DOCUMENT_BYTES: Final = 262_144
MAX_KEY_ID_BYTES: Final = 2_048
_RECIPIENT: Final = {"KeyEncryptionAlgorithm", "AttestationDocument"}
_KEY_SPECS: Final = {"AES_256": 32, "AES_128": 16}

_FIELDS: Final = {
    "GenerateDataKey": {"KeyId", "EncryptionContext", "NumberOfBytes", "KeySpec", "Recipient"},
    "Decrypt": {"KeyId", "CiphertextBlob", "EncryptionContext", "EncryptionAlgorithm", "Recipient"},
    "Encrypt": {"KeyId", "Plaintext", "EncryptionContext", "EncryptionAlgorithm"},
    "DescribeKey": {"KeyId"},
    "GetKeyPolicy": {"KeyId", "PolicyName"},
    "EnableKey": {"KeyId"},
    "DisableKey": {"KeyId"},
    "CancelKeyDeletion": {"KeyId"},
    "ScheduleKeyDeletion": {"KeyId", "PendingWindowInDays"},
    "CreateAlias": {"AliasName", "TargetKeyId"},
    "ListKeys": {"Limit"},
    "ListAliases": {"KeyId", "Limit"},
}
LISTS: Final = frozenset({"ListKeys", "ListAliases"})
_ALIAS: Final = re.compile(r"alias/(?!aws/)[a-zA-Z0-9/_-]{1,250}")
# AWS KMS API Reference, "ScheduleKeyDeletion".
_DAYS: Final = range(7, 31)
_DEFAULT_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Request:
    """One well-formed request.

    :param key_id: as the caller names it; None only for Decrypt and lists.
    :param data: plaintext of Encrypt or blob of Decrypt.
    :param size: bytes that GenerateDataKey shall make.
    :param document: attestation document of the recipient.
    :param days: until a key is deleted. :param alias: a new name.
    """

    operation: str
    key_id: str | None
    context: Mapping[str, str]
    data: bytes = field(default=b"", repr=False)
    size: int = 0
    document: bytes | None = field(default=None, repr=False)
    days: int = _DEFAULT_DAYS
    alias: str = ""


def read_request(operation: str, body: bytes) -> Request:
    """Return the request that a body holds.

    :raises Refusal: ``UnknownOperationException``, ``SerializationException`` or ``ValidationException``.
    """
    if operation not in _FIELDS:
        raise Refusal("UnknownOperationException", "the local KMS does not have this operation")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("SerializationException", "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal("SerializationException", "the body is not a JSON object")
    # boto3 leaves absent fields out; other clients send null.
    value = {name: item for name, item in value.items() if item is not None}
    if value.keys() - _FIELDS[operation]:
        raise invalid("the request has a field that the local KMS does not have")
    if value.get("EncryptionAlgorithm", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        raise invalid("the keys are symmetric")
    if value.get("PolicyName", "default") != "default":
        raise invalid("a key has one policy, named default")
    return Request(
        operation,
        _key_id(value, operation),
        _context(value.get("EncryptionContext", {})),
        _data(operation, value),
        _size(value) if operation == "GenerateDataKey" else 0,
        _document(value.get("Recipient")),
        _days(value.get("PendingWindowInDays", _DEFAULT_DAYS)),
        _alias(value["AliasName"]) if "AliasName" in value else "",
    )


def _key_id(value: Mapping[str, Any], operation: str) -> str | None:
    key_id = value.get("TargetKeyId" if operation == "CreateAlias" else "KeyId")
    if key_id is None and (operation == "Decrypt" or operation in LISTS):
        return None
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_BYTES:
        raise invalid("KeyId is missing or of the wrong size")
    if operation == "CreateAlias" and "AliasName" not in value:
        raise invalid("AliasName is missing")
    return key_id


def _days(value: object) -> int:
    if type(value) is not int or value not in _DAYS:
        raise invalid("PendingWindowInDays is 7 to 30")
    return value


def _alias(value: object) -> str:
    if not isinstance(value, str) or not _ALIAS.fullmatch(value):
        raise invalid("AliasName is not of its form")
    return value


def _context(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise invalid("EncryptionContext is not a map of texts")
    try:
        size = sum(len(name.encode()) + len(text.encode()) for name, text in value.items())
    except UnicodeEncodeError:
        raise invalid("EncryptionContext is not valid Unicode") from None
    if size > MAX_CONTEXT_BYTES:
        raise invalid("EncryptionContext is too large")
    return value


def _data(operation: str, value: Mapping[str, Any]) -> bytes:
    if operation == "Decrypt":
        return _binary(value.get("CiphertextBlob"), MAX_BLOB_BYTES)
    return _binary(value.get("Plaintext"), MAX_PLAINTEXT_BYTES) if operation == "Encrypt" else b""


def _size(value: Mapping[str, Any]) -> int:
    if ("NumberOfBytes" in value) == ("KeySpec" in value):
        raise invalid("give either NumberOfBytes or KeySpec")
    spec = value.get("KeySpec")
    size = value["NumberOfBytes"] if spec is None else _KEY_SPECS.get(spec) if isinstance(spec, str) else None
    if type(size) is not int or not 1 <= size <= 1024:
        raise invalid("NumberOfBytes or KeySpec is out of range")
    return size


def _document(recipient: object) -> bytes | None:
    if recipient is None:
        return None
    if not isinstance(recipient, dict) or recipient.keys() != _RECIPIENT:
        raise invalid("Recipient is not of its form")
    if recipient["KeyEncryptionAlgorithm"] != "RSAES_OAEP_SHA_256":
        raise invalid("KeyEncryptionAlgorithm is RSAES_OAEP_SHA_256")
    return _binary(recipient["AttestationDocument"], MAX_DOCUMENT_BYTES)


def _binary(value: object, maximum: int) -> bytes:
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not 0 < len(data) <= maximum:
        raise invalid("a binary field is missing, malformed or of the wrong size")
    return data
