"""The images' files: clean by hadolint, and by rules of ours that each must be able to fail."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..compose.processes import services
from .files import HERE, IMAGES, OURS, PROJECT, ROOT, base_of, bases, dockerfile, stages

#: Images of single fleets, which begin with one of ``docker/`` and hold a fleet's own settings.
FLEETS = tuple(
    ROOT / "deploy" / name
    for name in ("aws/enclave/Dockerfile", "gcp/image/Dockerfile", "k8s/sqs-nitro/Dockerfile")
)
LEFT_BY_TOOLS = {"dist", "build", "htmlcov", "node_modules", "__pycache__"}


def tool(name: str) -> str:
    """Return a tool of the extra ``dev``; skip without it, but never in CI."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed: pip install -e '.[dev]'")
        pytest.skip(f"{name} is not installed")
    return found


def dockerfiles() -> list[Path]:
    """Return every Dockerfile of the repository, wherever it lies."""
    found = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in LEFT_BY_TOOLS]
        found += [Path(folder, name) for name in names if re.fullmatch(r"(.+\.)?Dockerfile(\..+)?", name)]
    return sorted(path for path in found if path.suffix != ".dockerignore")


def test_hadolint_has_nothing_to_say() -> None:
    files = dockerfiles()
    assert {*HERE.glob("*.Dockerfile"), *FLEETS} == set(files)
    done = subprocess.run([tool("hadolint"), *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FLEETS, ids=lambda path: path.parent.name)
def test_a_fleets_image_starts_from_what_its_builder_names(file: Path) -> None:
    """Neither a base with a tag nor one by default: whoever builds says which, by digest."""
    arguments, found = stages(file.read_text())
    assert [stage.base for stage in found] == [f"${{{name}}}" for name in arguments]


@pytest.mark.parametrize("file", FLEETS, ids=lambda path: path.parent.name)
def test_whoever_switches_the_linter_off_says_why(file: Path) -> None:
    lines = file.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line.startswith("# hadolint ignore="):
            assert re.match(r"# (?!hadolint)\w", before), f"no reason above: {line}"


def scripts() -> list[Path]:
    """Return the shell scripts of deploy/."""
    found = (path for path in (ROOT / "deploy").rglob("*") if path.is_file())
    return sorted(path for path in found if path.read_bytes()[:9] == b"#!/bin/sh")


def test_shellcheck_has_nothing_to_say() -> None:
    assert len(scripts()) > 5
    done = subprocess.run([tool("shellcheck"), *scripts()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# ---------------------------------------------------------------- rules: each yields what is wrong

Rule = Callable[[str], Iterator[str]]


def bases_have_digests(text: str) -> Iterator[str]:
    """Stages start from arguments without a default, which ``build`` fills by bases.lock, or from stages."""
    arguments, found = stages(text)
    yield from (f"{one} has a default" for one in arguments if "=" in one)
    yield from (f"{one} is not in bases.lock" for one in arguments if base_of(one) not in bases())
    names = {stage.name for stage in found} - {""}
    for stage in found:
        if stage.base not in names | {f"${{{one}}}" for one in arguments}:
            yield f"starts from {stage.base}"


def what_builds_stays_behind(text: str) -> Iterator[str]:
    """Nothing is built, fetched or taken from the context in the last stage; files come from stages alone."""
    found = stages(text)[1]
    if len(found) < 2:
        yield "one stage"
    last = found[-1]
    yield from (f"COPY {one}" for one in last.all("COPY") if not one.startswith("--from="))
    yield from (f"RUN {one}" for one in last.all("RUN") if re.search(r"\b(pip|gcc|go|curl|wget|git)\b", one))
    for stage in found:
        yield from (f"ADD {one}" for one in stage.all("ADD"))


def packages_come_by_hash(text: str) -> Iterator[str]:
    """Whatever pip installs is in a lock with hashes, or is the wheel that was just built here."""
    for stage in stages(text)[1]:
        for run in stage.all("RUN"):
            for command in re.split(r"&&|;", run):
                if re.search(r"\bpip install\b", command) is None:
                    continue
                locked = re.search(r"--require-hashes .*--requirement /locks/[a-z-]+\.txt", command)
                if not locked and not ("--no-index" in command and "--no-deps" in command):
                    yield command.strip()


def runs_as_nobody(text: str) -> Iterator[str]:
    """The image runs as user 10001, and what it starts gets SIGTERM."""
    last = stages(text)[1][-1]
    if last.all("USER")[-1:] != ["10001:10001"]:
        yield "USER"
    if last.all("STOPSIGNAL") != ["SIGTERM"]:
        yield "STOPSIGNAL"
    if not all(one.startswith("[") for one in last.all("CMD")) or last.all("ENTRYPOINT"):
        yield "CMD is a shell's, or there is an ENTRYPOINT: signals must reach the program"


def says_where_from(text: str) -> Iterator[str]:
    """Labels name the licence and the source's revision, which ``build`` fills."""
    last = stages(text)[1][-1]
    labels = " ".join(last.all("LABEL"))
    if "REVISION" not in last.all("ARG") or 'revision="${REVISION}"' not in labels:
        yield "revision"
    if 'licenses="Apache-2.0"' not in labels or "image.title=" not in labels:
        yield "licence or title"


def times_are_the_commits(text: str) -> Iterator[str]:
    """Layers that are copied hold no later time than the commit's, no bytecode and no pip."""
    build = stages(text)[1][0]
    runs = " ".join(build.all("RUN"))
    if "SOURCE_DATE_EPOCH" not in build.all("ARG") or '-newermt "@${SOURCE_DATE_EPOCH}"' not in runs:
        yield "times"
    if "PIP_NO_COMPILE=1" not in " ".join(build.all("ENV")) or "__pycache__" not in runs:
        yield "bytecode"
    if "pip uninstall --yes pip" not in runs:
        yield "pip"


def holds_no_secret(text: str) -> Iterator[str]:
    """Neither arguments nor variables bear secrets: an image shows both to everyone."""
    for stage in stages(text)[1]:
        for one in [*stage.all("ENV"), *stage.all("ARG")]:
            if re.search(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|_KEY\b", one):
                yield one


FOR_ALL: tuple[Rule, ...] = (
    bases_have_digests, what_builds_stays_behind, packages_come_by_hash, runs_as_nobody, says_where_from,
    holds_no_secret,
)  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("rule", FOR_ALL)
def test_rule(rule: Rule, image: str) -> None:
    assert list(rule(dockerfile(image))) == []


@pytest.mark.parametrize("image", OURS)
def test_times_are_the_commits(image: str) -> None:
    assert list(times_are_the_commits(dockerfile(image))) == []


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (bases_have_digests, "ARG BASE_PYTHON", "ARG BASE_PYTHON=python:3.11"),
        (bases_have_digests, "FROM ${BASE_PYTHON}\n", "FROM python:3.11-slim\n"),
        (bases_have_digests, "BASE_PYTHON", "BASE_UNHEARD"),
        (what_builds_stays_behind, "COPY --from=build /opt", "COPY . /opt"),
        (what_builds_stays_behind, "USER 10001:10001", "RUN pip install more"),
        (what_builds_stays_behind, "COPY . /src", "ADD https://example.org/x /src"),
        (packages_come_by_hash, "--require-hashes ", ""),
        (packages_come_by_hash, "--no-index ", ""),
        (packages_come_by_hash, "/locks/gateway.txt\n", "fastapi\n"),
        (runs_as_nobody, "USER 10001:10001", "USER 0"),
        (runs_as_nobody, 'CMD ["ephemeralml", "gateway", "serve"]', "CMD ephemeralml gateway serve"),
        (runs_as_nobody, "STOPSIGNAL SIGTERM\n", ""),
        (says_where_from, "ARG REVISION\n", ""),
        (says_where_from, 'licenses="Apache-2.0"', 'licenses=""'),
        (times_are_the_commits, "-newermt", "-mtime"),
        (times_are_the_commits, "PIP_NO_COMPILE=1 ", ""),
        (times_are_the_commits, "pip uninstall --yes pip", "pip list"),
        (holds_no_secret, "ARG SOURCE_DATE_EPOCH", "ARG INDEX_PASSWORD"),
    ],
)
def test_every_rule_can_fail(rule: Rule, old: str, new: str) -> None:
    text = dockerfile("gateway")
    assert old in text
    assert list(rule(text)) == []
    assert list(rule(text.replace(old, new)))


# ---------------------------------------------------------------- what belongs together


@pytest.mark.parametrize("image", OURS)
def test_the_context_is_what_the_wheel_is_made_of(image: str) -> None:
    lines = (HERE / f"{image}.Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    build = PROJECT["tool"]["hatch"]["build"]["targets"]
    made_of = {*build["wheel"]["only-include"], *build["sdist"]["only-include"]}
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == made_of | {"deploy/docker/locks"}
    assert rules[-2:] == ["**/__pycache__", "**/*.pyc"]


def test_the_fakes_context_is_its_source() -> None:
    (source,) = (one for one in stages(dockerfile("pubsub-fake"))[1][0].all("COPY"))
    rules = (HERE / "pubsub-fake.Dockerfile.dockerignore").read_text().split()
    assert rules == ["*", "!" + source.split()[0]]
    assert (ROOT / source.split()[0]).is_file()


@pytest.mark.parametrize("image", OURS)
def test_locks_are_copied_before_they_are_used_and_the_source_after(image: str) -> None:
    """A change of the source leaves the layers of its dependencies as they are."""
    build = stages(dockerfile(image))[1][0]
    words = [f"{word} {rest}" for word, rest in build.steps]
    source = words.index("COPY . /src")
    for number, step in enumerate(words):
        for name in re.findall(r"--requirement /locks/([a-z-]+)\.txt", step):
            if name in ("early", "late"):  # parts of worker-gpu's
                continue
            assert (HERE / "locks" / f"{name}.txt").is_file()
            assert any(f"/locks/{name}.txt" in one for one in words[:number] if one.startswith("COPY")), name
            assert number < source


def test_the_laboratorys_file_names_these_images_and_bases() -> None:
    used = {str(service["image"]) for service in services().values()}
    tags = [re.fullmatch(r"ephemeralml/([a-z-]+):local", one) for one in used]
    ours = {tag[1] for tag in tags if tag}
    assert ours == {"lab", "worker-cpu", "gateway", "pubsub-fake"}
    assert ours <= set(IMAGES)
    others = {one for one in used if not one.startswith("ephemeralml/")}
    known = {re.sub(r"^docker\.io/(library/)?", "", reference) for reference, _ in bases().values()}
    assert {re.fullmatch(r"\$\{[A-Z]+_IMAGE:-(.+)\}", one)[1] for one in others} <= known  # type: ignore[index]


def test_volumes_that_others_write_begin_with_their_owner() -> None:
    """Docker gives a new volume the owner of the image's folder at that place."""
    made = " ".join(stages(dockerfile("lab"))[1][-1].all("RUN"))
    setup = services()["setup"]["volumes"]
    targets = {mount.split(":")[1] for mount in setup if not mount.startswith("./")}
    names = set(re.search(r"for name in ([a-z -]+);", made)[1].split())  # type: ignore[index]
    assert {f"/volumes/{name}" for name in names} == {one for one in targets if one.startswith("/volumes/")}
    assert "/lab" in targets
    assert "-o 10001 -g 10001 -m 0700 /lab /data /blobs" in made
