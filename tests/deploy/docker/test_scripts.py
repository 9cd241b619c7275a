"""The scripts around the images, with programs of their own in place of engine and registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .files import HERE, ROOT, bases, lock
from .test_images import tool

DIGEST = "sha256:" + "5" * 64


def program(folder: Path, name: str, script: str) -> None:
    """Put a program on the path of a test."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def run(command: list[str | Path], programs: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a script that finds the test's programs first, then the system's own."""
    path = f"{programs}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": "/nowhere", **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


SCRIPTS = [*(HERE / name for name in ("build", "pin-bases", "lock", "sbom")), ROOT / "deploy/compose/up"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_say_what_they_do(script: Path, tmp_path: Path) -> None:
    done = run([script, "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head = [line[2:] for line in script.read_text().splitlines()[1:] if line.startswith("# ")]
    assert done.stdout.splitlines() == head[: len(done.stdout.splitlines())]
    assert script.name in done.stdout or script.name == "lock"


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [("build", "NO_IMAGE", 64), ("sbom", "NO_FOLDER", 64), ("lock", "NO_UV", 78)],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, name: str, code: str, status: int) -> None:
    if name == "lock" and shutil.which("uv", path="/usr/bin:/bin"):
        pytest.skip("this machine has uv")
    done = run([HERE / name], tmp_path)
    assert (done.returncode, done.stderr.split(":")[0]) == (status, f"error {code}")
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- pin-bases


@pytest.fixture
def bases_lock(tmp_path: Path) -> Path:
    return Path(shutil.copy(HERE / "bases.lock", tmp_path / "bases.lock"))


def test_digests_come_from_the_registry(bases_lock: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "skopeo", f'echo "$*" >>{tmp_path}/asked; echo {DIGEST}')
    done = run([HERE / "pin-bases"], tmp_path / "bin", BASES_LOCK=str(bases_lock))
    assert (done.returncode, done.stderr) == (0, "")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [one.split("docker://")[1] for one in asked] == [reference for reference, _ in bases().values()]
    assert all("--override-os linux --override-arch amd64" in one for one in asked)
    before, after = ((folder / "bases.lock").read_text().splitlines() for folder in (HERE, tmp_path))
    assert [line.split()[:2] for line in after] == [line.split()[:2] for line in before]
    assert [line.split()[2] for line in after if not line.startswith("#")] == [DIGEST] * len(bases())
    assert list(tmp_path.glob("bases.lock.*")) == []


def test_without_skopeo_buildx_is_asked(bases_lock: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", f'echo "$*" >>{tmp_path}/asked; [ "$2" = version ] || echo {DIGEST}')
    done = run([HERE / "pin-bases", "redis"], tmp_path / "bin", BASES_LOCK=str(bases_lock))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "asked").read_text().splitlines()[-1].split()[-1] == bases()["redis"][0]
    changed = [line.split()[0] for line in bases_lock.read_text().splitlines() if line.endswith(DIGEST)]
    assert changed == ["redis"]


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "status"),
    [
        ([], "echo sha256:123", "NO_DIGEST", 75),
        ([], "echo", "NO_DIGEST", 75),
        ([], f"echo {DIGEST}; echo {DIGEST}x", "NO_DIGEST", 75),
        (["unheard"], f"echo {DIGEST}", "NO_SUCH_BASE", 64),
    ],
)
def test_a_bad_answer_changes_nothing(
    bases_lock: Path, tmp_path: Path, arguments: list[str], answer: str, code: str, status: int
) -> None:
    program(tmp_path / "bin", "skopeo", answer)
    before = bases_lock.read_bytes()
    done = run([HERE / "pin-bases", *arguments], tmp_path / "bin", BASES_LOCK=str(bases_lock))
    assert (done.returncode, done.stderr.split(":")[0]) == (status, f"error {code}")
    assert bases_lock.read_bytes() == before
    assert list(tmp_path.glob("bases.lock.*")) == []


def test_no_client_for_registries_is_said(bases_lock: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = run([HERE / "pin-bases"], tmp_path / "bin", BASES_LOCK=str(bases_lock), DOCKER="false")
    if shutil.which("skopeo", path="/usr/bin:/bin"):
        pytest.skip("this machine has one")
    assert (done.returncode, done.stderr.split(":")[0]) == (78, "error NO_REGISTRY_CLIENT")


# ---------------------------------------------------------------- build


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit that holds deploy/docker, with every base pinned."""
    root = tmp_path / "checkout"
    shutil.copytree(HERE, root / "deploy" / "docker")
    pinned = (HERE / "bases.lock").read_text().replace("UNPINNED\n", f"{DIGEST}\n")
    (root / "deploy" / "docker" / "bases.lock").write_text(pinned)
    settings = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "core.hooksPath=/dev/null"]
    for words in (["init", "-q"], ["add", "."], [*settings, "commit", "-q", "-m", "All"]):
        environment = {**os.environ, "GIT_COMMITTER_DATE": "1790000000 +0000"}
        subprocess.run(["git", *words], cwd=root, env=environment, check=True)
    program(tmp_path / "bin", "docker", f'printf "%s\\n" "$@" >{tmp_path}/asked')
    return root


def build(checkout: Path, image: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script ``build`` of a checkout."""
    return run([checkout / "deploy/docker/build", image], checkout.parent / "bin", **settings)


def test_a_build_is_of_a_commit_on_pinned_bases(checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, "worker-gpu")
    assert (done.returncode, done.stderr) == (0, "")
    asked = (tmp_path / "asked").read_text().splitlines()
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True)
    assert asked[:2] == ["buildx", "build"]
    assert asked[-1] == str(checkout)
    for wanted in (
        f"BASE_CUDA_DEVEL={bases()['cuda-devel'][0]}@{DIGEST}",
        f"BASE_CUDA_RUNTIME={bases()['cuda-runtime'][0]}@{DIGEST}",
        "SOURCE_DATE_EPOCH=1790000000",
        f"REVISION={head.strip()}",
        "type=docker,rewrite-timestamp=true",
        "ephemeralml/worker-gpu:local",
    ):
        assert wanted in asked


@pytest.mark.parametrize("digest", ["UNPINNED", "sha256:55", DIGEST.upper(), ""])
def test_a_base_without_a_digest_is_refused(checkout: Path, tmp_path: Path, digest: str) -> None:
    other = tmp_path / "other.lock"
    other.write_text((checkout / "deploy/docker/bases.lock").read_text().replace(DIGEST, digest))
    done = build(checkout, "gateway", BASES_LOCK=str(other))
    assert (done.returncode, done.stderr.split(":")[0]) == (78, "error BASE_UNPINNED")
    assert not (tmp_path / "asked").exists()


def test_what_is_not_committed_is_no_commits_image(checkout: Path, tmp_path: Path) -> None:
    (checkout / "more").write_text("changed")
    done = build(checkout, "gateway")
    assert (done.returncode, done.stderr.split(":")[0]) == (78, "error DIRTY_CHECKOUT")
    assert not (tmp_path / "asked").exists()
    assert build(checkout, "gateway", ALLOW_DIRTY="1").returncode == 0
    assert "REVISION=unknown" in (tmp_path / "asked").read_text()


def test_a_copy_without_history_is_no_commit(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    done = build(checkout, "gateway")
    assert (done.returncode, done.stderr.split(":")[0]) == (78, "error DIRTY_CHECKOUT")
    assert build(checkout, "gateway", ALLOW_DIRTY="1").returncode == 0
    assert {"REVISION=unknown", "SOURCE_DATE_EPOCH=0"} <= set((tmp_path / "asked").read_text().splitlines())


def test_an_unknown_image_is_refused(checkout: Path) -> None:
    done = build(checkout, "unheard")
    assert (done.returncode, done.stderr.split(":")[0]) == (64, "error NO_SUCH_IMAGE")


def test_todays_lock_builds_nothing_without_digests(tmp_path: Path) -> None:
    """bases.lock says the truth: what is not pinned yet does not build."""
    program(tmp_path / "bin", "docker", f"touch {tmp_path}/asked")
    unpinned = [name for name, (_, digest) in bases().items() if digest == "UNPINNED"]
    done = run([HERE / "build", "gateway"], tmp_path / "bin", ALLOW_DIRTY="1")
    assert (done.returncode == 78) == ("python" in unpinned)
    assert (tmp_path / "asked").exists() == ("python" not in unpinned)


# ---------------------------------------------------------------- up


def test_one_command_pins_builds_and_starts(bases_lock: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program(tmp_path / "bin", "skopeo", f"echo {DIGEST}")
    docker = f'echo "docker $*" >>{calls}; [ "$1 $2" != "image inspect" ] || [ "$3" = ephemeralml/lab:local ]'
    program(tmp_path / "bin", "docker", docker)
    program(tmp_path / "bin", "docker-compose", f'echo "compose $REDIS_IMAGE $*" >>{calls}')
    before = bases_lock.read_bytes()
    done = run([ROOT / "deploy/compose/up", "pubsub"], tmp_path / "bin", BASES_LOCK=str(bases_lock))
    assert done.returncode == 0, done.stderr
    made = calls.read_text().splitlines()
    built = [line.split("--tag ")[1].split()[0] for line in made if line.startswith("docker buildx build")]
    assert built == [f"ephemeralml/{name}:local" for name in ("worker-cpu", "gateway", "pubsub-fake")]
    assert made[-1].startswith(f"compose {bases()['redis'][0]}@{DIGEST} --project-directory {ROOT} ")
    assert made[-1].endswith("--profile pubsub up --detach")
    assert bases_lock.read_bytes() == before  # a laboratory's trust is nobody's pin


def test_an_unknown_profile_starts_nothing(tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", f"touch {tmp_path}/asked")
    done = run([ROOT / "deploy/compose/up", "kafka"], tmp_path / "bin")
    assert (done.returncode, done.stderr.split(":")[0]) == (64, "error NO_SUCH_PROFILE")
    assert not (tmp_path / "asked").exists()


# ---------------------------------------------------------------- sbom


def test_bills_of_materials_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    (folder / "locks").mkdir(parents=True)
    shutil.copy(HERE / "sbom", folder)
    shutil.copy(HERE / "locks" / "build.txt", folder / "locks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path.parent / "pyproject.toml")
    programs = Path(tool("cyclonedx-py")).parent
    done = run([folder / "sbom", tmp_path / "out"], programs)
    assert done.returncode == 0, done.stderr
    bill = json.loads((tmp_path / "out" / "build.cdx.json").read_bytes())
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "ephemeralml"
    found = {
        one["name"]: (one["version"], [item["content"] for item in one["externalReferences"][0]["hashes"]])
        for one in bill["components"]
    }
    locked = lock("build")
    assert {name: version for name, (version, _) in found.items()} == {
        name: version for name, (version, _) in locked.items()
    }
    for name, (_, hashes) in locked.items():
        assert {f"sha256:{one}" for one in found[name][1]} == set(hashes)
