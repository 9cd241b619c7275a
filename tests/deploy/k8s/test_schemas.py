"""Every object is what Kubernetes and KEDA take, by offline schemas that allow no unknown field."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml

from .keda import SCHEMAS
from .render import HERE, OVERLAYS, Object, of_kind, overlay

#: The oldest that starts sidecars without a switch, and the newest that the package knows.
VERSIONS = ("1.29.0", "1.37.0")


def kubernetes(one: Object, version: str) -> None:
    """Raise where Kubernetes would not take an object, or would drop a field of it."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        if os.environ.get("CI"):
            pytest.fail("kubernetes_validate is not installed: pip install -e '.[dev]'")
        pytest.skip("kubernetes_validate is not installed")
    importlib.import_module("kubernetes_validate").validate(one, version, strict=True)


def everything() -> dict[str, Object]:
    """Return each different object of all overlays once."""
    found: dict[str, Object] = {}
    for name in OVERLAYS:
        for one in overlay(name):
            found.setdefault(yaml.safe_dump(one), one)
    names = (f"{one['kind']}-{one['metadata']['name']}" for one in found.values())
    return {
        f"{name}-{number}": one for number, (name, one) in enumerate(zip(names, found.values(), strict=True))
    }


EVERYTHING = everything()


@pytest.mark.parametrize("name", EVERYTHING)
def test_object(name: str) -> None:
    one = EVERYTHING[name]
    if one["kind"] in SCHEMAS:
        jsonschema.Draft202012Validator(SCHEMAS[one["kind"]]).validate(one)
        if one["kind"] != "ScaledJob":
            return
        spec = one["spec"]["jobTargetRef"]
        one = {"apiVersion": "batch/v1", "kind": "Job", "metadata": one["metadata"], "spec": spec}
    for version in VERSIONS:
        kubernetes(one, version)


def test_an_unknown_field_is_noticed() -> None:
    for one in overlay("redis"):
        kind = one["kind"]
        changed: Any = {**one, "spce": {}}
        if kind in SCHEMAS:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.Draft202012Validator(SCHEMAS[kind]).validate(changed)
        elif kind in ("Deployment", "NetworkPolicy"):
            with pytest.raises(jsonschema.ValidationError):
                kubernetes(changed, VERSIONS[-1])


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ScaledObject", ("triggers", 0, "metadata", "listLength"), 8),
        ("ScaledObject", ("triggers", 0, "metadata", "lenght"), "8"),
        ("ScaledObject", ("triggers", 0, "type"), "redis-streams"),
        ("ScaledObject", ("maxReplicaCount",), "20"),
        ("TriggerAuthentication", ("secretTargetRef", 0, "key"), ""),
    ],
)
def test_what_keda_would_not_read_is_noticed(kind: str, path: tuple[Any, ...], value: object) -> None:
    (one,) = of_kind(overlay("redis"), kind)
    place: Any = one["spec"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMAS[kind]).validate(one)


@pytest.mark.parametrize("name", OVERLAYS)
def test_kustomize_builds_the_same(name: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(HERE / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unknown command" in done.stderr:
        pytest.skip("this kubectl is too old")
    assert done.returncode == 0, done.stderr
    assert sorted(map(yaml.safe_dump, yaml.safe_load_all(done.stdout))) == sorted(
        map(yaml.safe_dump, overlay(name))
    )
