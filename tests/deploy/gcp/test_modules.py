"""The Terraform modules: rules of ours that each can fail, and agreement with the code."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.pubsub.admin import MAX_ATTEMPTS, _dead, _jobs
from ephemeralml.broker_config.pubsub.names import Names
from ephemeralml.workers.settings import WorkerSettings

from .hcl import HERE, Module

Found = list[tuple[str, str, dict[str, Any]]]
MODULES: Final = ("keys", "fleet")
FORBIDDEN_ROLES: Final = re.compile(r"roles/(owner|editor|viewer|.*[aA]dmin)$")


def everything() -> Found:
    return [one for name in MODULES for one in Module(name).resources()]


def nobody_is_everybody(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if "allUsers" in str(body) or "allAuthenticatedUsers" in str(body):
            yield f"{kind}.{name}: everybody"


def roles_are_small(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if "iam" in kind and FORBIDDEN_ROLES.fullmatch(str(body.get("role", ""))):
            yield f"{kind}.{name}: a basic or administrator's role"
        if kind.endswith("_iam_policy"):
            yield f"{kind}.{name}: replaces a whole policy"


#: What IAM offers on no smaller thing than a project, or what nobody can name in advance.
ON_THE_PROJECT: Final = {
    "roles/pubsub.publisher",
    "roles/confidentialcomputing.workloadUser",
    "roles/logging.logWriter",
}


def projects_give_little(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if kind == "google_project_iam_member" and body["role"] not in ON_THE_PROJECT:
            yield f"{kind}.{name}: on the whole project"


def buckets_are_closed(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if kind != "google_storage_bucket":
            continue
        if body.get("public_access_prevention") != "enforced":
            yield f"{name}: may become public"
        if body.get("uniform_bucket_level_access") is not True:
            yield f"{name}: access lists count"
        if not body.get("encryption"):
            yield f"{name}: not under a key of ours"


def topics_are_encrypted(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if kind == "google_pubsub_topic" and not body.get("kms_key_name"):
            yield f"{name}: not under a key of ours"


def keys_stay_and_turn(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if kind != "google_kms_crypto_key":
            continue
        if body.get("lifecycle") != [{"prevent_destroy": True}]:
            yield f"{name}: can be destroyed by mistake"
        if not body.get("rotation_period"):
            yield f"{name}: never turns"


def keys_are_bound_to_images(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if kind.startswith("google_kms_") and "iam" in kind:
            key = str(body.get("crypto_key_id"))
            releases = "ecrypter" in body["role"]
            if kind != "google_kms_crypto_key_iam_binding":
                yield f"{name}: others may hold the role too"
            if releases and ".rest." not in key and "${local.by_image}/${digest}" not in str(body["members"]):
                yield f"{name}: not bound to an image's digest"


def machines_are_closed(found: Found) -> Iterator[str]:
    for kind, name, body in found:
        if kind == "google_compute_firewall" and body["direction"] == "INGRESS" and "allow" in body:
            yield f"{name}: somebody may connect"
        if kind != "google_compute_instance_template":
            continue
        wanted = [{"enable_confidential_compute": True, "confidential_instance_type": "TDX"}]
        if body.get("confidential_instance_config") != wanted:
            yield f"{name}: not in TDX"
        if body["shielded_instance_config"][0].get("enable_secure_boot") is not True:
            yield f"{name}: boots anything"
        if any("access_config" in one for one in body["network_interface"]):
            yield f"{name}: a public address"
        source = str(body["disk"][0]["source_image"])
        if not source.startswith("projects/confidential-space-images/") or "debug" in source:
            yield f"{name}: not a production image of Confidential Space"


RULES: Final = (
    nobody_is_everybody,
    roles_are_small,
    projects_give_little,
    buckets_are_closed,
    topics_are_encrypted,
    keys_stay_and_turn,
    keys_are_bound_to_images,
    machines_are_closed,
)
Rule = Callable[[Found], Iterator[str]]


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: Rule) -> None:
    assert list(rule(everything())) == []


@pytest.mark.parametrize(
    ("rule", "kind", "name", "change"),
    [
        (nobody_is_everybody, "google_storage_bucket_iam_member", "worker_models", {"member": "allUsers"}),
        (roles_are_small, "google_project_iam_member", "worker_logs", {"role": "roles/editor"}),
        (roles_are_small, "google_pubsub_topic_iam_member", "agent_gives_up", {"role": "roles/pubsub.admin"}),
        (
            projects_give_little,
            "google_project_iam_member",
            "worker_logs",
            {"role": "roles/storage.objectUser"},
        ),
        (buckets_are_closed, "google_storage_bucket", "blobs", {"public_access_prevention": "inherited"}),
        (buckets_are_closed, "google_storage_bucket", "blobs", {"uniform_bucket_level_access": False}),
        (buckets_are_closed, "google_storage_bucket", "artefacts", {"encryption": None}),
        (topics_are_encrypted, "google_pubsub_topic", "jobs", {"kms_key_name": ""}),
        (keys_stay_and_turn, "google_kms_crypto_key", "fleet", {"lifecycle": []}),
        (keys_are_bound_to_images, "google_kms_crypto_key_iam_binding", "fleet", {"members": ["group:x"]}),
        (keys_are_bound_to_images, "google_kms_crypto_key_iam_binding", "model_workers", {"members": []}),
        (machines_are_closed, "google_compute_firewall", "no_way_in", {"allow": [{"protocol": "tcp"}]}),
        (
            machines_are_closed,
            "google_compute_instance_template",
            "worker",
            {"confidential_instance_config": []},
        ),
        (
            machines_are_closed,
            "google_compute_instance_template",
            "worker",
            {"network_interface": [{"access_config": [{}]}]},
        ),
    ],
)
def test_every_rule_can_fail(rule: Rule, kind: str, name: str, change: dict[str, Any]) -> None:
    found = copy.deepcopy(everything())
    (body,) = [body for one, other, body in found if (one, other) == (kind, name)]
    body |= change
    assert list(rule(found))


@pytest.mark.parametrize("module", MODULES)
def test_everything_named_is_there(module: str) -> None:
    """No provider is at hand to check references; ours does."""
    read = Module(module)
    declared = set(read.variables())
    used = set(re.findall(r"\bvar\.(\w+)", read.text))
    assert used == declared
    assert set(re.findall(r"\blocal\.(\w+)", read.text)) == set(read.locals())
    resources = {f"{kind}.{name}" for kind, name, _ in read.resources()}
    named = set(re.findall(r"(?<![\w.\"])(google_\w+\.\w+)", re.sub(r"data\.google_\w+\.\w+", "", read.text)))
    assert named <= resources


def test_the_queues_are_those_that_the_command_makes() -> None:
    fleet = Module("fleet")
    values = {"prefix": "ephemeralml.", "pool": "small", "retention_seconds": 604_800}
    settings = BrokerSettings(profile="pubsub", pubsub_project="project-1", state_dir=Path("/nowhere"))
    names = Names.of(settings)
    for name, wanted in (
        ("jobs", _jobs(settings, names, "jobs.small")),
        ("dead", _dead(settings, names, "dead.small")),
    ):
        body = fleet.resource("google_pubsub_subscription", name)
        assert fleet.render(f"${{{body['name'][2:-1]}}}", values) == wanted.name.rpartition("/")[2]
        assert body["ack_deadline_seconds"] == wanted.ack_deadline_seconds
        seconds = fleet.render(body["message_retention_duration"], values)
        assert seconds == f"{int(wanted.message_retention_duration.total_seconds())}s"
        assert body["expiration_policy"] == [{"ttl": ""}]
    policy = fleet.resource("google_pubsub_subscription", "jobs")["dead_letter_policy"][0]
    assert policy["max_delivery_attempts"] == MAX_ATTEMPTS


def test_the_workers_rights_on_the_broker_are_what_the_command_prints() -> None:
    settings = BrokerSettings(profile="pubsub", pubsub_project="project-1", state_dir=Path("/nowhere"))
    printed = carrier_of(settings).rights(settings, "worker")
    lines = [line for line in printed.splitlines() if not line.startswith("#")]
    wanted = {
        (re.search(r"pubsub subscriptions|projects", line)[0], re.search(r"--role=(\S+)", line)[1])  # type: ignore[index]
        for line in lines
    }
    kinds = {
        "google_pubsub_subscription_iam_member": "pubsub subscriptions",
        "google_pubsub_topic_iam_member": "pubsub topics",
        "google_project_iam_member": "projects",
    }
    given = {
        (kinds[kind], body["role"])
        for kind, _, body in Module("fleet").resources()
        if kind in kinds and body["member"] == "${local.worker}" and "pubsub" in body["role"]
    }
    assert given == wanted


def test_only_claim_checks_are_forgotten() -> None:
    rules = Module("fleet").resource("google_storage_bucket", "blobs")["lifecycle_rule"]
    (delete,) = [one for one in rules if one["action"] == [{"type": "Delete"}]]
    assert delete["condition"][0]["matches_prefix"] == ["${var.pool}/sha256/", "${var.pool}/expires/"]


def test_the_image_lets_change_what_the_machines_set_and_nothing_else() -> None:
    text = (HERE / "image" / "Dockerfile").read_text("utf-8")
    match = re.search(r'"tee\.launch_policy\.allow_env_override"="([A-Z0-9_,]+)"', text)
    assert match is not None
    allowed = match[1].split(",")
    assert sorted(allowed) == sorted(Module("fleet").locals()["settings"])
    fixed = set(re.findall(r"(EPHEMERALML_\w+)=", text))
    assert not fixed & set(allowed)
    known = {f"EPHEMERALML_WORKER_{one.upper()}" for one in WorkerSettings.model_fields}
    known |= {f"EPHEMERALML_{one.upper()}" for one in BrokerSettings.model_fields}
    assert {*allowed, *fixed} - known == {
        "EPHEMERALML_POLICY_URL",
        "EPHEMERALML_COLLATERAL_URL",
        "EPHEMERALML_LOG",
    }
    for never in ("POLICY_ROOT", "MODEL_SIGNER", "PLATFORM", "KMS", "COLLATERAL", "GPU"):
        assert f"EPHEMERALML_WORKER_{never}" in fixed
    for label in ('allow_cmd_override"="false"', 'log_redirect"="debugonly"'):
        assert label in text


def test_gpu_machines_are_the_ones_that_google_has() -> None:
    fleet = Module("fleet")
    assert "a3-highgpu-1g" in fleet.locals()["machine_type"]
    template = fleet.resource("google_compute_instance_template", "worker")
    assert template["scheduling"][0]["on_host_maintenance"] == "TERMINATE"
    assert "tee-install-gpu-driver" in str(template["metadata"])


def test_terraform_itself_would_write_it_so() -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not here")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-recursive", str(HERE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
