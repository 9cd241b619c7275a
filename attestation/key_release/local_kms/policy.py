"""Key policies in AWS's JSON shape, as far as attested key release needs them.

Closed by default: a call is allowed when a statement allows it and none denies it;
what this engine does not know (an operator, a condition key, ``NotAction``) makes
the policy invalid instead of being skipped. Source: IAM User Guide, "Policy
evaluation logic" and "Condition operators"; AWS KMS Developer Guide, "Condition keys
for attested platforms".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ....wire.errors import ConfigurationError
from .config import principal_arn

OPERATIONS: Final = ("GenerateDataKey", "Decrypt", "Encrypt", "DescribeKey")
VERSION: Final = "2012-10-17"
IMAGE_SHA384: Final = "kms:RecipientAttestation:ImageSha384"
PCR_PREFIX: Final = "kms:RecipientAttestation:PCR"
CONTEXT_PREFIX: Final = "kms:EncryptionContext:"

_STATEMENT_KEYS: Final = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
_MEASUREMENT_KEY: Final = re.compile(r"kms:RecipientAttestation:(ImageSha384|PCR([0-9]|[12][0-9]|3[01]))")
_MEASUREMENT: Final = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128}")
_ACTIONS: Final = {f"kms:{operation}" for operation in OPERATIONS} | {"kms:*"}
# Operator: (whether case counts, whether it is negated).
_OPERATORS: Final = {
    "StringEquals": (True, False),
    "StringEqualsIgnoreCase": (False, False),
    "StringNotEquals": (True, True),
    "StringNotEqualsIgnoreCase": (False, True),
}


@dataclass(frozen=True, slots=True)
class Call:
    """What a policy judges.

    :param principal: ARN. :param registers: PCR table of a verified document; empty without one.
    """

    principal: str
    operation: str
    registers: Mapping[int, bytes]
    context: Mapping[str, str]

    def value(self, key: str) -> str | None:
        """Return the value of a condition key, None when the call has none."""
        if key.startswith(CONTEXT_PREFIX):
            return self.context.get(key.removeprefix(CONTEXT_PREFIX))
        # ImageSha384 is PCR0 (AWS KMS Developer Guide).
        register = self.registers.get(0 if key == IMAGE_SHA384 else int(key.removeprefix(PCR_PREFIX)))
        return None if register is None else register.hex()


@dataclass(frozen=True, slots=True)
class _Test:
    key: str
    values: frozenset[str]
    exact: bool
    negated: bool

    def holds(self, call: Call) -> bool:
        value = call.value(self.key)
        if value is None:
            return self.negated
        return (self._fold(value) in self.values) is not self.negated

    def _fold(self, value: str) -> str:
        return value if self.exact else value.casefold()


@dataclass(frozen=True, slots=True)
class _Statement:
    allows: bool
    principals: frozenset[str]
    actions: frozenset[str]
    tests: tuple[_Test, ...]

    def matches(self, call: Call) -> bool:
        return (
            bool(self.principals & {"*", call.principal})
            and bool(self.actions & {"kms:*", f"kms:{call.operation}"})
            and all(test.holds(call) for test in self.tests)
        )


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """A checked key policy."""

    statements: tuple[_Statement, ...]

    def allows(self, call: Call) -> bool:
        """Return whether some statement allows the call and none denies it."""
        matching = [statement for statement in self.statements if statement.matches(call)]
        return bool(matching) and all(statement.allows for statement in matching)


def read_policy(document: Mapping[str, Any]) -> KeyPolicy:
    """Check a key policy and return it.

    :raises ConfigurationError: ``BAD_KEY_POLICY``; anything unknown, and a measurement of zeros, which is
        what every debug enclave shows.
    """
    try:
        if document.keys() - {"Version", "Id", "Statement"} or document.get("Version", VERSION) != VERSION:
            raise _bad("an unknown field or version")
        statements = document["Statement"]
        if not isinstance(statements, (list, tuple)):
            raise _bad("Statement is not a list")
        return KeyPolicy(tuple(_statement(statement) for statement in statements))
    except (KeyError, TypeError, AttributeError):
        raise _bad("it does not have a policy's shape") from None


def _statement(value: Mapping[str, Any]) -> _Statement:
    if value.keys() - _STATEMENT_KEYS:
        raise _bad("a statement has an unknown field")
    if value["Effect"] not in ("Allow", "Deny"):
        raise _bad("Effect is neither Allow nor Deny")
    if value.get("Resource", "*") != "*":
        raise _bad("Resource of a key policy is '*'")
    principal = value["Principal"]
    names = _texts(principal["AWS"]) if isinstance(principal, Mapping) else _texts(principal)
    if isinstance(principal, Mapping) and principal.keys() != {"AWS"}:
        raise _bad("a principal of another kind than AWS")
    if any(name != "*" and not name.startswith("arn:aws:iam::") for name in names):
        raise _bad("a principal is neither an ARN nor '*'")
    actions = _texts(value["Action"])
    if actions - _ACTIONS:
        raise _bad("an unknown action")
    return _Statement(value["Effect"] == "Allow", names, actions, tuple(_tests(value.get("Condition", {}))))


def _tests(condition: Mapping[str, Mapping[str, Any]]) -> Iterable[_Test]:
    for operator, keys in condition.items():
        if operator not in _OPERATORS:
            raise _bad("an unknown condition operator")
        exact, negated = _OPERATORS[operator]
        for key, wanted in keys.items():
            values = _texts(wanted)
            if _MEASUREMENT_KEY.fullmatch(key):
                _check_measurements(values)
            elif not key.startswith(CONTEXT_PREFIX) or key == CONTEXT_PREFIX:
                raise _bad("an unknown condition key")
            yield _Test(key, values if exact else frozenset(map(str.casefold, values)), exact, negated)


def _check_measurements(values: Iterable[str]) -> None:
    for value in values:
        if not _MEASUREMENT.fullmatch(value):
            raise _bad("a measurement is not 32, 48 or 64 bytes in hexadecimal")
        if not any(bytes.fromhex(value)):
            raise _bad("a measurement of zeros: every debug enclave shows it")


def _texts(value: object) -> frozenset[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise _bad("expected a text or a list of texts")
    return frozenset(texts)


def _bad(why: str) -> ConfigurationError:
    return ConfigurationError("BAD_KEY_POLICY", f"the key policy is not valid: {why}")


def development_policies(
    *, image_sha384: Sequence[str], owner: str = "owner", worker: str = "worker"
) -> dict[str, dict[str, Any]]:
    """Return the key policies of the two keys that a development machine needs, by alias.

    ``alias/fleet``: attested workers only, and nobody may encrypt or call unattested.
    ``alias/model``: the owner makes data keys, attested workers unwrap them.

    :param image_sha384: PCR0 of every accepted image, hexadecimal. Empty releases nothing.
    """

    def allow(sid: str, name: str, *actions: str, attested: bool) -> dict[str, Any]:
        statement: dict[str, Any] = {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": principal_arn(name)},
            "Action": [f"kms:{action}" for action in actions],
            "Resource": "*",
        }
        if attested:
            statement["Condition"] = {"StringEqualsIgnoreCase": {IMAGE_SHA384: list(image_sha384)}}
        return statement

    fleet = [allow("AttestedWorkers", worker, "GenerateDataKey", "Decrypt", attested=True)]
    model = [allow("AttestedWorkers", worker, "Decrypt", attested=True)]
    describe = allow("OwnerLooks", owner, "DescribeKey", attested=False)
    wrap = allow("OwnerWraps", owner, "GenerateDataKey", attested=False)
    attested = bool(image_sha384)
    return {
        "alias/fleet": {"Version": VERSION, "Statement": [*(fleet if attested else ()), describe]},
        "alias/model": {"Version": VERSION, "Statement": [*(model if attested else ()), wrap, describe]},
    }
