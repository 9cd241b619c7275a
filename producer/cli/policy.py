"""``policy``: write, sign, show, compare, activate and take back trust policies."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ...attestation.policy import TrustPolicy, load_policy
from ...attestation.simulated import SimulatedEndorsements
from ...attestation.verify import Endorsements
from ...wire.errors import ConfigurationError, MalformedError
from ...wire.exit_codes import UNSOUND
from .common import ERR, OUT, PolicyRootOption, one_line_errors, root_key
from .judging import read_file
from .policy_activate import activate, history
from .policy_diff import compare
from .policy_propose import from_announcement, from_evidence
from .policy_sign import OutOption, keygen, rollback, sign, write_new
from .policy_words import as_json, bundle_lines, change_line, load, policy_lines

app = typer.Typer(help="Trust policies: write, sign, compare, activate, take back.", no_args_is_help=True)
app.command("keygen")(keygen)
app.command("sign")(sign)
app.command("activate")(activate)
app.command("history")(history)
app.command("rollback")(rollback)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("new")
def new(
    out: OutOption,
    version: Annotated[str, typer.Option("--version", help="What you call this policy, e.g. 2026-11.")],
    set_name: Annotated[str, typer.Option("--set-name", help="Name of the measurement set.")] = "release-1",
    nitro_pcr0: Annotated[str | None, typer.Option(help="The image: 96 hex digits or UNCHECKED.")] = None,
    nitro_pcr1: Annotated[str | None, typer.Option(help="Kernel and boot: likewise.")] = None,
    nitro_pcr2: Annotated[str | None, typer.Option(help="The application: likewise.")] = None,
    nitro_pcr8: Annotated[str | None, typer.Option(help="The image's signer: likewise.")] = None,
    announcement: Annotated[
        Path | None, typer.Option("--from-announcement", help="Propose from a worker's announcement.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option("--from-evidence", help="Propose from evidence; see --platform.")
    ] = None,
    platform: Annotated[str, typer.Option("--platform", help="Platform of the evidence.")] = "nitro",
    simulated_root: Annotated[
        str | None, typer.Option(help="Development root's SHA-256, to propose from a simulated TEE.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="ID=HASH of a model's manifest; repeatable.")
    ] = None,
    max_evidence_age: Annotated[int, typer.Option(min=1, help="Oldest evidence, seconds.")] = 86_400,
) -> None:
    """Write a starting policy as JSON and say what it means; nothing is asked, nothing is left open.

    Evidence is verified first: a proposal is made from genuine evidence only.
    """
    with one_line_errors():
        roots = () if simulated_root is None else (_fingerprint(simulated_root),)
        endorsements = Endorsements(simulated=SimulatedEndorsements(roots))
        platforms: dict[str, Any] = {}
        models = [_model(text) for text in model or ()]
        if announcement is not None:
            proposal, found = from_announcement(read_file(announcement), endorsements, set_name)
            platforms |= proposal
            models += [] if found in models else [found]
        if evidence is not None:
            now = int(time.time())
            platforms |= from_evidence(platform, read_file(evidence), endorsements, now, set_name)
        pcrs = {"pcr0": nitro_pcr0, "pcr1": nitro_pcr1, "pcr2": nitro_pcr2, "pcr8": nitro_pcr8}
        given = {slot: value for slot, value in pcrs.items() if value is not None}
        if given:
            platforms["nitro"] = [*platforms.get("nitro", []), {"name": set_name, **given}]
        made = _policy(version, platforms, models, max_evidence_age)
        write_new(out, (made.to_json() + "\n").encode())
        _say_policy(made)
        if not models:
            ERR.print("[yellow]it names no model, and so accepts no worker: --model ID=HASH[/yellow]")
        if not platforms:
            ERR.print("[yellow]it names no platform, and so accepts no worker[/yellow]")
    ERR.print(f"next: ephemeralml policy sign {escape(str(out))}", soft_wrap=True)


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="Policy (JSON), bundle, or policy store.")],
    policy_root: PolicyRootOption = None,
    words: JsonOption = False,
) -> None:
    """Print what a policy says and, for a bundle, who signed it and until when it holds."""
    with one_line_errors():
        loaded = load(file, root_key(policy_root))
    if words:
        print(as_json(loaded))
        return
    for label, text in [*bundle_lines(loaded, int(time.time())), ("policy", escape(loaded.policy.version))]:
        OUT.print(f"{label:<12} {text}", soft_wrap=True)
    for place, text in policy_lines(loaded.policy):
        OUT.print(f"  {place} {text}".rstrip(), soft_wrap=True)


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="Policy (JSON), bundle, or policy store.")],
    new: Annotated[Path, typer.Argument(help="The same.")],
    policy_root: PolicyRootOption = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 2 when anything becomes looser.")] = False,
    words: JsonOption = False,
) -> None:
    """Print what a new policy accepts or refuses that the old one did not; loosenings in red."""
    with one_line_errors():
        root = root_key(policy_root)
        changes = compare(load(old, root).policy, load(new, root).policy)
    if words:
        fields = ("place", "before", "after", "verdict")
        print(json.dumps({"changes": [{name: getattr(one, name) for name in fields} for one in changes]}))
    else:
        for change in changes:
            OUT.print(change_line(change), soft_wrap=True)
        OUT.print(_summary([change.verdict for change in changes]))
    if check and any(change.verdict == "looser" for change in changes):
        raise typer.Exit(UNSOUND)


def _policy(
    version: str, platforms: dict[str, Any], models: list[dict[str, str]], max_evidence_age: int
) -> TrustPolicy:
    evaluation = bool(platforms) and set(platforms) == {"simulated"}
    return load_policy(
        json.dumps(
            {
                "version": version,
                "platforms": platforms,
                "models": models,
                "security_modes": ["evaluation" if evaluation else "production"],
                "max_evidence_age_s": max_evidence_age,
            }
        ).encode()
    )


def _model(text: str) -> dict[str, str]:
    identity, separator, digest = text.rpartition("=")
    if not separator:
        raise ConfigurationError("BAD_MODEL", "--model takes ID=HASH, the manifest's SHA-256")
    return {"id": identity, "manifest_hash": digest.lower()}


def _fingerprint(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise MalformedError("BAD_FINGERPRINT", "a root's fingerprint is 64 hexadecimal digits") from None


def _say_policy(policy: TrustPolicy) -> None:
    for place, text in policy_lines(policy):
        ERR.print(f"  {place} {text}".rstrip(), soft_wrap=True)


def _summary(verdicts: list[str]) -> str:
    if not verdicts:
        return "they say the same"
    loose = verdicts.count("looser")
    return f"[red]{loose} loosening(s)[/red]" if loose else "[green]nothing becomes looser[/green]"
