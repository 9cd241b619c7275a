"""Key policies: closed by default, Deny wins, nothing unknown is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from ephemeralml.attestation.key_release.local_kms.config import principal_arn
from ephemeralml.attestation.key_release.local_kms.lint import lint
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


ACCOUNT = "arn:aws:iam::000000000000:root"
CONTEXT_KEYS = "kms:EncryptionContextKeys"


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"Action": "kms:Decrypt*"}, True),
        ({"Action": "kms:decryp?"}, True),
        ({"Action": "*"}, True),
        ({"Action": "kms:Generate*"}, False),
        ({"Principal": {"AWS": ACCOUNT}}, False),
        ({"Principal": {"AWS": "000000000000"}}, False),
        ({"Condition": condition("StringLike", IMAGE, PCR0.hex()[:8] + "*")}, True),
        ({"Condition": condition("StringLike", IMAGE, "ff*", "?1*")}, False),
        ({"Condition": condition("StringLike", "kms:EncryptionContext:none", "*")}, False),
        ({"Condition": condition("StringNotLike", "kms:EncryptionContext:pool", "a*")}, False),
        ({"Condition": condition("Null", IMAGE, "false")}, True),
        ({"Condition": condition("Null", IMAGE, "true")}, False),
        ({"Condition": condition("Null", "kms:EncryptionContext:none", "true")}, True),
        ({"Condition": condition("Bool", "kms:EncryptionContext:pool", "A")}, True),
        ({"Condition": condition("ForAnyValue:StringEquals", CONTEXT_KEYS, "pool", "x")}, True),
        ({"Condition": condition("ForAnyValue:StringEquals", CONTEXT_KEYS, "Pool")}, False),
        ({"Condition": condition("ForAnyValue:StringEqualsIgnoreCase", CONTEXT_KEYS, "Pool")}, True),
        ({"Condition": condition("ForAllValues:StringEquals", CONTEXT_KEYS, "pool")}, True),
        ({"Condition": condition("ForAllValues:StringEquals", CONTEXT_KEYS, "x")}, False),
    ],
)
def test_operators_and_forms_of_iam(values: dict[str, Any], allowed: bool) -> None:
    assert allows(statement(**values)) is allowed


UNKNOWN = [
    condition("NumericEquals", IMAGE, "1"),
    condition("StringEqualsIfExists", IMAGE, PCR0.hex()),
    condition("StringEquals", "aws:SourceIp", "10.0.0.1"),
    condition("StringNotEquals", "aws:SourceIp", "10.0.0.1"),
    condition("StringEquals", "kms:ViaService", "s3.us-east-1.amazonaws.com"),
    condition("StringEquals", "kms:RecipientAttestation:PCR32", "ab" * 48),
    condition("StringEquals", CONTEXT_KEYS, "pool"),
    condition("ForAnyValue:StringEquals", IMAGE, PCR0.hex()),
    condition("ForAnyValue:Null", CONTEXT_KEYS, "false"),
    condition("Bool", "aws:SecureTransport", "true"),
]


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_condition_never_helps_the_caller(unknown: dict[str, Any]) -> None:
    assert not allows(statement(Condition=unknown))
    assert not allows(statement(), statement(Effect="Deny", Condition=unknown))
    assert ("UNKNOWN_CONDITION" in codes(statement(Condition=unknown))) is True


@pytest.mark.parametrize("account", [ACCOUNT, "000000000000"])
def test_a_denied_account_is_all_of_its_users(account: str) -> None:
    assert not allows(statement(), statement(Effect="Deny", Principal={"AWS": account}))
    other = account.replace("000000000000", "111111111111")
    assert allows(statement(), statement(Effect="Deny", Principal={"AWS": other}))


def codes(*statements: dict[str, Any]) -> set[str]:
    found = lint({"Version": "2012-10-17", "Statement": list(statements)})
    assert all(line.isprintable() for _, line in found)
    return {code for code, _ in found}


ATTESTED = {"Condition": condition("StringEqualsIgnoreCase", IMAGE, PCR0.hex())}
UNATTESTED_DENIED = statement(
    Effect="Deny", Principal="*", Action=["kms:Decrypt"], Condition=condition("Null", IMAGE, "true")
)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([statement(**ATTESTED)], set()),
        ([statement()], {"RELEASES_UNATTESTED", "RELEASES_NOTHING"}),
        ([statement(), statement(**ATTESTED), UNATTESTED_DENIED], set()),
        (
            [statement(Action="kms:*")],
            {"RELEASES_UNATTESTED", "ENCRYPTS_UNATTESTED", "MAY_CHANGE", "RELEASES_NOTHING"},
        ),
        ([statement(**ATTESTED), statement(Action="kms:Encrypt")], {"ENCRYPTS_UNATTESTED"}),
        ([statement(**ATTESTED), statement(Principal="*", Action="kms:PutKeyPolicy")], {"ANYONE_MAY_CHANGE"}),
        (
            [statement(**ATTESTED), statement(Principal={"AWS": ACCOUNT}, Action="kms:DescribeKey")],
            {"ACCOUNT_DECIDES"},
        ),
        (
            [statement(Condition=condition("StringLike", IMAGE, "*"))],
            {"WEAK_MEASUREMENT", "RELEASES_NOTHING"},
        ),
        (
            [
                statement(**ATTESTED),
                statement(Condition=condition("StringEquals", "kms:EncryptionContext:pool", "x")),
            ],
            {"RELEASES_UNATTESTED"},
        ),
        ([], {"RELEASES_NOTHING"}),
    ],
)
def test_lint(statements: list[dict[str, Any]], expected: set[str]) -> None:
    assert codes(*statements) == expected


def test_development_policies_have_only_the_findings_that_they_mean() -> None:
    policies = development_policies(image_sha384=[PCR0.hex()])
    assert lint(policies["alias/fleet"]) == ()
    # The owner of a model makes its key outside of any TEE.
    assert [code for code, _ in lint(policies["alias/model"])] == ["RELEASES_UNATTESTED"]


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
        {"NotPrincipal": {"AWS": WORKER}},
        {"Principal": {"AWS": "arn:aws:iam::*:root"}},
        {"Action": "s3:GetObject"},
        {"Action": []},
        {"Principal": {"Service": "x"}},
        {"Principal": {"AWS": "worker"}},
        {"Principal": {"AWS": []}},
        {"Principal": 5},
        {"Resource": "arn:aws:kms:::key/x"},
        {"Condition": condition("Null", IMAGE, "maybe")},
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
