"""The templates: clean by cfn-lint, and by rules of ours that each must be able to fail."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.session
import pytest
import yaml
from moto import mock_aws

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.wire.announcement import archive_name
from ephemeralml.workers.models.stores import StoreSettings, open_store

from .render import HERE, Rendered, template

FLEET: Final = {
    "FleetName": "ephemeralml",
    "Pool": "small",
    "KeyAccount": "444455556666",
    "VpcId": "vpc-1",
    "SubnetIds": "subnet-1",
    "Release": "ab" * 32,
    "ImageId": "ami-1",
}
KEYS: Final = {
    **{
        name: f"arn:aws:iam::111122223333:role/{name}"
        for name in ("WorkerRoleArn", "KeyOwnerRoleArn", "PackagerRoleArn")
    },
    **{f"CurrentPCR{slot}": f"{slot + 1:x}" * 96 for slot in (0, 1, 2)},
}
PARAMETERS: Final = {"fleet.yaml": FLEET, "keys.yaml": KEYS}
Resources = dict[str, tuple[str, dict[str, Any]]]


def resources(name: str, **more: str) -> Resources:
    rendered = Rendered(name, {**PARAMETERS[name], **more})
    return {
        key: (one["Type"], rendered.properties(key)) for key, one in rendered.template["Resources"].items()
    }


def all_resources() -> Resources:
    return resources("fleet.yaml") | resources("keys.yaml")


def test_cfn_lint_has_nothing_to_say() -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    files = [str(HERE / name) for name in PARAMETERS]
    command = [str(lint), *files, "--regions", "eu-central-1", "us-east-1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------ rules: each yields what breaks it


def statements(found: Resources) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every statement of every policy with its resource and kind."""
    for name, (kind, properties) in found.items():
        for key in ("KeyPolicy", "PolicyDocument", "AssumeRolePolicyDocument"):
            for one in properties.get(key, {}).get("Statement", ()):
                yield name, kind, one
        for policy in properties.get("Policies", ()):
            for one in policy["PolicyDocument"]["Statement"]:
                yield name, kind, one


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def nobody_is_everybody(found: Resources) -> Iterator[str]:
    for name, _, one in statements(found):
        who = one.get("Principal")
        everybody = who == "*" or (isinstance(who, dict) and "*" in _listed(who.get("AWS", ())))
        if one["Effect"] == "Allow" and everybody:
            yield f"{name}: everybody is allowed something"
        if one["Effect"] == "Allow" and isinstance(who, dict) and ":root" in json.dumps(who):
            yield f"{name}: a whole account is allowed something"


def rights_are_named(found: Resources) -> Iterator[str]:
    for name, kind, one in statements(found):
        if one["Effect"] != "Allow":
            continue
        if any("*" in action for action in _listed(one["Action"])):
            yield f"{name}: an action with a wildcard"
        if (
            kind in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy")
            and "Resource" in one
            and "*" in _listed(one["Resource"])
        ):
            yield f"{name}: every resource"


def buckets_are_closed(found: Resources) -> Iterator[str]:
    for name, (kind, properties) in found.items():
        if kind != "AWS::S3::Bucket":
            continue
        block = properties.get("PublicAccessBlockConfiguration", {})
        wanted = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
        if not all(block.get(one) is True for one in wanted):
            yield f"{name}: public access is not blocked"
        if not properties.get("BucketEncryption"):
            yield f"{name}: not encrypted"
        if properties.get("OwnershipControls") != {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}:
            yield f"{name}: access lists count"
        if "AccessControl" in properties:
            yield f"{name}: has an access list"


def everything_by_tls(found: Resources) -> Iterator[str]:
    closed = set()
    for _, (kind, properties) in found.items():
        if kind in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
            for one in properties["PolicyDocument"]["Statement"]:
                denies = one["Effect"] == "Deny" and one["Action"] in ("s3:*", "sqs:*")
                if denies and one["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}:
                    closed |= {*_listed(properties.get("Bucket", ())), *_listed(properties.get("Queues", ()))}
    for name, (kind, _) in found.items():
        if kind in ("AWS::S3::Bucket", "AWS::SQS::Queue") and f"<{name}>" not in closed:
            yield f"{name}: can be used without TLS"


def queues_keep_and_give_up(found: Resources) -> Iterator[str]:
    for name, (kind, properties) in found.items():
        if kind != "AWS::SQS::Queue":
            continue
        if not properties.get("SqsManagedSseEnabled"):
            yield f"{name}: not encrypted"
        if properties.get("MessageRetentionPeriod") != 14 * 86_400:
            yield f"{name}: forgets sooner than it could"
        if "-jobs-" in properties["QueueName"] and not properties.get("RedrivePolicy"):
            yield f"{name}: has no dead-letter queue"


def instances_are_closed(found: Resources) -> Iterator[str]:
    for name, (kind, properties) in found.items():
        if kind == "AWS::EC2::SecurityGroup" and properties.get("SecurityGroupIngress"):
            yield f"{name}: somebody may connect"
        if kind != "AWS::EC2::LaunchTemplate":
            continue
        data = properties["LaunchTemplateData"]
        if data.get("EnclaveOptions") != {"Enabled": True}:
            yield f"{name}: no enclaves"
        options = data.get("MetadataOptions", {})
        if options.get("HttpTokens") != "required" or options.get("HttpPutResponseHopLimit") != 1:
            yield f"{name}: metadata without tokens, or beyond the instance"
        if any(one.get("AssociatePublicIpAddress") is not False for one in data["NetworkInterfaces"]):
            yield f"{name}: a public address"
        if "KeyName" in data:
            yield f"{name}: somebody may log in"
        if not all(one["Ebs"].get("Encrypted") is True for one in data["BlockDeviceMappings"]):
            yield f"{name}: a disk in the clear"


def what_is_kept_stays(found: Resources) -> Iterator[str]:
    for file in PARAMETERS:
        for name, one in template(file)["Resources"].items():
            if name not in found or one["Type"] not in (
                "AWS::KMS::Key",
                "AWS::S3::Bucket",
                "AWS::SQS::Queue",
            ):
                continue
            if (one.get("DeletionPolicy"), one.get("UpdateReplacePolicy")) != ("Retain", "Retain"):
                yield f"{name}: goes with its stack"


RULES: Final = (
    nobody_is_everybody,
    rights_are_named,
    buckets_are_closed,
    everything_by_tls,
    queues_keep_and_give_up,
    instances_are_closed,
    what_is_kept_stays,
)


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: Callable[[Resources], Iterator[str]]) -> None:
    assert list(rule(all_resources())) == []


def _set(*path: Any, to: Any) -> Callable[[Resources], None]:
    def change(found: Resources) -> None:
        place: Any = found[path[0]][1]
        for step in path[1:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


FIRST: Final = ("PolicyDocument", "Statement", 0)
FIRST_KEY: Final = ("KeyPolicy", "Statement", 0)
DATA: Final = "LaunchTemplateData"


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (nobody_is_everybody, _set("FleetKey", *FIRST_KEY, "Principal", to="*")),
        (nobody_is_everybody, _set("ModelKey", *FIRST_KEY, "Principal", to={"AWS": "arn:aws:iam::1:root"})),
        (nobody_is_everybody, _set("BlobsByTls", *FIRST, "Effect", to="Allow")),
        (rights_are_named, _set("WorkerRole", "Policies", 0, *FIRST, "Action", to="sqs:*")),
        (rights_are_named, _set("WorkerRole", "Policies", 1, *FIRST, "Resource", to="*")),
        (rights_are_named, _set("ClientRights", *FIRST, "Resource", to="*")),
        (buckets_are_closed, _set("Blobs", "PublicAccessBlockConfiguration", "BlockPublicPolicy", to=False)),
        (buckets_are_closed, _set("Artefacts", "BucketEncryption", to=None)),
        (buckets_are_closed, _set("Blobs", "AccessControl", to="PublicRead")),
        (everything_by_tls, _set("QueuesByTls", "Queues", to=["<JobsQueue>"])),
        (everything_by_tls, _set("BlobsByTls", *FIRST, "Action", to="s3:GetObject")),
        (queues_keep_and_give_up, _set("JobsQueue", "RedrivePolicy", to=None)),
        (queues_keep_and_give_up, _set("DeadQueue", "SqsManagedSseEnabled", to=False)),
        (instances_are_closed, _set("NoWayIn", "SecurityGroupIngress", to=[{"FromPort": 22}])),
        (instances_are_closed, _set("Parent", DATA, "MetadataOptions", "HttpTokens", to="optional")),
        (instances_are_closed, _set("Parent", DATA, "KeyName", to="me")),
        (instances_are_closed, _set("Parent", DATA, "EnclaveOptions", "Enabled", to=False)),
    ],
)  # fmt: skip
def test_every_rule_can_fail(
    rule: Callable[[Resources], Iterator[str]], change: Callable[[Resources], None]
) -> None:
    found = copy.deepcopy(all_resources())
    change(found)
    assert list(rule(found))


# ------------------------------------------------------------------ what the templates and the code agree on


def printed_rights(role: str) -> dict[str, Any]:
    settings = BrokerSettings(
        profile="sqs", sqs_region="eu-central-1", sqs_prefix="ephemeralml-", state_dir=Path("/nowhere")
    )
    printed = carrier_of(settings).rights(settings, role)
    found: dict[str, Any] = json.loads(printed.replace("ACCOUNT", "111122223333").replace("POOL", "small"))
    return found


@pytest.mark.parametrize("role", ["client", "relay"])
def test_rights_of_clients_are_what_the_command_prints_and_the_blob_store_as_workers_have_it(
    role: str,
) -> None:
    found = resources("fleet.yaml")
    given = found["ClientRights"][1]["PolicyDocument"]["Statement"]
    wanted = printed_rights(role)["Statement"]
    assert given[: len(wanted)] == wanted
    (blobs,) = [one for one in found["WorkerRole"][1]["Policies"] if one["PolicyName"] == "blobs"]
    workers = [one for one in blobs["PolicyDocument"]["Statement"] if "Artefacts" not in str(one["Resource"])]
    assert [{**one, "Sid": ""} for one in given[len(wanted) :]] == [{**one, "Sid": ""} for one in workers]


def test_the_worker_role_is_what_the_command_prints() -> None:
    wanted = printed_rights("worker")
    (queues,) = [
        one for one in resources("fleet.yaml")["WorkerRole"][1]["Policies"] if one["PolicyName"] == "queues"
    ]
    assert queues["PolicyDocument"] == wanted


def test_queues_bear_the_names_that_workers_ask_for() -> None:
    found = resources("fleet.yaml")
    assert found["JobsQueue"][1]["QueueName"] == "ephemeralml-jobs-small"
    assert found["DeadQueue"][1]["QueueName"] == "ephemeralml-dead-small"


def test_only_claim_checks_are_forgotten() -> None:
    rules = resources("fleet.yaml")["Blobs"][1]["LifecycleConfiguration"]["Rules"]
    expiring = {one["Prefix"] for one in rules if "ExpirationInDays" in one}
    assert expiring == {"small/sha256/", "small/expires/"}
    kept = resources("fleet.yaml")["Artefacts"][1]["LifecycleConfiguration"]["Rules"]
    assert not any("ExpirationInDays" in one for one in kept)


@pytest.mark.parametrize(("locked", "there"), [("true", True), ("false", False)])
def test_object_lock_is_an_option(locked: str, there: bool) -> None:
    properties = resources("fleet.yaml", LockReceipts=locked)["Artefacts"][1]
    assert ("ObjectLockConfiguration" in properties, "ObjectLockEnabled" in properties) == (there, there)
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}


def test_no_instance_before_the_first_release() -> None:
    rendered = Rendered("fleet.yaml", {**FLEET, "Release": ""})
    assert not rendered.holds("HasRelease")
    assert rendered.template["Resources"]["Workers"]["Condition"] == "HasRelease"


def test_the_hook_is_the_one_that_the_parent_completes() -> None:
    found = resources("fleet.yaml")
    (hook,) = found["Workers"][1]["LifecycleHookSpecificationList"]
    assert hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_TERMINATING"
    data = found["Parent"][1]["LaunchTemplateData"]["UserData"]
    assert f"install.sh eu-central-1 ephemeralml-small {hook['LifecycleHookName']}" in data
    assert "sha256sum --check" in data


@pytest.mark.parametrize("action", ["CompleteLifecycleAction", "RecordLifecycleActionHeartbeat"])
def test_the_parent_calls_auto_scaling_as_its_model_says(action: str) -> None:
    model = botocore.session.get_session().get_service_model("autoscaling").operation_model(action)
    text = (HERE / "host" / "host.py").read_text("utf-8")
    dashed = re.sub(r"(?<!^)(?=[A-Z])", "-", action).lower()
    assert f'"{dashed}"' in text
    assert model.input_shape is not None
    for member in model.input_shape.required_members:
        if member != "LifecycleActionResult" or action.startswith("Complete"):
            assert "--" + re.sub(r"(?<!^)(?=[A-Z])", "-", member).lower() in text


# ------------------------------------------------------------------ scaling: CloudWatch's metric math


class Metric(float):
    """A metric's value; no data is NaN, and so is what CloudWatch leaves out."""

    def __add__(self, other: float) -> Metric:
        return Metric(float(self) + float(other))

    def __truediv__(self, other: float) -> Metric:
        return Metric(float(self) / float(other)) if other else Metric("nan")


def metric_math(metrics: list[dict[str, Any]], **values: float) -> float:
    """Return what the one returned expression of a list of metrics comes to."""
    (returned,) = [one for one in metrics if one["ReturnData"]]
    named = {one["Id"] for one in metrics if not one["ReturnData"]}
    assert set(re.findall(r"[a-z]+", returned["Expression"])) == named == values.keys()
    names: dict[str, Any] = {name: Metric(value) for name, value in values.items()}
    names["FILL"] = lambda metric, instead: instead if math.isnan(metric) else metric
    names["IF"] = lambda condition, then, otherwise: then if condition else otherwise
    return float(eval(returned["Expression"], {"__builtins__": {}}, names))  # noqa: S307 - the template's


NO_DATA: Final = math.nan


@pytest.mark.parametrize(
    ("waiting", "working", "workers", "each"),
    [(100, 20, 3, 40), (0, 0, 3, 0), (0, 9, 3, 3), (0, 0, 0, 0), (0, 0, NO_DATA, 0)],
)
def test_the_group_follows_messages_per_worker(
    waiting: float, working: float, workers: float, each: float
) -> None:
    policy = resources("fleet.yaml")["FollowTheQueue"][1]["TargetTrackingConfiguration"]
    metrics = policy["CustomizedMetricSpecification"]["Metrics"]
    assert metric_math(metrics, waiting=waiting, working=working, workers=workers) == each


@pytest.mark.parametrize("none", [0, NO_DATA])
def test_one_message_wakes_a_group_of_nobody(none: float) -> None:
    found = resources("fleet.yaml")
    policy = found["FollowTheQueue"][1]["TargetTrackingConfiguration"]
    metrics = policy["CustomizedMetricSpecification"]["Metrics"]
    wanted = int(policy["TargetValue"])
    assert metric_math(metrics, waiting=1, working=0, workers=none) > wanted
    alarm = found["NobodyTakes"][1]
    assert alarm["AlarmActions"] == ["<WakeUp>"]
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
    assert metric_math(alarm["Metrics"], waiting=1, wanted=none) > 0
    assert metric_math(alarm["Metrics"], waiting=0, wanted=none) == 0
    assert metric_math(alarm["Metrics"], waiting=1, wanted=1) == 0
    (step,) = found["WakeUp"][1]["StepAdjustments"]
    assert step == {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}
    emitted = found["Workers"][1]["MetricsCollection"][0]["Metrics"]
    asked = {
        one["MetricStat"]["Metric"]["MetricName"]
        for one in [*metrics, *alarm["Metrics"]]
        if one.get("MetricStat", {}).get("Metric", {}).get("Namespace") == "AWS/AutoScaling"
    }
    assert asked == set(emitted)


#: GiB of memory and vCPUs: Amazon EC2, "Instance types".
INSTANCES: Final = {
    "m6i.xlarge": (16, 4), "m6i.2xlarge": (32, 8), "m7i.xlarge": (16, 4), "m7i.2xlarge": (32, 8),
    "c6i.2xlarge": (16, 8), "r6i.xlarge": (32, 4),
}  # fmt: skip


def test_every_instance_type_has_room_for_enclave_and_parent() -> None:
    aside = yaml.safe_load((HERE / "host/allocator.yaml").read_text("utf-8"))
    allowed = template("fleet.yaml")["Parameters"]["InstanceType"]["AllowedValues"]
    assert set(allowed) == set(INSTANCES)
    for memory_gib, cpus in INSTANCES.values():
        assert memory_gib * 1024 - aside["memory_mib"] >= 2048
        assert cpus - aside["cpu_count"] >= 2


# ------------------------------------------------------------------ who may write what auditors come back to


def test_all_evidence_is_copied_to_where_nothing_can_be_deleted() -> None:
    name = archive_name("small", bytes(32))
    locked = resources("fleet.yaml", LockReceipts="true")
    (rule,) = locked["Blobs"][1]["ReplicationConfiguration"]["Rules"]
    assert f"small/{name}".startswith(rule["Filter"]["Prefix"])
    assert rule["Destination"] == {"Bucket": "<Artefacts.Arn>"}
    assert locked["Blobs"][1]["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = locked["Blobs"][1]["LifecycleConfiguration"]["Rules"]
    assert [one["NoncurrentVersionExpiration"] for one in rules if one["Id"] == "old-versions"] == [
        {"NoncurrentDays": 1}
    ]
    bucket = "arn:aws:s3:::" + locked["Blobs"][1]["BucketName"]
    asked = [one for at, _, one in statements(locked) if at == "EvidenceCopier" and "Resource" in one]
    assert [one["Resource"] for one in asked] == [
        bucket,
        f"{bucket}/small/evidence/*",
        "<Artefacts.Arn>/small/evidence/*",
    ]
    free = resources("fleet.yaml")["Blobs"][1]
    assert not {"ReplicationConfiguration", "VersioningConfiguration"} & free.keys()


#: Amazon S3 User Guide, "Required permissions for Amazon S3 API operations".
NEEDS: Final = {
    "HeadObject": {"s3:GetObject", "s3:ListBucket"},  # 404 and not 403 for what is not there
    "ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "ListParts": {"s3:ListMultipartUploadParts"},
    "CreateMultipartUpload": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
    "CompleteMultipartUpload": {"s3:PutObject"},
}


def test_the_packager_may_what_publishing_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    called: set[str] = set()
    (tmp_path / "p").write_bytes(b"package")
    with mock_aws(), monkeypatch.context() as patch:
        session = boto3.Session()
        patch.setattr(boto3, "DEFAULT_SESSION", session)
        s3 = session.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="artefacts")
        s3.create_multipart_upload(Bucket="artefacts", Key="models/a/b.eml", Metadata={"sha256": "aa"})
        session.events.register("before-call.s3", lambda model, **_: called.add(model.name))
        store = open_store("s3://artefacts/models/a/b.eml", StoreSettings(region="us-east-1"))
        assert store.publish(tmp_path / "p", "aa")
        open_store("s3://artefacts/models/c/d.eml", StoreSettings(region="us-east-1")).publish(
            tmp_path / "p", "aa"
        )
    assert called == set(NEEDS)
    packager = KEYS["PackagerRoleArn"]
    found = resources("fleet.yaml", PackagerRoleArn=packager)
    allowed = [one for _, _, one in statements(found) if one.get("Principal") == {"AWS": packager}]
    assert {action for one in allowed for action in one["Action"]} == set().union(*NEEDS.values())
    assert [one["Resource"] for one in allowed] == ["<Artefacts.Arn>/models/*", "<Artefacts.Arn>"]
    assert allowed[1]["Condition"] == {"StringLike": {"s3:prefix": "models/*"}}
    nobody = statements(resources("fleet.yaml"))
    assert not [one for name, _, one in nobody if name == "ArtefactsByTls" and one["Effect"] == "Allow"]
