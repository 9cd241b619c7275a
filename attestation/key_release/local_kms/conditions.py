"""Conditions of key policies (IAM User Guide, "Condition operators" and "Set operators").

What is not known here (an operator, a condition key) makes a condition that can never
help: in an Allow it does not hold, in a Deny it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from ....wire.errors import ConfigurationError

IMAGE_SHA384: Final = "kms:RecipientAttestation:ImageSha384"
PCR_PREFIX: Final = "kms:RecipientAttestation:PCR"
CONTEXT_PREFIX: Final = "kms:EncryptionContext:"
CONTEXT_KEYS: Final = "kms:EncryptionContextKeys"

_MEASUREMENT_KEY: Final = re.compile(r"kms:RecipientAttestation:(ImageSha384|PCR([0-9]|[12][0-9]|3[01]))")
_MEASUREMENT: Final = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128}")
_TRUTHS: Final = frozenset({"true", "false"})


@dataclass(frozen=True, slots=True)
class _Operator:
    exact: bool = True
    negated: bool = False
    wild: bool = False


_OPERATORS: Final = {
    "StringEquals": _Operator(),
    "StringEqualsIgnoreCase": _Operator(exact=False),
    "StringNotEquals": _Operator(negated=True),
    "StringNotEqualsIgnoreCase": _Operator(exact=False, negated=True),
    "StringLike": _Operator(wild=True),
    "StringNotLike": _Operator(negated=True, wild=True),
    "Bool": _Operator(exact=False),
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

    def values(self, key: str) -> tuple[str, ...]:
        """Return the values of a condition key; none where the call has none."""
        if key == CONTEXT_KEYS:
            return tuple(self.context)
        if key.startswith(CONTEXT_PREFIX):
            value = self.context.get(key.removeprefix(CONTEXT_PREFIX))
            return () if value is None else (value,)
        # ImageSha384 is PCR0 (AWS KMS Developer Guide).
        register = self.registers.get(0 if key == IMAGE_SHA384 else int(key.removeprefix(PCR_PREFIX)))
        return () if register is None else (register.hex(),)


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator, one key and the values wanted.

    :param known: False: nothing is known of it, and it never helps the caller.
    """

    operator: str
    key: str
    wanted: tuple[str, ...]
    known: bool

    @property
    def attests(self) -> bool:
        """Whether it can hold only for a call with an attestation document of a wanted measurement."""
        operator = _OPERATORS.get(self.operator)
        return (
            self.known
            and bool(_MEASUREMENT_KEY.fullmatch(self.key))
            and operator is not None
            and not operator.negated
            and all(_MEASUREMENT.fullmatch(value) for value in self.wanted)
        )

    def holds(self, call: Call, *, allows: bool) -> bool:
        """Return whether the condition holds for a call, in an Allow or in a Deny."""
        if not self.known:
            return not allows
        values = call.values(self.key)
        if self.operator == "Null":
            return (not values) is (self.wanted[0].lower() == "true")
        quantifier, _, name = self.operator.rpartition(":")
        operator = _OPERATORS[name]
        met = [self._matches(value, operator) is not operator.negated for value in values]
        if quantifier == "ForAnyValue":
            return any(met)
        if quantifier == "ForAllValues":
            return all(met)
        # Of a key that the call does not have, a positive operator does not hold and a negated one does.
        return all(met) if met else operator.negated

    def _matches(self, value: str, operator: _Operator) -> bool:
        if operator.wild:
            return any(pattern(wanted).fullmatch(value) for wanted in self.wanted)
        if operator.exact:
            return value in self.wanted
        return value.casefold() in {wanted.casefold() for wanted in self.wanted}


@cache
def pattern(text: str) -> re.Pattern[str]:
    """Return IAM's wildcards as a regular expression: ``*`` for any text, ``?`` for one character."""
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(one, re.escape(one)) for one in text), re.DOTALL)


def read_conditions(block: Mapping[str, Mapping[str, Any]]) -> Iterable[Condition]:
    """Yield the conditions of a statement.

    :raises ConfigurationError: ``BAD_KEY_POLICY``: not of a policy's shape, or a measurement that is none.
    """
    for operator, keys in block.items():
        for key, wanted in keys.items():
            values = texts(wanted)
            known = _known(operator, key)
            if known and operator == "Null" and not (len(values) == 1 and values[0].lower() in _TRUTHS):
                raise bad_policy("Null is 'true' or 'false'")
            if known and _MEASUREMENT_KEY.fullmatch(key) and operator.startswith(("StringEq", "StringNotEq")):
                _check_measurements(values)
            yield Condition(operator, key, values, known)


def _known(operator: str, key: str) -> bool:
    quantifier, _, name = operator.rpartition(":")
    if name == "Null":
        good = not quantifier
    else:
        # A set operator is for keys of many values, and such keys need one (IAM User Guide).
        wanted = ("ForAnyValue", "ForAllValues") if key == CONTEXT_KEYS else ("",)
        good = name in _OPERATORS and quantifier in wanted
    context = key.startswith(CONTEXT_PREFIX) and key != CONTEXT_PREFIX
    return good and (context or key == CONTEXT_KEYS or bool(_MEASUREMENT_KEY.fullmatch(key)))


def _check_measurements(values: Iterable[str]) -> None:
    for value in values:
        if not _MEASUREMENT.fullmatch(value):
            raise bad_policy("a measurement is not 32, 48 or 64 bytes in hexadecimal")
        if not any(bytes.fromhex(value)):
            raise bad_policy("a measurement of zeros: every debug enclave shows it")


def texts(value: object) -> tuple[str, ...]:
    """Return a text or a list of texts as a tuple.

    :raises ConfigurationError: ``BAD_KEY_POLICY``.
    """
    several = [value] if isinstance(value, str) else value
    if (
        not isinstance(several, (list, tuple))
        or not several
        or not all(isinstance(one, str) for one in several)
    ):
        raise bad_policy("expected a text or a list of texts")
    return tuple(several)


def bad_policy(why: str) -> ConfigurationError:
    """Return what a policy that cannot be read is refused with."""
    return ConfigurationError("BAD_KEY_POLICY", f"the key policy is not valid: {why}")
