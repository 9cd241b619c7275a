"""Brokers, rights and blob stores as ``doctor`` sees them, on real servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import boto3
import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from google.iam.v1 import iam_policy_pb2 as iam  # type: ignore[import-untyped]
from google.pubsub_v1 import types
from pydantic import SecretStr
from redis.exceptions import ConnectionError

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.pubsub.calls import CONSUME
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.sqs import calls as sqs_calls
from ephemeralml.broker_config.sqs.names import queue_name
from ephemeralml.cli import main
from ephemeralml.producer.cli.doctor.finding import Finding
from ephemeralml.producer.cli.doctor.on_pubsub import PUBLISH, pubsub_broker
from ephemeralml.producer.cli.doctor.on_redis import redis_broker
from ephemeralml.producer.cli.doctor.on_sqs import sqs_broker
from ephemeralml.producer.cli.doctor.stores import blob_store
from ephemeralml.wire.errors import DeliveryError

from ...delivery.brokers import Broker, redis
from ...servers.gcs import gcs_emulator
from ...servers.moto import REGION, Server, moto_server, settings_of
from ...servers.pstest import pstest
from ...servers.pstest import settings_of as pubsub_settings_of

ROLES = ("worker", "client", "relay", "operator")


def by_code(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings}


def verdicts(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.code: finding.verdict for finding in findings}


# ---------------------------------------------------------------- Redis


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Redis with one user per role."""
    with redis(tmp_path_factory.mktemp("redis")) as made:
        with redis_client(made.settings) as client:
            for role in ROLES:
                rule = carrier_of(made.settings).rights(made.settings, role).replace("POOL", "small")
                client.execute_command("ACL", "SETUSER", *rule.split()[1:])
        yield made


def user(broker: Broker, name: str) -> BrokerSettings:
    port = urlsplit(broker.settings.url).port
    url = SecretStr(f"redis://{name}:PASSWORD@127.0.0.1:{port}/0")
    return broker.settings.model_copy(update={"broker_url": url})


@pytest.mark.parametrize("role", ROLES)
def test_the_least_rights_of_a_role_are_enough_and_no_more(broker: Broker, role: str) -> None:
    found = by_code(redis_broker(user(broker, role), "small", role))
    assert {code: finding.verdict for code, finding in found.items()} == {
        "BROKER_LINE": "ok",
        "BROKER_KEEPS": "ok",
        "BROKER_RIGHTS": "ok",
    }
    assert "may not read" in found["BROKER_KEEPS"].seen


@pytest.mark.parametrize(
    ("who", "role", "words"),
    [
        ("worker", "client", "take from reply queues"),
        ("client", "worker", "take from jobs queues"),
        ("operator", "relay", "take from reply queues"),
    ],
)
def test_another_role_s_rights_do_not_do(broker: Broker, who: str, role: str, words: str) -> None:
    found = by_code(redis_broker(user(broker, who), "small", role))
    assert found["BROKER_RIGHTS"].verdict == "problem"
    assert words in found["BROKER_RIGHTS"].seen
    assert f"queues policy {role} --pool small" in found["BROKER_RIGHTS"].fix


def test_another_pool_is_out_of_reach(broker: Broker) -> None:
    found = by_code(redis_broker(user(broker, "worker"), "large", "worker"))
    assert found["BROKER_RIGHTS"].verdict == "problem"


def test_an_administrator_is_more_than_a_worker(broker: Broker) -> None:
    with redis_client(broker.settings) as client:
        before = client.dbsize()
        found = by_code(redis_broker(broker.settings, "small", "worker"))
        assert client.dbsize() == before
    assert found["BROKER_RIGHTS"].verdict == "ok"
    wide = found["BROKER_RIGHTS_WIDE"]
    assert wide.verdict == "warning"
    for words in ("administer the server", "see every key", "reach other pools", "take replies"):
        assert words in wide.seen


def test_a_redis_that_forgets_is_a_problem(broker: Broker) -> None:
    with redis_client(broker.settings) as client:
        kept: Any = client.config_get("appendonly", "maxmemory-policy")
        try:
            for value, verdict in (("no", "problem"), ("yes", "ok")):
                client.config_set("appendonly", value)
                client.config_set("maxmemory-policy", "noeviction" if value == "yes" else "allkeys-lru")
                found = verdicts(redis_broker(broker.settings, None, None))
                assert (found["BROKER_KEEPS"], found["BROKER_EVICTION"]) == (verdict, verdict)
        finally:
            for name, value in kept.items():
                client.config_set(name, value)


@pytest.mark.parametrize(
    ("url", "certificate", "verdict"),
    [
        ("redis://:p@redis.example:6379", None, "warning"),
        ("rediss://redis.example", None, "problem"),
        ("rediss://redis.example", Path("client.pem"), "ok"),
        ("rediss://:p@redis.example", None, "ok"),
    ],
)
def test_the_line_to_redis_is_judged_by_its_address(url: str, certificate: Path | None, verdict: str) -> None:
    from ephemeralml.producer.cli.doctor.on_redis import _line

    settings = BrokerSettings(broker_url=SecretStr(url), tls_cert_file=certificate, tls_key_file=certificate)
    assert _line(settings).verdict == verdict


def test_a_redis_that_goes_away_meanwhile_is_not_taken_for_an_old_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr("redis.Redis.eval", gone)
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
        list(redis_broker(user(broker, "worker"), "small", "worker"))


# ---------------------------------------------------------------- SQS and S3


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """AWS on this machine."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


def test_queues_that_are_not_there_are_a_problem(moto: Server) -> None:
    moto.reset()
    found = list(sqs_broker(settings_of(moto.url), "small", "worker"))
    assert [(finding.code, finding.verdict) for finding in found] == [("QUEUE", "problem")] * 2
    assert all("queues create --pool small" in finding.fix for finding in found)


def test_queues_as_we_make_them_are_good_and_others_are_not(moto: Server) -> None:
    moto.reset()
    settings = settings_of(moto.url)
    carrier_of(settings).create(settings, ["small"])
    found = list(sqs_broker(settings, "small", "worker"))
    assert [(finding.code, finding.verdict) for finding in found] == [
        ("QUEUE", "ok"),
        ("QUEUE", "ok"),
        ("BROKER_RIGHTS", "ok"),
    ]
    assert "BROKER_RIGHTS_WIDE" in verdicts(sqs_broker(settings, "small", "client"))
    calls = sqs_calls.calls_of(settings)
    plain = {"RedrivePolicy": "", "MessageRetentionPeriod": "3600", "SqsManagedSseEnabled": "false"}
    calls.set_attributes(queue_name(settings, "jobs.small"), {**plain, "Policy": ""})
    said = [one.seen for one in sqs_broker(settings, "small", None) if one.verdict == "problem"]
    for words in ("no dead-letter queue", "14 days", "no encryption", "without TLS"):
        assert any(words in line for line in said), words


def test_a_caller_that_sqs_denies_is_told_by_role(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto allows everybody everything: SQS's denial is put in its place."""
    moto.reset()
    settings = settings_of(moto.url)
    carrier_of(settings).create(settings, ["small"])

    def deny(*_: object) -> int:
        raise sqs_calls.Denied

    monkeypatch.setattr(sqs_calls.Calls, "lease", deny)
    assert verdicts(sqs_broker(settings, "small", "worker"))["BROKER_RIGHTS"] == "problem"
    assert verdicts(sqs_broker(settings, "small", "client"))["BROKER_RIGHTS"] == "ok"

    def unknown(*_: object) -> int:
        raise DeliveryError("BROKER_DENIED", "who is that?")

    monkeypatch.setattr(sqs_calls.Calls, "lease", unknown)
    with pytest.raises(DeliveryError, match="BROKER_DENIED"):  # not known is not allowed
        list(sqs_broker(settings, "small", "worker"))
    monkeypatch.setattr(sqs_calls.Calls, "attributes", deny)
    found = list(sqs_broker(settings, "small", None))
    assert [finding.verdict for finding in found] == ["problem", "ok"]


def s3(moto: Server, bucket: str) -> tuple[BrokerSettings, Any]:
    settings = BrokerSettings(
        blob_url=f"s3://{bucket}",
        blob_endpoint=moto.url,
        blob_region=REGION,
        blob_access_key_id=SecretStr("key"),
        blob_secret_access_key=SecretStr("secret"),
    )
    client = boto3.client(
        "s3",
        endpoint_url=moto.url,
        region_name=REGION,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    return settings, client


def test_a_bucket_is_closed_or_it_is_a_problem(moto: Server) -> None:
    moto.reset()
    settings, client = s3(moto, "a-bucket")
    (gone,) = blob_store(settings)
    assert (gone.code, gone.verdict) == ("BLOB_STORE", "problem")
    client.create_bucket(Bucket="a-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    bare = verdicts(blob_store(settings))
    assert bare["BUCKET_PUBLIC"] == bare["BUCKET_TLS"] == "problem"
    block = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*", "Condition": condition}
    client.put_public_access_block(Bucket="a-bucket", PublicAccessBlockConfiguration=block)
    client.put_bucket_encryption(Bucket="a-bucket", ServerSideEncryptionConfiguration={"Rules": [rule]})
    client.put_bucket_policy(
        Bucket="a-bucket", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    assert set(verdicts(blob_store(settings)).values()) == {"ok"}
    client.put_public_access_block(
        Bucket="a-bucket", PublicAccessBlockConfiguration={**block, "BlockPublicPolicy": False}
    )
    assert verdicts(blob_store(settings))["BUCKET_PUBLIC"] == "problem"


def test_a_bucket_in_cloud_storage(tmp_path: Path) -> None:
    with gcs_emulator(tmp_path, "a-bucket") as endpoint:
        settings = BrokerSettings(blob_url="gs://a-bucket/some", blob_endpoint=endpoint)
        found = verdicts(blob_store(settings))
        missing = settings.model_copy(update={"blob_url": "gs://b-bucket"})
        assert [finding.verdict for finding in blob_store(missing)] == ["problem"]
    assert (found["BLOB_STORE"], found["BUCKET_PUBLIC"], found["BUCKET_UNIFORM"]) == (
        "ok",
        "problem",
        "problem",
    )


def test_a_folder_that_others_may_write_is_a_problem(tmp_path: Path) -> None:
    settings = BrokerSettings(blob_url=f"file://{tmp_path}/blobs")
    assert verdicts(blob_store(settings))["BLOB_FOLDER"] == "ok"
    (tmp_path / "blobs").chmod(0o777)
    assert verdicts(blob_store(settings))["BLOB_FOLDER"] == "problem"


# ---------------------------------------------------------------- Pub/Sub


def test_pubsub_queues(tmp_path: Path) -> None:
    with pstest(tmp_path) as server:
        settings = pubsub_settings_of(server.admin)
        assert [one.verdict for one in pubsub_broker(settings, "small", None)] == ["problem"]
        carrier_of(settings).create(settings, ["small"])
        assert [one.verdict for one in pubsub_broker(settings, "small", None)] == ["ok"]


@contextmanager
def iam_only(subscription: types.Subscription, rights: set[str]) -> Iterator[BrokerSettings]:
    """Answer GetSubscription and TestIamPermissions as Pub/Sub does, for an identity with these rights."""

    def get(request: Any, context: grpc.ServicerContext) -> types.Subscription:
        if "pubsub.subscriptions.get" not in rights:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return subscription

    def allowed(request: Any, _: grpc.ServicerContext) -> iam.TestIamPermissionsResponse:
        return iam.TestIamPermissionsResponse(permissions=sorted(rights & set(request.permissions)))

    server = grpc.server(futures.ThreadPoolExecutor(1))
    for service, method, handler in (
        (
            "google.pubsub.v1.Subscriber",
            "GetSubscription",
            grpc.unary_unary_rpc_method_handler(
                get, types.GetSubscriptionRequest.deserialize, types.Subscription.serialize
            ),
        ),
        (
            "google.iam.v1.IAMPolicy",
            "TestIamPermissions",
            grpc.unary_unary_rpc_method_handler(
                allowed,
                iam.TestIamPermissionsRequest.FromString,
                iam.TestIamPermissionsResponse.SerializeToString,
            ),
        ),
    ):
        known = grpc.method_handlers_generic_handler(service, {method: handler})
        server.add_generic_rpc_handlers((known,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield pubsub_settings_of(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("role", "rights", "right", "wide"),
    [
        ("worker", {CONSUME}, "ok", None),
        ("worker", {PUBLISH}, "problem", None),
        ("worker", {CONSUME, PUBLISH, "pubsub.subscriptions.delete"}, "ok", "delete the queue"),
        ("client", {PUBLISH}, "ok", None),
        ("client", {PUBLISH, CONSUME}, "ok", "take jobs"),
        ("relay", set(), "problem", None),
        ("operator", {PUBLISH, CONSUME, "pubsub.subscriptions.delete"}, "ok", None),
    ],
)
def test_pubsub_rights_by_role(role: str, rights: set[str], right: str, wide: str | None) -> None:
    with iam_only(types.Subscription(), rights) as settings:
        found = by_code(pubsub_broker(settings, "small", role))
    assert found["QUEUE"].verdict == "ok"
    assert found["BROKER_RIGHTS"].verdict == right
    assert ("BROKER_RIGHTS_WIDE" in found) == (wide is not None)
    if wide is not None:
        assert wide in found["BROKER_RIGHTS_WIDE"].seen


def test_a_bare_subscription_is_a_problem() -> None:
    bare = types.Subscription(expiration_policy=types.ExpirationPolicy(ttl={"seconds": 86_400}))
    with iam_only(bare, {"pubsub.subscriptions.get"}) as settings:
        said = [one.seen for one in pubsub_broker(settings, "small", None) if one.verdict == "problem"]
    for words in ("no dead-letter topic", "less than a day", "expires"):
        assert any(words in line for line in said), words


def test_a_broker_that_is_away_is_an_error() -> None:
    settings = pubsub_settings_of("127.0.0.1:1")
    with pytest.raises(DeliveryError, match="BROKER_UNREACHABLE"):
        list(pubsub_broker(settings.model_copy(update={"operation_timeout_s": 5}), "small", None))


# ---------------------------------------------------------------- the command


def run(*words: str) -> object:
    """Run the command line; return its exit status."""
    with patch.object(sys, "argv", ["ephemeralml", *words]), pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_command_tells_machines_and_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EPHEMERALML_POLICY", raising=False)
    words = ["doctor", "--state-dir", str(tmp_path / "s"), "--pool", "small", "--role", "worker"]
    assert run(*words, "--json") == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"BROKER", "BLOB_STORE", "BLOB_FOLDER", "ENCLAVE_HOST"} <= {one["code"] for one in findings}
    for one in findings:
        assert set(one) == {"code", "verdict", "seen", "cause", "fix"}
        assert one["verdict"] == "ok" or (one["cause"] and one["fix"])
    assert run(*words) == 0
    shown = capsys.readouterr().out
    assert "findings: 0 problem(s)" in shown
    assert run("doctor", "--role", "worker") == 78
    assert "UNKNOWN_ROLE" in capsys.readouterr().err


def test_the_command_looks_at_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPHEMERALML_WORKER_KMS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("EPHEMERALML_WORKER_KMS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("EPHEMERALML_WORKER_KMS_ACCESS_KEY_ID", "AKIA0")
    monkeypatch.setenv("EPHEMERALML_WORKER_KMS_SECRET_ACCESS_KEY", "a-secret-of-mine")
    words = ["doctor", "--state-dir", str(tmp_path / "s"), "--json", "--key", "alias/fleet"]
    assert run(*words) == 0
    said = capsys.readouterr()
    found = {one["code"]: one for one in json.loads(said.out)["findings"]}
    assert found["KEY_DIRECT"]["verdict"] == "warning"
    assert "KMS_UNAVAILABLE" in found["KEY_DIRECT"]["seen"]
    assert "a-secret-of-mine" not in said.out + said.err
    monkeypatch.delenv("EPHEMERALML_WORKER_KMS_SECRET_ACCESS_KEY")
    assert run(*words) == 78
    found = {one["code"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert "KMS_CREDENTIALS_INCOMPLETE" in found["KEY"]["seen"]
