"""What pods may do, who may talk to whom, how workers come and go: rules that each must be able to fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.pubsub.names import Names
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.broker_config.redis.lease import LeaseKeys
from ephemeralml.broker_config.sqs.names import queue_name
from ephemeralml.wire.exit_codes import CONFIGURATION, DENIED

from .render import OVERLAYS, Object, containers, of_kind, overlay, pods

Rule = Callable[[list[Object]], Iterator[str]]
POOL = "minilm"
ENCLAVES = "ephemeralml-enclaves"


def pods_may_nothing(objects: list[Object]) -> Iterator[str]:
    """No token, no privilege, no writable root, bounded; all but enclaves run as nobody."""
    for name, pod in pods(objects):
        spec, enclave = pod["spec"], name == "Deployment/enclave"
        if spec.get("automountServiceAccountToken") is not False or spec["enableServiceLinks"]:
            yield f"{name}: token or service links"
        if {"hostNetwork", "hostPID", "hostIPC"} & set(spec):
            yield f"{name}: the node's own"
        whole = spec["securityContext"]
        nobody = whole.get("runAsNonRoot") is True and whole.get("runAsUser") == 10001
        if not enclave and (not nobody or whole["seccompProfile"]["type"] != "RuntimeDefault"):
            yield f"{name}: user or seccomp"
        for one in containers(pod):
            own = one["securityContext"]
            if not (own["readOnlyRootFilesystem"] and own["allowPrivilegeEscalation"] is False):
                yield f"{name}/{one['name']}: root"
            if own["capabilities"] != {"drop": ["ALL"]} or "privileged" in own:
                yield f"{name}/{one['name']}: capabilities"
            if not {"cpu", "memory"} <= set(one["resources"]["limits"]):
                yield f"{name}/{one['name']}: limits"
        yield from (f"{name}: hostPath" for volume in spec["volumes"] if "hostPath" in volume)
        yield from (
            f"{name}: {volume['name']} may grow"
            for volume in spec["volumes"]
            if "emptyDir" in volume
            and "sizeLimit" not in volume["emptyDir"]
            and volume["emptyDir"].get("medium") != "HugePages-1Gi"
        )


def nothing_is_pulled_unset(objects: list[Object]) -> Iterator[str]:
    """An image that nobody chose cannot be pulled: .invalid is nobody's (RFC 2606)."""
    for name, pod in pods(objects):
        for one in containers(pod):
            if not one["image"].startswith("registry.invalid/ephemeralml/"):
                yield f"{name}: {one['image']}"


def holds_no_secret(objects: list[Object]) -> Iterator[str]:
    """Secrets are referred to, never given, and never stand in an environment."""
    yield from (f"Secret/{one['metadata']['name']}" for one in of_kind(objects, "Secret"))
    for one in of_kind(objects, "ConfigMap"):
        for key, value in one["data"].items():
            if re.search(r"://[^/@\s]*:[^/@\s]+@", value) or re.search(r"SECRET|PASSWORD|TOKEN", key):
                yield key
    for name, pod in pods(objects):
        for one in containers(pod):
            if any("valueFrom" in item for item in one.get("env", [])):
                yield f"{name}: a secret in the environment"


def nobody_talks_unasked(objects: list[Object]) -> Iterator[str]:
    """Each namespace begins with nothing allowed; no rule lets everyone in, or out on every port."""
    policies = of_kind(objects, "NetworkPolicy")
    for space in of_kind(objects, "Namespace"):
        shut = [
            one
            for one in policies
            if one["metadata"]["namespace"] == space["metadata"]["name"]
            and one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        ]
        if not shut:
            yield space["metadata"]["name"]
    for one in policies:
        for way in ("ingress", "egress"):
            for rule in one["spec"].get(way, []):
                if not rule.get("ports") or not rule.get("to" if way == "egress" else "from"):
                    yield f"{one['metadata']['name']}: {way} to or from anybody"


def metadata_service_is_shut(objects: list[Object]) -> Iterator[str]:
    """Who reaches the world does not reach the node's metadata service, but where identities come from it."""
    for one in of_kind(objects, "NetworkPolicy"):
        for rule in one["spec"].get("egress", []):
            for to in rule["to"]:
                block = to.get("ipBlock", {})
                if block.get("cidr") == "0.0.0.0/0" and "169.254.0.0/16" not in block.get("except", []):
                    yield one["metadata"]["name"]


def webhooks_go_outwards(objects: list[Object]) -> Iterator[str]:
    """A tenant's webhook address cannot make the relay ask inside (server-side request forgery)."""
    (one,) = (item for item in of_kind(objects, "NetworkPolicy") if item["metadata"]["name"] == "webhooks")
    (rule,) = one["spec"]["egress"]
    inside = {
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
    }
    if not inside <= set(rule["to"][0]["ipBlock"]["except"]) or rule["ports"] != [
        {"protocol": "TCP", "port": 443}
    ]:
        yield "webhooks"


def disruptions_are_counted(objects: list[Object]) -> Iterator[str]:
    """Every Deployment has a budget that lets one pod go at a time, never none and never all."""
    budgets = {
        (one["metadata"]["namespace"], tuple(one["spec"]["selector"]["matchLabels"].items())): one["spec"]
        for one in of_kind(objects, "PodDisruptionBudget")
    }
    for one in of_kind(objects, "Deployment"):
        labels = tuple(one["spec"]["template"]["metadata"]["labels"].items())
        spec = budgets.get((one["metadata"]["namespace"], labels), {})
        if spec.get("maxUnavailable") != 1 and not 0 < spec.get("minAvailable", 0) < one["spec"].get(
            "replicas", 1
        ):
            yield one["metadata"]["name"]


def autoscalers_count_alone(objects: list[Object]) -> Iterator[str]:
    """What KEDA scales exists and states no number of its own, which each apply would set again."""
    deployments = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one for one in of_kind(objects, "Deployment")
    }
    for one in of_kind(objects, "ScaledObject"):
        spec = one["spec"]
        target = deployments.get((one["metadata"]["namespace"], spec["scaleTargetRef"]["name"]))
        if target is None:
            yield "it scales nothing"
        elif "replicas" in target["spec"]:
            yield "replicas"
        if not 0 <= spec["minReplicaCount"] < spec["maxReplicaCount"]:
            yield "bounds"


def triggers_may_ask(objects: list[Object]) -> Iterator[str]:
    """Each trigger's authentication is in its namespace."""
    there = {
        (one["metadata"]["namespace"], one["metadata"]["name"])
        for one in of_kind(objects, "TriggerAuthentication")
    }
    for one in of_kind(objects, "ScaledObject") + of_kind(objects, "ScaledJob"):
        for trigger in one["spec"]["triggers"]:
            if (one["metadata"]["namespace"], trigger["authenticationRef"]["name"]) not in there:
                yield trigger["name"]


def workers_drain(objects: list[Object]) -> Iterator[str]:
    """Deployments drain at SIGTERM with time to finish, Jobs by --drain; a hopeless one is not repeated."""
    for name, pod in pods(objects):
        if pod["metadata"]["labels"]["app.kubernetes.io/name"] not in ("worker", "enclave"):
            continue
        if pod["spec"].get("terminationGracePeriodSeconds", 30) < 600:
            yield f"{name}: no time to finish"
        command = " ".join(pod["spec"]["containers"][0]["command"])
        job = name.startswith("ScaledJob")
        if "sh -" in command and "exec ephemeralml worker" not in command:
            yield f"{name}: SIGTERM meets the shell"
        if job != command.endswith("--drain"):
            yield f"{name}: --drain"
        if job and pod["spec"]["restartPolicy"] != "Never":
            yield f"{name}: a failure policy needs Never"
        if (
            job
            and pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "false"
        ):
            yield f"{name}: evicted while at work"
    for one in of_kind(objects, "ScaledJob"):
        rules = one["spec"]["jobTargetRef"]["podFailurePolicy"]["rules"]
        codes = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob"]
        if codes != [[DENIED, CONFIGURATION]]:
            yield "exit codes"


def triggers_ask_for_our_queues(objects: list[Object]) -> Iterator[str]:
    """Triggers name the queues that workers of the pool take from, as this package names them."""
    queue = jobs_queue(POOL)
    keys = LeaseKeys.of(queue)
    url = queue_name(BrokerSettings(profile="sqs"), queue)
    names = Names.of(BrokerSettings(profile="pubsub", pubsub_project="project"))
    subscription = names.subscription(queue).rpartition("/")[2]
    for one in of_kind(objects, "ScaledObject") + of_kind(objects, "ScaledJob"):
        for trigger in one["spec"]["triggers"]:
            asked = trigger["metadata"]
            if trigger["type"] == "redis":
                wanted = {"waiting": keys.queue, "working": keys.leased}[trigger["name"]]
                right = asked["listName"] == wanted
            elif trigger["type"] == "aws-sqs-queue":
                right = asked["queueURL"].endswith("/" + url)
            else:
                right = f'subscription_id="{subscription}"' in asked["query"]
            if not right:
                yield trigger["name"]


def what_is_in_work_counts(objects: list[Object]) -> Iterator[str]:
    """A Deployment counts what is in work as well, or its workers are taken from the last jobs."""
    for one in of_kind(objects, "ScaledObject"):
        triggers = {trigger["name"]: trigger for trigger in one["spec"]["triggers"]}
        modifiers = one["spec"]["advanced"].get("scalingModifiers", {})
        kind = triggers["waiting"]["type"]
        if kind == "redis" and ("working" not in triggers or modifiers.get("formula") != "waiting + working"):
            yield "redis"
        if kind == "aws-sqs-queue" and triggers["waiting"]["metadata"]["scaleOnInFlight"] != "true":
            yield "sqs"


RULES: tuple[Rule, ...] = (
    pods_may_nothing, nothing_is_pulled_unset, holds_no_secret, nobody_talks_unasked,
    metadata_service_is_shut, webhooks_go_outwards, disruptions_are_counted, autoscalers_count_alone,
    triggers_may_ask, workers_drain, triggers_ask_for_our_queues, what_is_in_work_counts,
)  # fmt: skip


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: Rule, name: str) -> None:
    assert list(rule(overlay(name))) == []


def change(objects: list[Object], where: str, value: Any) -> None:
    """Set a field of an object, ``Kind/name/field/field``; None takes it away."""
    kind, name, *fields = where.split("/")
    place: Any
    (place,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    keys = [int(key) if key.isdigit() else key for key in fields]
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value


CASES: dict[Rule, list[tuple[str, str, Any]]] = {
    pods_may_nothing: [
        ("redis", "Deployment/gateway/POD/automountServiceAccountToken", True),
        ("redis", "Deployment/gateway/POD/hostNetwork", True),
        ("redis", "Deployment/relay/POD/securityContext/runAsUser", 0),
        ("redis", "Deployment/worker/POD/initContainers/1/resources/limits", {}),
        ("redis", "Job/migrate/POD/containers/0/securityContext/capabilities", {}),
        ("redis", "Job/migrate/POD/volumes/0/emptyDir/sizeLimit", None),
        ("redis", "Job/migrate/POD/volumes/0/hostPath", {"path": "/"}),
        ("sqs-nitro", "Deployment/enclave/POD/containers/0/securityContext/readOnlyRootFilesystem", False),
    ],
    nothing_is_pulled_unset: [("redis", "Deployment/worker/POD/containers/0/image", "ephemeralml/worker")],
    holds_no_secret: [
        ("redis", "ConfigMap/settings/data/EPHEMERALML_BROKER_URL", "redis://a:b@c/0"),
        ("redis", "Deployment/relay/POD/containers/0/env", [{"name": "A", "valueFrom": {}}]),
    ],
    nobody_talks_unasked: [
        ("redis", "NetworkPolicy/nothing/spec/policyTypes", ["Ingress"]),
        ("redis", "NetworkPolicy/gateway/spec/ingress/0/from", []),
        ("sqs", "NetworkPolicy/broker/spec/egress/0/ports", []),
    ],
    metadata_service_is_shut: [("sqs", "NetworkPolicy/broker/spec/egress/0/to/0/ipBlock/except", [])],
    webhooks_go_outwards: [
        ("redis", "NetworkPolicy/webhooks/spec/egress/0/to/0/ipBlock/except/0", "1.0.0.0/8"),
        ("redis", "NetworkPolicy/webhooks/spec/egress/0/ports", [{"protocol": "TCP", "port": 80}]),
    ],
    disruptions_are_counted: [
        ("redis", "PodDisruptionBudget/gateway/spec/minAvailable", 2),
        ("redis", "PodDisruptionBudget/worker/spec/maxUnavailable", 0),
        ("redis", "PodDisruptionBudget/relay/spec/selector/matchLabels", {"a": "b"}),
    ],
    autoscalers_count_alone: [
        ("redis", "Deployment/worker/spec/replicas", 3),
        ("sqs", "ScaledObject/worker/spec/scaleTargetRef/name", "wroker"),
        ("sqs", "ScaledObject/worker/spec/minReplicaCount", 20),
    ],
    triggers_may_ask: [("pubsub", "TriggerAuthentication/broker/metadata/namespace", "keda")],
    workers_drain: [
        ("redis", "Deployment/worker/POD/terminationGracePeriodSeconds", 30),
        ("redis", "Deployment/worker/POD/containers/0/command/2", "ephemeralml worker"),
        ("redis-jobs", "ScaledJob/worker/JOB/containers/0/command/2", "exec ephemeralml worker"),
        ("redis-jobs", "ScaledJob/worker/JOB/restartPolicy", "OnFailure"),
        ("sqs-jobs", "ScaledJob/worker/spec/jobTargetRef/podFailurePolicy/rules/0/onExitCodes/values", [77]),
    ],
    triggers_ask_for_our_queues: [
        ("redis", "ScaledObject/worker/spec/triggers/1/metadata/listName", "x"),
        ("sqs-jobs", "ScaledJob/worker/spec/triggers/0/metadata/queueURL", "x"),
        ("pubsub", "ScaledObject/worker/spec/triggers/0/metadata/query", "x"),
    ],
    what_is_in_work_counts: [
        ("redis", "ScaledObject/worker/spec/advanced/scalingModifiers", {}),
        ("sqs", "ScaledObject/worker/spec/triggers/0/metadata/scaleOnInFlight", "false"),
    ],
}


@pytest.mark.parametrize(
    ("rule", "name", "where", "value"), [(rule, *case) for rule, cases in CASES.items() for case in cases]
)
def test_every_rule_can_fail(rule: Rule, name: str, where: str, value: Any) -> None:
    objects = overlay(name)
    where = where.replace("/JOB/", "/spec/jobTargetRef/template/spec/").replace(
        "/POD/", "/spec/template/spec/"
    )
    if name == "sqs-nitro":  # names are of one namespace
        objects = [one for one in objects if one["metadata"].get("namespace") == ENCLAVES]
    change(objects, where, value)
    assert list(rule(objects))


def test_every_rule_was_tried() -> None:
    assert set(CASES) == set(RULES)
