"""What operators ask about keys: metadata, states, aliases, lists (AWS KMS API Reference)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .config import ACCOUNT
from .refusals import Refusal
from .requests import Request
from .store import KeyStore, MasterKey

TENDING: Final = frozenset(
    {"DescribeKey", "EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion", "CreateAlias"}
)
_DAY_S: Final = 86_400


def tend(store: KeyStore, request: Request, key: MasterKey, now: float) -> dict[str, Any] | None:
    """Do what an operator asks; return the answer, ``None`` where it is the key's metadata.

    :raises Refusal: ``KMSInvalidStateException``, ``AlreadyExistsException`` or ``LimitExceededException``.
    """
    match request.operation:
        case "DescribeKey":
            return None
        case "CreateAlias":
            store.add_alias(key, request.alias)
        case "ScheduleKeyDeletion":
            _expect(key.deletion_at is None)
            deletion_at = int(now) + request.days * _DAY_S
            store.set_state(key, enabled=False, deletion_at=deletion_at)
            return {"KeyId": str(key.id), "DeletionDate": deletion_at, "KeyState": "PendingDeletion"}
        case "CancelKeyDeletion":
            _expect(key.deletion_at is not None)
            # A key comes back disabled (AWS KMS API Reference, "CancelKeyDeletion").
            store.set_state(key, enabled=False, deletion_at=None)
            return {"KeyId": str(key.id)}
        case _:
            _expect(key.deletion_at is None)
            store.set_state(key, enabled=request.operation == "EnableKey", deletion_at=None)
    return {"KeyId": str(key.id)}


def metadata(key: MasterKey, region: str) -> dict[str, Any]:
    """Return a key's ``KeyMetadata``."""
    found: dict[str, Any] = {
        "AWSAccountId": ACCOUNT,
        "KeyId": str(key.id),
        "Arn": key.arn(region),
        "CreationDate": key.created_at,
        "Enabled": key.state == "Enabled",
        "Description": "",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": key.state,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
    }
    return found if key.deletion_at is None else {**found, "DeletionDate": key.deletion_at}


def key_list(keys: Iterable[MasterKey], region: str) -> dict[str, Any]:
    """Return the answer of ``ListKeys``, always whole."""
    return {
        "Keys": [{"KeyId": str(key.id), "KeyArn": key.arn(region)} for key in keys],
        "Truncated": False,
    }


def alias_list(keys: Iterable[MasterKey], region: str) -> dict[str, Any]:
    """Return the answer of ``ListAliases``, always whole."""
    return {
        "Aliases": [
            {
                "AliasName": alias,
                "AliasArn": key.arn(region).split("key/")[0] + alias,
                "TargetKeyId": str(key.id),
            }
            for key in keys
            for alias in (key.alias, *key.aliases)
        ],
        "Truncated": False,
    }


def _expect(condition: bool) -> None:
    if not condition:
        raise Refusal("KMSInvalidStateException", "the key is in no state for this")
