"""What the local KMS does with a request, from signature to answer; knows nothing of HTTP.

1. who signed it; 2. what is asked; 3. what its document proves; 4. what the key's
policy says; 5. whether the key may be used; 6. the document is used up; 7. the answer, as
CMS when there is a document; 8. the audit line, before the answer leaves.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..cms import make_enveloped
from . import keys
from .audit import AuditLog
from .config import LocalKmsConfig
from .documents import Attested, Documents
from .policy import Call, KeyPolicy, read_policy
from .refusals import Refusal, denied
from .requests import LISTS, Request, read_request
from .sigv4 import Authenticator
from .store import KeyStore, MasterKey

TARGET_PREFIX: Final = "TrentService."


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and JSON body."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    request_id: str


class KmsService:
    """The KMS itself.

    :param now: clock, Unix seconds.
    :raises ConfigurationError: a policy, a root or the folder is not usable.
    """

    def __init__(self, config: LocalKmsConfig, *, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self._now = now
        self._policies: dict[str, KeyPolicy] = {
            alias: read_policy(document) for alias, document in config.policies.items()
        }
        self._authenticator = Authenticator(config.principals.values(), config.region)
        self._documents = Documents(
            config.roots,
            max_age_s=config.max_document_age_s,
            single_use=config.single_use,
            not_before=int(now()),
        )
        self._store = KeyStore(config.directory, config.policies, master=config.master_key, now=now())
        self._audit = AuditLog(config.directory, max_bytes=config.max_audit_bytes)

    def close(self) -> None:
        """Close the audit log."""
        self._audit.close()

    def handle(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a ``POST /`` with these headers (lower-case names)."""
        request_id = str(uuid.uuid4())
        now = self._now()
        entry: dict[str, object] = {"time": int(now), "request_id": request_id, "outcome": "released"}
        try:
            answer = Answer(200, self._answer(headers, body, now, entry), request_id)
        except Refusal as refusal:
            entry |= {"outcome": refusal.kind, "reason": refusal.message}
            answer = _refused(refusal, request_id)
        except Exception:  # a fault of ours: its text may hold anything
            entry |= {"outcome": "KMSInternalException"}
            answer = _refused(Refusal("KMSInternalException", "internal error"), request_id)
        try:
            self._audit.write(entry)
        except (OSError, ValueError):
            return _refused(Refusal("KMSInternalException", "the audit log cannot be written"), request_id)
        return answer

    def _answer(
        self, headers: Mapping[str, str], body: bytes, now: float, entry: dict[str, object]
    ) -> dict[str, Any]:
        principal = self._authenticator.authenticate(headers, body, now)  # 1
        entry["principal"] = principal.name
        target = headers["x-amz-target"]
        if not target.startswith(TARGET_PREFIX):
            raise Refusal("UnknownOperationException", "the target is not KMS")
        request = read_request(target.removeprefix(TARGET_PREFIX), body)  # 2
        entry |= {"operation": request.operation, "context": dict(request.context)}
        attested = None
        if request.document is not None:
            attested = self._documents.verify(request.document, int(now))  # 3
            entry |= {"document": attested.signed_hash.hex(), "pcr0": attested.registers[0].hex()}
        if request.operation in LISTS:
            return self._list(request, principal.arn, now)
        key = self._key(request, now)
        entry["key"] = key.alias
        registers = {} if attested is None else attested.registers
        if not self._allowed(key, Call(principal.arn, request.operation, registers, request.context)):  # 4
            raise denied()
        if request.operation == "GetKeyPolicy":
            return {"Policy": json.dumps(self._config.policies[key.alias]), "PolicyName": "default"}
        if request.operation in keys.TENDING:
            return keys.tend(self._store, request, key, now) or {"KeyMetadata": self._about(key)}
        key.check_usable()  # 5
        if attested is not None:
            self._documents.use(attested, int(now))  # 6
        return self._perform(request, key, attested)  # 7

    def _allowed(self, key: MasterKey, call: Call) -> bool:
        policy = self._policies.get(key.alias)
        return policy is not None and policy.allows(call)

    def _list(self, request: Request, principal: str, now: float) -> dict[str, Any]:
        """List what the caller may describe (AWS asks IAM for lists, not the keys; there is no IAM here)."""
        seen = [
            key
            for key in self._store.all()
            if self._allowed(key, Call(principal, "DescribeKey", {}, {}))
            and (request.key_id is None or self._store.find(request.key_id, now).id == key.id)
        ]
        if request.operation == "ListKeys":
            return keys.key_list(seen, self._config.region)
        return keys.alias_list(seen, self._config.region)

    def _key(self, request: Request, now: float) -> MasterKey:
        if request.operation != "Decrypt":
            return self._store.find(request.key_id or "", now)
        key = self._store.of_blob(request.data, now)
        if request.key_id is not None and self._store.find(request.key_id, now).id != key.id:
            raise Refusal("IncorrectKeyException", "the blob was wrapped with another key")
        return key

    def _about(self, key: MasterKey) -> dict[str, Any]:
        return keys.metadata(key, self._config.region)

    def _perform(self, request: Request, key: MasterKey, attested: Attested | None) -> dict[str, Any]:
        answer: dict[str, Any] = {"KeyId": key.arn(self._config.region)}
        if request.operation == "GenerateDataKey":
            plaintext = secrets.token_bytes(request.size)
            answer["CiphertextBlob"] = _base64(key.wrap(plaintext, request.context))
            return answer | _released(plaintext, attested)
        answer["EncryptionAlgorithm"] = "SYMMETRIC_DEFAULT"
        if request.operation == "Decrypt":
            return answer | _released(key.unwrap(request.data, request.context), attested)
        return answer | {"CiphertextBlob": _base64(key.wrap(request.data, request.context))}


def _released(plaintext: bytes, attested: Attested | None) -> dict[str, str]:
    """Return the secret half of an answer: to the TEE's key when there is one, else in the clear."""
    if attested is None:
        return {"Plaintext": _base64(plaintext)}
    return {"CiphertextForRecipient": _base64(make_enveloped(plaintext, attested.public_key))}


def _refused(refusal: Refusal, request_id: str) -> Answer:
    return Answer(refusal.status, {"__type": refusal.kind, "message": refusal.message}, request_id)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
