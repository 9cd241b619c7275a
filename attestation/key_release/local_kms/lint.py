"""What is dangerous in a key policy, found by asking the policy itself.

A finding is a code and a line. Only a policy without findings of ``DANGEROUS`` releases
its key against attestation alone, as far as this engine judges as AWS does: grants and
IAM policies lie outside of a key policy and are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...evidence import Finding
from .conditions import CONTEXT_PREFIX, Call
from .config import principal_arn
from .policy import KeyPolicy, Statement, read_policy

_RELEASES: Final = ("Decrypt", "GenerateDataKey")
# Operations that hand out a key although a recipient cannot be named, or that put a known one in place.
_LEAKS: Final = ("GenerateDataKeyPair", "ReEncryptFrom", "GenerateDataKeyWithoutPlaintext")
_PLANTS: Final = ("Encrypt", "ReEncryptTo")
_RULES: Final = ("PutKeyPolicy", "CreateGrant")

DANGEROUS: Final = frozenset(
    {"RELEASES_UNATTESTED", "ENCRYPTS_UNATTESTED", "ACCOUNT_DECIDES", "ANYONE_MAY_CHANGE", "WEAK_MEASUREMENT"}
)


def lint(document: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Return the findings of a key policy, each once, in the order of its statements.

    :raises ConfigurationError: ``BAD_KEY_POLICY``.
    """
    policy = read_policy(document)
    found = [one for place, _ in enumerate(policy.statements, 1) for one in _findings(policy, place)]
    if not any(one.allows and _attests(one) for one in policy.statements):
        found.append(("RELEASES_NOTHING", "no statement allows anything against attestation"))
    return tuple(dict.fromkeys(found))


def _findings(policy: KeyPolicy, place: int) -> Iterator[Finding]:
    statement = policy.statements[place - 1]
    where = f"statement {place}"
    if not all(one.known for one in statement.conditions):
        yield "UNKNOWN_CONDITION", f"{where}: a condition that is not known here; it never helps the caller"
    if not statement.allows:
        return
    if statement.accounts:
        yield "ACCOUNT_DECIDES", f"{where}: names a whole account, whose IAM policies may then allow this"
    if any(
        one.operator.endswith("Like") and "RecipientAttestation" in one.key for one in statement.conditions
    ):
        yield "WEAK_MEASUREMENT", f"{where}: compares a measurement by wildcards"
    unattested = [name for name in (*_RELEASES, *_LEAKS) if _allows_unattested(policy, statement, name)]
    if unattested:
        yield "RELEASES_UNATTESTED", f"{where}: allows {', '.join(unattested)} without attestation"
    plants = [name for name in _PLANTS if _allows_unattested(policy, statement, name)]
    if plants:
        yield (
            "ENCRYPTS_UNATTESTED",
            f"{where}: allows {', '.join(plants)}: a key known outside can be planted",
        )
    rules = [name for name in _RULES if _allows_unattested(policy, statement, name)]
    if rules and "*" in statement.principals:
        yield "ANYONE_MAY_CHANGE", f"{where}: allows {', '.join(rules)} to everyone"
    elif rules:
        yield "MAY_CHANGE", f"{where}: allows {', '.join(rules)}: whoever it names can undo this policy"


def _attests(statement: Statement) -> bool:
    return any(one.attests for one in statement.conditions)


def _allows_unattested(policy: KeyPolicy, statement: Statement, operation: str) -> bool:
    """Ask the policy about a call without a document that this statement is made for."""
    if not statement.names(operation):
        return False
    context = {
        one.key.removeprefix(CONTEXT_PREFIX): one.wanted[0].replace("*", "x").replace("?", "x")
        for one in statement.conditions
        if one.key.startswith(CONTEXT_PREFIX) and one.known and one.wanted
    }
    for name in statement.principals:
        caller = principal_arn("anyone") if name == "*" else name
        if policy.allows(Call(caller, operation, {}, context)):
            return True
    return False
