"""Reads what makes images: Dockerfiles, locks, bases, and the script that writes the locks."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[3]
HERE: Final = ROOT / "deploy" / "docker"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGES: Final = sorted(path.name.removesuffix(".Dockerfile") for path in HERE.glob("*.Dockerfile"))
#: Those that hold this package; the other one is Google's fake of Pub/Sub.
OURS: Final = [name for name in IMAGES if name != "pubsub-fake"]


@dataclass(frozen=True)
class Stage:
    """One stage: what it starts from, and its instructions as pairs of word and rest."""

    base: str
    name: str
    steps: tuple[tuple[str, str], ...]

    def all(self, word: str) -> list[str]:
        """Return what follows an instruction, each time."""
        return [rest for found, rest in self.steps if found == word]


def dockerfile(image: str) -> str:
    """Return an image's Dockerfile."""
    return (HERE / f"{image}.Dockerfile").read_text()


def stages(text: str) -> tuple[list[str], list[Stage]]:
    """Return the arguments before the first stage, and the stages."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    arguments: list[str] = []
    found: list[Stage] = []
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip(), ()))
        elif found:
            last = found[-1]
            found[-1] = Stage(last.base, last.name, (*last.steps, (word, " ".join(rest.split()))))
        else:
            arguments.append(line.removeprefix("ARG "))
    return arguments, found


def bases() -> dict[str, tuple[str, str]]:
    """Return reference and digest of each base."""
    lines = [line for line in (HERE / "bases.lock").read_text().splitlines() if not line.startswith("#")]
    return {name: (reference, digest) for name, reference, digest in map(str.split, lines)}


def base_of(argument: str) -> str:
    """Return the base that a Dockerfile's argument asks for, as ``build`` reads it."""
    return argument.removeprefix("BASE_").lower().replace("_", "-")


def lock(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes of each package of a lock."""
    joined = (HERE / "locks" / f"{name}.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in filter(None, joined.splitlines()):
        pinned, *options = line.split()
        package, _, version = pinned.partition("==")
        found[package] = (version, [one.removeprefix("--hash=") for one in options])
    return found


def extras_of(image: str) -> list[str]:
    """Return the extras that the script ``lock`` puts into an image's lock."""
    joined = (HERE / "lock").read_text().replace("\\\n", " ")
    (line,) = re.findall(rf"(?m)^compile {image} (.*)$", joined)
    return re.findall(r"--extra (\S+)", line)


def wanted(image: str) -> list[Requirement]:
    """Return what pyproject.toml asks for with an image's extras."""
    project = PROJECT["project"]
    texts = [*project["dependencies"]]
    for extra in extras_of(image):
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]
