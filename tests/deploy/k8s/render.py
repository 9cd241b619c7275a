"""Builds the overlays of deploy/k8s as far as they use Kustomize; ``kubectl kustomize`` says the same.

Known are ``resources``, ``configMapGenerator`` with literals, and ``patches`` whose only operation is
``replace``. Anything else is refused, so that nothing is left out in silence.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[3]
HERE: Final = ROOT / "deploy" / "k8s"
OVERLAYS: Final = ("redis", "redis-jobs", "sqs", "sqs-jobs", "sqs-nitro", "pubsub", "pubsub-jobs")
_KNOWN: Final = {
    "apiVersion", "kind", "resources", "configMapGenerator", "generatorOptions", "patches"
}  # fmt: skip
Object = dict[str, Any]


@functools.cache
def _built(folder: Path) -> tuple[Object, ...]:
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(wanted) - _KNOWN
    assert not unknown, unknown
    found: list[Object] = []
    for name in wanted["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            found += _built(path)
        else:
            found += yaml.safe_load_all(path.read_text())
    for settings in wanted.get("configMapGenerator", []):
        assert wanted["generatorOptions"] == {"disableNameSuffixHash": True}
        data = dict(literal.split("=", 1) for literal in settings["literals"])
        metadata = {"name": settings["name"], "namespace": settings["namespace"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    found = copy.deepcopy(found)
    for patch in wanted.get("patches", []):
        target = patch["target"]
        (one,) = (
            item
            for item in found
            if (item["kind"], item["metadata"]["name"]) == (target["kind"], target["name"])
        )
        for step in yaml.safe_load(patch["patch"]):
            assert step["op"] == "replace"
            *way, last = step["path"].strip("/").split("/")
            functools.reduce(lambda value, key: value[key], way, one)[last] = step["value"]
    return tuple(found)


def overlay(name: str) -> list[Object]:
    """Return an overlay's objects, to be changed at will."""
    return copy.deepcopy(list(_built((HERE / name).resolve())))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [one for one in objects if one["kind"] == kind]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield name and pod template of whatever starts pods."""
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in ("Deployment", "Job"):
            yield name, one["spec"]["template"]
        elif one["kind"] == "ScaledJob":
            yield name, one["spec"]["jobTargetRef"]["template"]


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod template."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
