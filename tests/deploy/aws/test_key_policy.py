"""The key policies of keys.yaml, put into the local KMS: the right image gets the keys, nobody else does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ephemeralml.attestation.key_release.aws import AwsKms
from ephemeralml.attestation.key_release.aws_settings import AwsSettings
from ephemeralml.attestation.key_release.kms_audit import audit_kms
from ephemeralml.attestation.key_release.local_kms import LocalKms, LocalKmsConfig, Principal
from ephemeralml.attestation.key_release.local_kms.lint import DANGEROUS, lint
from ephemeralml.attestation.key_release.local_kms.policy import Call, read_policy
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.wire.errors import KeyReleaseError

from .render import Rendered

WORKER: Final = Principal("worker", "AKIAWORKER00000000", "worker-secret")
OWNER: Final = Principal("key-owner", "AKIAOWNER000000000", "owner-secret")
PACKAGER: Final = Principal("packager", "AKIAPACKAGER000000", "packager-secret")
STRANGER: Final = Principal("stranger", "AKIASTRANGER000000", "stranger-secret")
CURRENT, NEXT = development_pcrs("release-1"), development_pcrs("release-2")
CONTEXT: Final = {"purpose": "fleet", "pool": "small", "epoch": "1"}
ACTIONS: Final = (
    "Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyWithoutPlaintext",
    "GenerateDataKeyPairWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo", "CreateGrant",
)  # fmt: skip


def policies(*, rolled: bool = False, named: bool = True) -> dict[str, dict[str, Any]]:
    """Return the template's key policies for the principals of the local KMS."""
    values = {
        "WorkerRoleArn": WORKER.arn,
        "KeyOwnerRoleArn": OWNER.arn,
        "PackagerRoleArn": PACKAGER.arn,
    }
    if named:
        values |= {f"CurrentPCR{slot}": CURRENT[slot].hex() for slot in (0, 1, 2)}
    if rolled:
        values |= {f"NextPCR{slot}": NEXT[slot].hex() for slot in (0, 1, 2)}
    rendered = Rendered("keys.yaml", values)
    return {
        "alias/fleet": rendered.properties("FleetKey")["KeyPolicy"],
        "alias/model": rendered.properties("ModelKey")["KeyPolicy"],
    }


@pytest.fixture(scope="module")
def root() -> DevelopmentRoot:
    """The root of the simulated enclaves."""
    return DevelopmentRoot.create(now=time.time() - 86_400)


StartKms = Callable[..., LocalKms]


@pytest.fixture
def start(tmp_path: Path, root: DevelopmentRoot) -> Iterator[StartKms]:
    """Start a local KMS with the template's policies."""
    running = []

    def begin(*, rolled: bool = False, named: bool = True) -> LocalKms:
        config = LocalKmsConfig(
            directory=tmp_path / "kms",
            roots=(root.fingerprint,),
            policies=policies(rolled=rolled, named=named),
            principals={one.name: one for one in (WORKER, OWNER, PACKAGER, STRANGER)},
        )
        kms = LocalKms(config)
        kms.start()
        running.append(kms)
        return kms

    yield begin
    for one in running:
        one.stop()


def ask(kms: LocalKms, root: DevelopmentRoot, pcrs: dict[int, bytes], who: Principal = WORKER) -> AwsKms:
    return AwsKms(
        SimulatedAttester(root, pcrs),
        "alias/fleet",
        endpoint_url=kms.endpoint,
        region="us-east-1",
        access_key_id=who.access_key_id,
        secret_access_key=who.secret_access_key,
    )


def plain(kms: LocalKms, who: Principal) -> Any:
    """Return a client of boto3 that shows no document."""
    return boto3.client(
        "kms",
        endpoint_url=kms.endpoint,
        region_name="us-east-1",
        aws_access_key_id=who.access_key_id,
        aws_secret_access_key=who.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_the_right_image_gets_the_key_and_gets_it_again(start: StartKms, root: DevelopmentRoot) -> None:
    kms = start()
    made = ask(kms, root, CURRENT).generate_data_key(CONTEXT)
    assert ask(kms, root, CURRENT).decrypt(made.wrapped, CONTEXT) == made.plaintext


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_another_register_gets_nothing(start: StartKms, root: DevelopmentRoot, slot: int) -> None:
    kms = start()
    made = ask(kms, root, CURRENT).generate_data_key(CONTEXT)
    other = {**CURRENT, slot: NEXT[slot]}
    for call in (
        lambda: ask(kms, root, other).generate_data_key(CONTEXT),
        lambda: ask(kms, root, other).decrypt(made.wrapped, CONTEXT),
    ):
        with pytest.raises(KeyReleaseError) as caught:
            call()
        assert caught.value.code == "KMS_DENIED"


def test_a_debug_enclave_gets_nothing(start: StartKms, root: DevelopmentRoot) -> None:
    with pytest.raises(KeyReleaseError) as caught:
        ask(start(), root, {}).generate_data_key(CONTEXT)
    assert caught.value.code == "KMS_DENIED"


@pytest.mark.parametrize("pcrs", [CURRENT, {}])
def test_before_an_image_is_named_nobody_gets_a_fleet_key_and_models_can_be_packaged(
    start: StartKms, root: DevelopmentRoot, pcrs: dict[int, bytes]
) -> None:
    kms = start(named=False)
    with pytest.raises(KeyReleaseError) as caught:
        ask(kms, root, pcrs).generate_data_key(CONTEXT)
    assert caught.value.code == "KMS_DENIED"
    assert plain(kms, PACKAGER).generate_data_key(KeyId="alias/model", NumberOfBytes=32)["Plaintext"]


@pytest.mark.parametrize("who", [OWNER, PACKAGER, STRANGER])
def test_the_right_image_under_another_role_gets_nothing(
    start: StartKms, root: DevelopmentRoot, who: Principal
) -> None:
    with pytest.raises(KeyReleaseError) as caught:
        ask(start(), root, CURRENT, who).generate_data_key(CONTEXT)
    assert caught.value.code == "KMS_DENIED"


@pytest.mark.parametrize("who", [WORKER, OWNER, PACKAGER, STRANGER])
def test_without_a_document_nobody_gets_or_plants_a_fleet_key(
    start: StartKms, root: DevelopmentRoot, who: Principal
) -> None:
    kms = start()
    wrapped = ask(kms, root, CURRENT).generate_data_key(CONTEXT).wrapped
    client = plain(kms, who)
    calls: tuple[Callable[[], object], ...] = (
        lambda: client.decrypt(KeyId="alias/fleet", CiphertextBlob=wrapped, EncryptionContext=CONTEXT),
        lambda: client.generate_data_key(KeyId="alias/fleet", NumberOfBytes=32),
        lambda: client.encrypt(KeyId="alias/fleet", Plaintext=b"k" * 32),
    )
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_two_releases_pass_while_one_is_rolled_but_no_mixture(start: StartKms, root: DevelopmentRoot) -> None:
    kms = start(rolled=True)
    for pcrs in (CURRENT, NEXT):
        ask(kms, root, pcrs).generate_data_key(CONTEXT)
    with pytest.raises(KeyReleaseError):
        ask(kms, root, {**CURRENT, 2: NEXT[2]}).generate_data_key(CONTEXT)


def test_only_the_packager_makes_model_keys_and_only_enclaves_unwrap_them(
    start: StartKms, root: DevelopmentRoot
) -> None:
    kms = start()
    made = plain(kms, PACKAGER).generate_data_key(KeyId="alias/model", NumberOfBytes=32)
    with pytest.raises(ClientError):
        plain(kms, PACKAGER).decrypt(KeyId="alias/model", CiphertextBlob=made["CiphertextBlob"])
    with pytest.raises(ClientError):
        plain(kms, WORKER).generate_data_key(KeyId="alias/model", NumberOfBytes=32)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    document = SimulatedAttester(root, CURRENT).attest(public_key=spki)
    answer = plain(kms, WORKER).decrypt(
        KeyId="alias/model",
        CiphertextBlob=made["CiphertextBlob"],
        Recipient={"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document},
    )
    assert answer["CiphertextForRecipient"]
    assert not answer.get("Plaintext")


def test_the_audit_of_operators_passes(start: StartKms, root: DevelopmentRoot) -> None:
    settings = AwsSettings(
        endpoint_url=start().endpoint,
        region="us-east-1",
        access_key_id=WORKER.access_key_id,
        secret_access_key=WORKER.secret_access_key,
    )
    rows = audit_kms(
        settings,
        "alias/fleet",
        SimulatedAttester(root, CURRENT),
        wrong=SimulatedAttester(root, NEXT),
        debug=SimulatedAttester(root, {}),
        single_use=True,
    )
    assert {row.verdict for row in rows} == {"ok"}


@pytest.mark.parametrize("rolled", [False, True])
def test_the_linter_finds_only_who_may_change_it(rolled: bool) -> None:
    found = policies(rolled=rolled)
    assert [code for code, _ in lint(found["alias/fleet"])] == ["MAY_CHANGE"]
    # Whoever encrypts a model has its key while he does: docs/kms.md says that of every model key.
    assert {code for code, _ in lint(found["alias/model"])} & DANGEROUS == {"RELEASES_UNATTESTED"}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "who", ["arn:aws:iam::000000000000:root", WORKER.arn, OWNER.arn, "arn:aws:iam::1:user/x"]
)
def test_no_other_statement_could_open_the_fleet_key(action: str, who: str) -> None:
    """What IAM or a grant would allow, the policy's own Deny takes away: an Allow for everyone is added."""
    document = policies()["alias/fleet"]
    everything = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    lax = read_policy({**document, "Statement": [*document["Statement"], everything]})
    assert not lax.allows(Call(who, action, {}, CONTEXT))


def test_no_statement_names_an_account() -> None:
    for document in policies(rolled=True).values():
        policy = read_policy(document)
        assert not any(one.accounts for one in policy.statements)
        assert not any(one.allows and "*" in one.principals for one in policy.statements)
