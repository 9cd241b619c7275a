"""Key policies: closed by default, Deny wins, nothing unknown is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from ephemeralml.attestation.key_release.local_kms.config import principal_arn
from ephemeralml.attestation.key_release.local_kms.policy import Call, development_policies, read_policy
from ephemeralml.wire.errors import ConfigurationError

PCR0 = bytes(range(48))
WORKER, OWNER = principal_arn("worker"), principal_arn("owner")
IMAGE = "kms:RecipientAttestation:ImageSha384"


def statement(**values: Any) -> dict[str, Any]:
    base = {"Effect": "Allow", "Principal": {"AWS": WORKER}, "Action": "kms:Decrypt", "Resource": "*"}
    return {**base, **values}


def allows(*statements: dict[str, Any], call: Call | None = None) -> bool:
    policy = read_policy({"Version": "2012-10-17", "Statement": list(statements)})
    return policy.allows(call or Call(WORKER, "Decrypt", {0: PCR0, 4: b"\4" * 48}, {"pool": "a"}))


def condition(operator: str, key: str, *values: str) -> dict[str, Any]:
    return {operator: {key: list(values)}}


def test_nothing_is_allowed_by_default() -> None:
    assert not allows()


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({}, True),
        ({"Principal": {"AWS": OWNER}}, False),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": [OWNER, WORKER]}}, True),
        ({"Action": ["kms:Encrypt"]}, False),
        ({"Action": "kms:*"}, True),
        ({"Condition": condition("StringEqualsIgnoreCase", IMAGE, PCR0.hex().upper())}, True),
        ({"Condition": condition("StringEquals", IMAGE, PCR0.hex().upper())}, False),
        ({"Condition": condition("StringEqualsIgnoreCase", IMAGE, "ab" * 48)}, False),
        ({"Condition": condition("StringEqualsIgnoreCase", IMAGE, "ab" * 48, PCR0.hex())}, True),
        (
            {"Condition": condition("StringEqualsIgnoreCase", "kms:RecipientAttestation:PCR4", "04" * 48)},
            True,
        ),
        (
            {"Condition": condition("StringEqualsIgnoreCase", "kms:RecipientAttestation:PCR8", "04" * 48)},
            False,
        ),
        ({"Condition": condition("StringEquals", "kms:EncryptionContext:pool", "a")}, True),
        ({"Condition": condition("StringEquals", "kms:EncryptionContext:pool", "b")}, False),
        ({"Condition": condition("StringEquals", "kms:EncryptionContext:other", "a")}, False),
        ({"Condition": condition("StringNotEquals", "kms:EncryptionContext:other", "a")}, True),
        ({"Condition": condition("StringNotEqualsIgnoreCase", IMAGE, PCR0.hex())}, False),
    ],
)
def test_one_statement(values: dict[str, Any], allowed: bool) -> None:
    assert allows(statement(**values)) is allowed


def test_all_conditions_must_hold() -> None:
    both = condition("StringEqualsIgnoreCase", IMAGE, PCR0.hex()) | condition(
        "StringEquals", "kms:EncryptionContext:pool", "b"
    )
    assert not allows(statement(Condition=both))


def test_deny_wins_in_any_order() -> None:
    deny = statement(Effect="Deny", Condition=condition("StringEquals", "kms:EncryptionContext:pool", "a"))
    assert not allows(statement(), deny)
    assert not allows(deny, statement())


def test_deny_whoever_is_not_attested() -> None:
    deny = statement(
        Effect="Deny", Principal="*", Condition=condition("StringNotEqualsIgnoreCase", IMAGE, PCR0.hex())
    )
    assert allows(statement(), deny)
    assert not allows(statement(), deny, call=Call(WORKER, "Decrypt", {}, {}))


@pytest.mark.parametrize(
    "values",
    [
        {"Effect": "allow"},
        {"NotAction": "kms:Encrypt"},
        {"Action": "kms:Decrypt*"},
        {"Action": "s3:GetObject"},
        {"Action": []},
        {"Principal": {"Service": "x"}},
        {"Principal": {"AWS": "worker"}},
        {"Principal": {"AWS": []}},
        {"Principal": 5},
        {"Resource": "arn:aws:kms:::key/x"},
        {"Condition": condition("StringLike", IMAGE, "*")},
        {"Condition": condition("StringEquals", "aws:SourceIp", "10.0.0.1")},
        {"Condition": condition("StringEquals", "kms:RecipientAttestation:PCR32", "ab" * 48)},
        {"Condition": condition("StringEquals", IMAGE, "UNCHECKED")},
        {"Condition": condition("StringEquals", IMAGE, "00" * 48)},
        {"Condition": condition("StringEquals", IMAGE)},
        {"Condition": {"StringEquals": {IMAGE: 5}}},
        {"Condition": {"StringEquals": 5}},
        {"Condition": 5},
    ],
)
def test_what_is_unknown_makes_the_policy_invalid(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        allows(statement(**values))
    assert caught.value.code == "BAD_KEY_POLICY"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"Statement": {}},
        {"Statement": [5]},
        {"Version": "2008-10-17", "Statement": []},
        {"Statement": [{}]},
    ],
)
def test_other_shapes_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        read_policy(document)


@pytest.mark.parametrize("operation", ["GenerateDataKey", "Decrypt", "Encrypt"])
@pytest.mark.parametrize("attested", [True, False])
@pytest.mark.parametrize("who", [WORKER, OWNER, principal_arn("stranger")])
@pytest.mark.parametrize("key", ["fleet", "model"])
def test_development_policies(key: str, who: str, attested: bool, operation: str) -> None:
    policy = read_policy(development_policies(image_sha384=[PCR0.hex()])[f"alias/{key}"])
    expected = (
        ((key, who, attested) == ("fleet", WORKER, True) and operation in ("GenerateDataKey", "Decrypt"))
        or (key, who, attested, operation) == ("model", WORKER, True, "Decrypt")
        or (key, who, operation) == ("model", OWNER, "GenerateDataKey")
    )
    assert policy.allows(Call(who, operation, {0: PCR0} if attested else {}, {})) is expected


def test_without_images_no_worker_gets_a_key() -> None:
    policies = development_policies(image_sha384=[])
    for document in policies.values():
        assert not read_policy(document).allows(Call(WORKER, "Decrypt", {0: PCR0}, {}))
