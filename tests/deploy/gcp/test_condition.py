"""The provider's condition, evaluated as CEL against recorded and changed claims of Confidential Space."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from celpy import Environment
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError

from ...corpus import corpus
from .hcl import Module

Claims = dict[str, Any]
Change = Callable[[Claims], None]
KEYS: Final = Module("keys")
PROVIDER: Final = KEYS.resource("google_iam_workload_identity_pool_provider", "space")
RECORDED: Final = ("flare_pki_2025-10-28.jwt", "synddb_oidc_2025-12-02_0.jwt", "synddb_oidc_2025-12-02_1.jwt")


def claims(name: str) -> Claims:
    """Return a recorded token's claims."""
    part = (corpus(f"gcp-cs/{name}").read_text("ascii").strip().split("."))[1]
    found: Claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def evaluate(expression: str, assertion: Claims) -> Any:
    """Return what an expression comes to; an error, as of a claim that is not there, is None."""
    environment = Environment()
    program = environment.program(environment.compile(expression))
    try:
        return program.evaluate({"assertion": json_to_cel(assertion)})
    except CELEvalError:
        return None


def accepts(found: Claims, *, gpu: bool, wanted: Claims | None = None) -> bool:
    """Return whether the provider takes a token, where it wants ``wanted``'s image and account."""
    meant = wanted or found
    values = {
        "gpu": gpu,
        "support_attribute": "STABLE",
        "image_digests": [meant["submods"]["container"]["image_digest"]],
        "worker_service_account": meant["google_service_accounts"][0],
    }
    came = evaluate(KEYS.render(PROVIDER["attribute_condition"], values), found)
    return came is not None and bool(came) is True


def production(name: str) -> Claims:
    """Return recorded claims as a production image on TDX with an H100 would show them.

    None was recorded: all tokens of the corpus are of debug images on SEV.
    """
    found = claims(name)
    found |= {"dbgstat": "disabled-since-boot", "hwmodel": "GCP_INTEL_TDX"}
    found["submods"]["confidential_space"]["support_attributes"] = ["LATEST", "STABLE", "USABLE"]
    found["submods"]["nvidia_gpu"] = {"cc_mode": "ON"}
    return found


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("gpu", [False, True])
def test_recorded_debug_images_get_nothing(name: str, gpu: bool) -> None:
    assert claims(name)["dbgstat"] == "enabled"
    assert not accepts(claims(name), gpu=gpu)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("gpu", [False, True])
def test_the_right_image_gets_in(name: str, gpu: bool) -> None:
    assert accepts(production(name), gpu=gpu)


def _set(*path: str, to: Any) -> Change:
    def change(found: Claims) -> None:
        for step in path[:-1]:
            found = found[step]
        if to is None:
            del found[path[-1]]
        else:
            found[path[-1]] = to

    return change


SUPPORT = ("submods", "confidential_space", "support_attributes")
REFUSED: Final = {
    "debug": _set("dbgstat", to="enabled"),
    "no debug claim": _set("dbgstat", to=None),
    "another image": _set("submods", "container", "image_digest", to="sha256:" + "ab" * 32),
    "no image": _set("submods", "container", to=None),
    "other software": _set("swname", to="GCE"),
    "no memory encryption": _set("hwmodel", to="GCP_SHIELDED_VM"),
    "another TEE": _set("hwmodel", to="GCP_AMD_SEV"),
    "no secure boot": _set("secboot", to=False),
    "experimental": _set(*SUPPORT, to=["EXPERIMENTAL"]),
    "old": _set(*SUPPORT, to=["USABLE"]),
    "no support claim": _set(*SUPPORT, to=None),
    "another account": _set("google_service_accounts", to=["x@y.iam.gserviceaccount.com"]),
    "no account": _set("google_service_accounts", to=[]),
}
REFUSED_WITH_GPU: Final = {
    "cc_mode OFF": _set("submods", "nvidia_gpu", "cc_mode", to="OFF"),
    "cc_mode DEVTOOLS": _set("submods", "nvidia_gpu", "cc_mode", to="DEVTOOLS"),
    "no GPU": _set("submods", "nvidia_gpu", to=None),
}


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_wanted_is_refused(change: Change, gpu: bool) -> None:
    right = production(RECORDED[0])
    found = copy.deepcopy(right)
    change(found)
    assert not accepts(found, gpu=gpu, wanted=right)


@pytest.mark.parametrize("change", REFUSED_WITH_GPU.values(), ids=REFUSED_WITH_GPU.keys())
def test_a_gpu_fleet_wants_a_gpu_in_confidential_mode(change: Change) -> None:
    found = production(RECORDED[0])
    change(found)
    assert not accepts(found, gpu=True)
    assert accepts(found, gpu=False)


def test_the_mapping_gives_the_attribute_that_the_keys_are_bound_to() -> None:
    found = production(RECORDED[0])
    mapping = PROVIDER["attribute_mapping"]
    digest = found["submods"]["container"]["image_digest"]
    assert evaluate(mapping["attribute.image_digest"], found) == digest
    subject = str(evaluate(mapping["google.subject"], found))
    assert subject == f"gcpcs::{digest}::{found['submods']['gce']['instance_id']}"
    # IAM: google.subject has at most 127 bytes.
    assert len(subject) <= 127


# ---------------------------------------------------------------- rights on the bucket, as IAM evaluates them


def may(member: str, bucket: str, *, name: str = "", prefix: str = "") -> bool:
    """Return whether a condition lets through a call on an object, or a listing of a prefix."""
    fleet = Module("fleet")
    text = fleet.resource("google_storage_bucket_iam_member", member)["condition"][0]["expression"]
    text = text.replace(f"${{google_storage_bucket.{bucket}.name}}", "it").replace("${var.pool}", "small")
    assert "${" not in text
    # celpy has no receivers of its own: the attribute is put in as IAM would find it.
    text = text.replace("api.getAttribute('storage.googleapis.com/objectListPrefix', '')", "list_prefix")
    environment = Environment()
    program = environment.program(environment.compile(text))
    resource = "projects/_/buckets/it" + (f"/objects/{name}" if name else "")
    found = {"resource": json_to_cel({"name": resource}), "list_prefix": json_to_cel(prefix)}
    return bool(program.evaluate(found))


def test_a_worker_reads_writes_and_lists_below_its_pool_and_nowhere_else() -> None:
    for name, right in (("small/fleet/small/1", True), ("other/x", False), ("smaller/x", False)):
        assert may("worker_blobs", "blobs", name=name) is right
        assert may("worker_blobs", "blobs", prefix=name) is right
    assert not may("worker_blobs", "blobs")


def test_a_packager_makes_models_and_nothing_else() -> None:
    body = Module("fleet").resource("google_storage_bucket_iam_member", "packager")
    assert set(re.findall(r"roles/[.\w]+", str(body["for_each"]))) == {
        "roles/storage.objectCreator",
        "roles/storage.objectViewer",
    }
    assert may("packager", "artefacts", name="models/aa/bb.eml")
    assert not may("packager", "artefacts", name="policies/small.bundle")
