"""Key policies in AWS's JSON shape, as far as attested key release needs them.

Closed by default: a call is allowed when a statement allows it and none denies it.
What this engine cannot judge by (``NotPrincipal``, ``NotAction``, principals other than
AWS's) makes the policy invalid; an unknown condition never helps the caller
(:mod:`.conditions`). Source: IAM User Guide, "Policy evaluation logic"; AWS KMS
Developer Guide, "Condition keys for attested platforms" and "Default key policy".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .conditions import IMAGE_SHA384, Call, Condition, bad_policy, pattern, read_conditions, texts
from .config import principal_arn

__all__ = ["Call", "KeyPolicy", "Statement", "development_policies", "read_policy"]

VERSION: Final = "2012-10-17"
TENDING: Final = (
    "DescribeKey",
    "GetKeyPolicy",
    "EnableKey",
    "DisableKey",
    "ScheduleKeyDeletion",
    "CancelKeyDeletion",
)

_STATEMENT_KEYS: Final = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
_ACTION: Final = re.compile(r"(?i:kms):[A-Za-z*?]{1,64}|\*")
_ACCOUNT: Final = re.compile(r"(arn:aws[a-z-]*:iam::)?[0-9]{12}(:root)?")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy."""

    allows: bool
    principals: tuple[str, ...]
    actions: tuple[str, ...]
    conditions: tuple[Condition, ...]

    @property
    def accounts(self) -> bool:
        """Whether it names a whole account, which hands the decision to that account's IAM policies."""
        return any(_ACCOUNT.fullmatch(name) for name in self.principals)

    def names(self, operation: str) -> bool:
        """Return whether an action covers an operation; case does not count."""
        action = f"kms:{operation}".lower()
        return any(pattern(one.lower()).fullmatch(action) for one in self.actions)

    def matches(self, call: Call) -> bool:
        """Return whether the statement is about a call."""
        return (
            self._is_for(call.principal)
            and self.names(call.operation)
            and all(one.holds(call, allows=self.allows) for one in self.conditions)
        )

    def _is_for(self, principal: str) -> bool:
        if "*" in self.principals or principal in self.principals:
            return True
        # There are no IAM policies here that an account could allow by; a Deny is for all of its users.
        account = principal.split(":")[4] if principal.startswith("arn:") else ""
        named = [name for name in self.principals if _ACCOUNT.fullmatch(name)]
        return not self.allows and any(account in name for name in named)


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """A checked key policy."""

    statements: tuple[Statement, ...]

    def allows(self, call: Call) -> bool:
        """Return whether some statement allows the call and none denies it."""
        matching = [statement for statement in self.statements if statement.matches(call)]
        return bool(matching) and all(statement.allows for statement in matching)


def read_policy(document: Mapping[str, Any]) -> KeyPolicy:
    """Check a key policy and return it.

    :raises ConfigurationError: ``BAD_KEY_POLICY``; anything it cannot be judged by, and a measurement of
        zeros, which is what every debug enclave shows.
    """
    try:
        if document.keys() - {"Version", "Id", "Statement"} or document.get("Version", VERSION) != VERSION:
            raise bad_policy("an unknown field or version")
        statements = document["Statement"]
        if not isinstance(statements, (list, tuple)):
            raise bad_policy("Statement is not a list")
        return KeyPolicy(tuple(_statement(statement) for statement in statements))
    except (KeyError, TypeError, AttributeError):
        raise bad_policy("it does not have a policy's shape") from None


def _statement(value: Mapping[str, Any]) -> Statement:
    for name in ("NotPrincipal", "NotAction", "NotResource"):
        if name in value:
            raise bad_policy(f"{name} is not supported: name who and what is meant")
    if value.keys() - _STATEMENT_KEYS:
        raise bad_policy("a statement has an unknown field")
    if value["Effect"] not in ("Allow", "Deny"):
        raise bad_policy("Effect is neither Allow nor Deny")
    if value.get("Resource", "*") != "*":
        raise bad_policy("Resource of a key policy is '*'")
    actions = texts(value["Action"])
    if not all(_ACTION.fullmatch(action) for action in actions):
        raise bad_policy("an action that is not of KMS")
    conditions = tuple(read_conditions(value.get("Condition", {})))
    return Statement(value["Effect"] == "Allow", _principals(value["Principal"]), actions, conditions)


def _principals(principal: object) -> tuple[str, ...]:
    if isinstance(principal, Mapping):
        if principal.keys() != {"AWS"}:
            raise bad_policy("a principal of another kind than AWS")
        principal = principal["AWS"]
    names = texts(principal)
    for name in names:
        # IAM takes no wildcard inside an ARN here; '*' alone means everyone.
        good = name == "*" or _ACCOUNT.fullmatch(name) or name.startswith("arn:aws")
        if not good or ("*" in name and name != "*"):
            raise bad_policy("a principal is neither an ARN, an account nor '*'")
    return names


def development_policies(
    *, image_sha384: Sequence[str], owner: str = "owner", worker: str = "worker"
) -> dict[str, dict[str, Any]]:
    """Return the key policies of the two keys that a development machine needs, by alias.

    ``alias/fleet``: attested workers only, and nobody may encrypt or call unattested.
    ``alias/model``: the owner makes data keys, attested workers unwrap them. The owner may look at both,
    disable and enable them, and schedule and cancel their deletion.

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
    describe = allow("OwnerTends", owner, *TENDING, attested=False)
    wrap = allow("OwnerWraps", owner, "GenerateDataKey", attested=False)
    attested = bool(image_sha384)
    return {
        "alias/fleet": {"Version": VERSION, "Statement": [*(fleet if attested else ()), describe]},
        "alias/model": {"Version": VERSION, "Statement": [*(model if attested else ()), wrap, describe]},
    }
