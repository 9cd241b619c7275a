"""Every page: its links lead somewhere, its commands exist, and it names nothing that it must not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from ephemeralml.cli import build
from ephemeralml.wire import exit_codes

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("spec/*.md"), *ROOT.glob("deploy/*.md")]
)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".cddl", ".yml", ".yaml", ".sh", ""}
SKIPPED = {"dist", "build", "htmlcov", "bench-results", "__pycache__"}

#: Written in pieces, so that this file does not name them either.
FORBIDDEN = [
    r"py" + r"pi\.org",
    r"python" + r"hosted\.org",
    r"registry\.npm" + r"js",
    r"deb\.deb" + r"ian\.org",
    r"download\.py" + r"torch\.org",
    r"(?<![\w.{}/$*-])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me)/\w",
]


def relative(path: Path) -> str:
    """Name a page in test ids."""
    return path.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[str]:
    """Yield every line of code in a page."""
    for block, inline in CODE.findall(page.read_text(encoding="utf-8")):
        yield from (block or inline).splitlines()


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in commands(page):
        match = re.match(r"make((?: [a-z-]+)+)", line)
        named = set(match[1].split()) if match else set()
        assert named <= targets, f"no such target in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_exist(page: Path) -> None:
    for line in commands(page):
        for part in re.split(r"&&|;|#", line):
            words = part.split()
            if words[:1] == ["ephemeralml"]:
                check_command(words[1:])


def subcommands(command: object) -> dict[str, Any]:
    """Return the commands of a group; typer brings a click of its own, so its type says nothing."""
    return dict(getattr(command, "commands", {}))


@cache
def command_line() -> Any:
    """Return the whole command line, made once."""
    return typer.main.get_command(build())


def check_command(words: list[str]) -> None:
    """Check that a command's names and long options exist."""
    command: Any = command_line()
    while subcommands(command) and words and re.fullmatch(r"[a-z]+", words[0]):
        assert words[0] in subcommands(command), f"no such command: {words[0]}"
        command = subcommands(command)[words[0]]
        words = words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    wanted = {word for word in words if word.startswith("--")}
    assert wanted <= known, f"{command.name} has no {sorted(wanted - known)}"


def test_every_command_is_described() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    found = subcommands(typer.main.get_command(build()))
    assert found
    for name, command in found.items():
        names = [f"{name} {sub}" for sub in subcommands(command)] or [name]
        assert all(f"`ephemeralml {path}" in text for path in names), names


def test_exit_codes_are_the_code_s() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = {int(number) for number in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert table == {value for name, value in vars(exit_codes).items() if name.isupper() and name[0] != "_"}


def test_every_target_has_a_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE):
        assert target == "packages" or re.search(rf"^{target}:.*## \w", text, re.MULTILINE), target


def test_nothing_names_a_registry_or_a_machine() -> None:
    pattern = re.compile("|".join(FORBIDDEN))
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part in SKIPPED or (part.startswith(".") and part != ".ci") for part in parts)
        if hidden or path.is_symlink() or not path.is_file() or path.suffix not in TEXT:
            continue
        match = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
        if match:
            found.append(f"{relative(path)}: {match[0]}")
    assert not found
