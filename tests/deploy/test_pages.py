"""Every command on the pages for operators: what it names is there, and takes what it is given."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
from botocore import xform_name

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.producer.gateway.settings import GatewaySettings
from ephemeralml.workers.settings import WorkerSettings

from ..house.test_docs import check_command
from .aws.render import template
from .docker.files import ROOT, stages
from .gcp.hcl import Module
from .k8s.render import OVERLAYS, containers, overlay, pods

PAGES: Final = sorted([*(ROOT / "docs" / "deploy").glob("*.md"), ROOT / "docs" / "operations.md"])
Words = list[str]
#: Commands that the AWS CLI adds to the services' own: AWS CLI Command Reference.
AWS_OWN: Final = {
    ("s3", "cp"): {"--region"},
    ("cloudformation", "deploy"): {
        "--stack-name",
        "--template-file",
        "--capabilities",
        "--parameter-overrides",
    },
}
AWS_GLOBAL: Final = {"--query", "--output", "--region", "--profile"}


def commands(text: str) -> Iterator[Words]:
    """Yield the words of every command in a page's blocks of code; continued lines are one."""
    for block in re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            yield from split(line)
    for inline in re.findall(r"`((?:aws|python3|terraform|deploy/[\w./-]+) [^`\n]+)`", text):
        yield from split(inline)


def split(line: str) -> Iterator[Words]:
    """Yield the words of each command of a line, without the variables that are set before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: Words = []
    for word in [*lexer, ";"]:
        if set(word) <= set("();<>|&"):
            if words:
                yield words
            words = []
        elif words or not re.fullmatch(r"[A-Z_]+=.*|export", word):
            words.append(word)


def options(words: Words) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")}


def check_aws(words: Words) -> None:
    """Operation and options are those of AWS's own models; parameters those of our templates."""
    service, operation = words[1:3]
    if (service, operation) in AWS_OWN:
        assert options(words) <= AWS_OWN[service, operation] | AWS_GLOBAL, words
    else:
        model = botocore.session.get_session().get_service_model(service)
        shapes = {
            xform_name(name, "-"): model.operation_model(name).input_shape for name in model.operation_names
        }
        assert operation in shapes, words
        members = getattr(shapes[operation], "members", {})
        assert options(words) <= {"--" + xform_name(name, "-") for name in members} | AWS_GLOBAL, words
    if "--parameter-overrides" in words:
        file = Path(words[words.index("--template-file") + 1])
        given = [
            word.split("=")[0] for word in words[words.index("--parameter-overrides") + 1 :] if "=" in word
        ]
        assert set(given) <= set(template(file.name)["Parameters"]), words


def check_docker_build(words: Words) -> None:
    """Every build argument is one, and whatever has no default is given."""
    named = words[words.index("-f") + 1] if "-f" in words else None
    folders = [word for word in words if (ROOT / word / "Dockerfile").is_file()]
    file = ROOT / (named or f"{folders[0]}/Dockerfile")
    before, found = stages(file.read_text())
    arguments = [*before, *(one for stage in found for one in stage.all("ARG"))]
    known = {one.split("=")[0] for one in arguments}
    given = {words[at + 1].split("=")[0] for at, word in enumerate(words[:-1]) if word == "--build-arg"}
    assert {one for one in arguments if "=" not in one} <= given <= known, words


def check_script(words: Words) -> None:
    """A script is there; what it is given as options stands in it."""
    path = ROOT / words[0]
    assert path.is_file(), words
    text = path.read_text()
    assert os.access(path, os.X_OK) or path.suffix == ".py", words
    for option in options(words):
        assert f'"{option}"' in text or f"{option})" in text or option == "--help", (words, option)


def check_terraform(module: str, words: Words) -> None:
    """Variables are the module's."""
    given = {word.split("=")[0] for before, word in itertools.pairwise(words) if before == "-var"}
    assert given <= set(Module(module).variables()), words


def check_kubernetes(folder: str, words: Words) -> None:
    """Files are there, images are used by some overlay."""
    for before, word in itertools.pairwise(words):
        if before == "-f":
            assert (ROOT / folder / word).is_file(), words
    for image in (word.split("=")[0] for word in words if word.startswith("registry.invalid/")):
        used = {
            one["image"] for name in OVERLAYS for _, pod in pods(overlay(name)) for one in containers(pod)
        }
        assert image in used, words


def check(folder: str, words: Words) -> None:
    """Check one command, given in a folder of the repository."""
    after = ("", "--", "gateway")
    ours = [at for at, word in enumerate(words) if word == "ephemeralml" and ["", *words][at] in after]
    if ours:  # also within what a container is to run
        check_command(words[ours[0] + 1 :])
    elif words[0] == "aws":
        check_aws(words)
    elif words[0] == "docker" and "build" in words[1:3]:
        check_docker_build(words)
    elif words[0] == "terraform":
        check_terraform(folder.rpartition("/")[2], words)
    elif words[0] in ("kubectl", "kustomize"):
        check_kubernetes(folder, words)
    elif words[0].startswith("deploy/") or " ".join(words).startswith("python3 deploy/"):
        check_script([word for word in words if word != "python3"])
    for word in words:
        if word.startswith("deploy/") and words[0] != "kubectl" and "=" not in word and "…" not in word:
            assert (ROOT / word).exists(), words


def check_page(text: str) -> None:
    """Check every command of a page."""
    folder = "."
    for words in commands(text):
        if words[0] == "cd":
            folder = words[1]
            assert (ROOT / folder).is_dir(), words
        check(folder, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_there_and_take_what_they_are_given(page: Path) -> None:
    text = page.read_text("utf-8")
    assert any(commands(text)) or page.stem == "gcp-h100"
    check_page(text)


def _given(page: str, start: str) -> set[str]:
    """Return the names that commands of a page with these first words are given as NAME=value."""
    text = (ROOT / "docs/deploy" / page).read_text("utf-8")
    found = [words for words in commands(text) if " ".join(words).startswith(start)]
    assert found
    return {word.split("=")[0] for words in found for word in words if re.match(r"[A-Za-z]\w*=", word)}


@pytest.mark.parametrize(
    ("stack", "file"), [("ephemeralml-small", "fleet.yaml"), ("ephemeralml-keys", "keys.yaml")]
)
def test_the_page_gives_every_parameter_that_has_no_default(stack: str, file: str) -> None:
    wanted = {name for name, one in template(file)["Parameters"].items() if "Default" not in one}
    assert wanted <= _given("aws-nitro.md", f"aws cloudformation deploy --stack-name {stack}")


@pytest.mark.parametrize("module", ["keys", "fleet"])
def test_the_page_gives_every_variable_that_has_no_default(module: str) -> None:
    variables = Module(module).variables()
    wanted = {name for name, body in variables.items() if "default" not in body}
    text = (ROOT / "docs/deploy/gcp-tdx.md").read_text("utf-8")
    at, given = "", set()
    for words in commands(text):
        at = words[1].rpartition("/")[2] if words[0] == "cd" else at
        if words[:2] == ["terraform", "apply"] and at == module:
            given |= {word.split("=")[0] for word in words if "=" in word}
    assert wanted <= given


def known_settings() -> set[str]:
    fields: dict[str, Any] = {
        "": BrokerSettings.model_fields,
        "WORKER_": WorkerSettings.model_fields,
        "GATEWAY_": GatewaySettings.model_fields,
    }
    found = {f"EPHEMERALML_{part}{name.upper()}" for part, names in fields.items() for name in names}
    for folder in ("broker_config", "attestation", "workers", "producer", "deploy"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".sh", ".tf", ".yaml") or path.name.endswith("Dockerfile"):
                found |= set(re.findall(r"EPHEMERALML_[A-Z0-9_]+", path.read_text("utf-8")))
    return found


def test_every_variable_on_a_page_is_one() -> None:
    named = {
        (page.stem, name)
        for page in PAGES
        for name in re.findall(r"EPHEMERALML_[A-Z0-9_]*[A-Z0-9]", page.read_text("utf-8"))
        if not name.endswith(("_WORKER", "_KMS"))
    }
    known = known_settings()
    assert {(page, name) for page, name in named if name not in known} == set()


@pytest.mark.parametrize(
    "line",
    [
        "ephemeralml doctor \\\n    --pol small.bundle",
        "ephemeralml model unpack x",
        "aws s3 cp a b --recursiv",
        "aws autoscaling start-instance-refreshing",
        "aws autoscaling start-instance-refresh --preference x",
        "aws cloudformation deploy --template-file deploy/aws/fleet.yaml --parameter-overrides Pol=small",
        "docker build --build-arg WORKR=x deploy/gcp/image",
        "docker buildx build deploy/gcp/image --build-arg WORKER=x",
        "deploy/aws/build-elf.sh a b c",
        "python3 deploy/aws/measurements.py propose x --verison 1",
        "cd deploy/gcp/keys && terraform apply -var projekt=x",
        "cp deploy/aws/host/hots.py context/",
        "cd deploy/k8s/redis && kubectl apply -f ../base/namespaces.yaml",
        "kustomize edit set image registry.invalid/ephemeralml/worker=x",
        "kubectl exec deploy/gateway -- ephemeralml gateway keys make acme",
    ],
)
def test_a_command_that_would_not_work_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check_page(f"text\n```sh\n{line}\n```\n")
