"""Locks: whole, hashed, of what pyproject.toml asks for today, and without what an image must not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .files import HERE, OURS, bases, lock, wanted

LOCKS = sorted(path.stem for path in (HERE / "locks").glob("*.txt"))
CUDA = r"torch|triton|cupy|exllamav.|flash-attn|nvidia-(?!ml-py).*"
SERVER = r"fastapi|uvicorn|sqlalchemy"
TESTS = r"pytest|moto|flower"


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_pinned_by_hashes(name: str) -> None:
    found = lock(name)
    assert found
    for package, (version, hashes) in found.items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), package
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), package
        assert canonicalize_name(package) == package


def test_each_image_has_a_lock_and_each_lock_a_use() -> None:
    used = {"build", "build-gpu", "weights", *OURS}
    assert set(LOCKS) == used


@pytest.mark.parametrize("image", OURS)
def test_the_lock_is_of_todays_requirements(image: str) -> None:
    """An edit of pyproject.toml without a run of ``lock`` shows here."""
    found = lock(image)
    for requirement in [*wanted(image), *(more for one in wanted(image) for more in of_extras(one))]:
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": "3.11"}):
            continue
        name = canonicalize_name(requirement.name)
        assert name in found, f"{name} is not locked: run deploy/docker/lock"
        fits = requirement.specifier.contains(found[name][0], prereleases=True)
        assert fits, f"{name}: run deploy/docker/lock"


def of_extras(requirement: Requirement) -> Iterator[Requirement]:
    """Yield what a package's extras ask for, by the package that is installed here."""
    for text in (metadata.requires(requirement.name) or []) if requirement.extras else []:
        more = Requirement(text)
        chosen = [more.marker.evaluate({"extra": extra}) for extra in requirement.extras if more.marker]
        if any(chosen):
            yield Requirement(text.partition(";")[0])


@pytest.mark.parametrize(
    ("name", "source"), [("build", "build.in"), ("build-gpu", "build-gpu.in"), ("lab", "lab.in"),
                         ("weights", "weights.in"), ("worker-gpu", "worker-gpu.in")]
)  # fmt: skip
def test_the_lock_holds_what_its_own_list_names(name: str, source: str) -> None:
    found = lock(name)
    for line in (HERE / "locks" / source).read_text().splitlines():
        if line and not line.startswith("#"):
            package, pinned = re.fullmatch(r"([a-z0-9-]+)(?:\[\w+\])?(.*)", line).groups()  # type: ignore[union-attr]
            assert package in found
            assert not pinned.startswith("==") or pinned == f"=={found[package][0]}"


@pytest.mark.parametrize(
    ("image", "unwanted"),
    [
        ("gateway", f"{CUDA}|{TESTS}|openvino.*|tokenizers|numpy"),
        ("worker-cpu", f"{CUDA}|{TESTS}|{SERVER}"),
        ("worker-nitro", f"{CUDA}|{TESTS}|{SERVER}|google-cloud-.*|grpcio"),
        ("worker-gpu", f"{TESTS}|{SERVER}"),
        ("lab", f"{CUDA}|pytest"),
    ],
)
def test_images_hold_their_own_role_only(image: str, unwanted: str) -> None:
    assert [package for package in lock(image) if re.fullmatch(unwanted, package)] == []


@pytest.mark.parametrize("image", OURS)
def test_one_version_of_what_speaks_over_the_wire(image: str) -> None:
    """Two sides of one queue with two versions of these is a fault that shows late."""
    others = lock("worker-cpu")
    for package in ("celery", "kombu", "cryptography", "cbor2", "pycose", "redis", "pydantic"):
        assert lock(image)[package][0] == others[package][0]


def test_bases_have_a_digest_or_say_that_they_have_none() -> None:
    for name, (reference, digest) in bases().items():
        assert re.fullmatch(r"docker\.io/[a-z]+/[a-z]+:[a-z0-9.-]+", reference), name
        assert digest == "UNPINNED" or re.fullmatch(r"sha256:[0-9a-f]{64}", digest), name
        assert not reference.endswith((":latest", ":stable")), name
