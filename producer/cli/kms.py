"""``kms``: the local KMS, and what an operator asks of any KMS that speaks AWS's protocol."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from ...attestation.attest import Attester
from ...attestation.attest.nitro import NitroAttester
from ...attestation.key_release.aws_settings import AwsSettings
from ...attestation.key_release.kms_audit import Row, audit_kms
from ...attestation.key_release.local_kms.audit import check_audit
from ...attestation.key_release.local_kms.lint import DANGEROUS, lint
from ...attestation.key_release.tend import list_keys, set_enabled
from ...attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ...wire.errors import ConfigurationError
from ...wire.exit_codes import NOT_JUDGED, UNSOUND
from ..lab import IMAGE, Lab
from .common import OUT, one_line_errors

app = typer.Typer(help="The local KMS, and key policies of any.", no_args_is_help=True)
policy_app = typer.Typer(help="Key policies.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")

MAX_POLICY_BYTES: Final = 32_768  # AWS KMS: a key policy's size quota
_PREFIX: Final = "EPHEMERALML_WORKER_KMS_"

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", envvar=_PREFIX + "ENDPOINT", help="Default: AWS's own.")
]
RegionOption = Annotated[str, typer.Option("--region", envvar=_PREFIX + "REGION")]
AccessOption = Annotated[
    str | None,
    typer.Option(envvar=_PREFIX + "ACCESS_KEY_ID", help="Without it: this process's environment and files."),
]
FolderArgument = Annotated[Path, typer.Argument(help="Laboratory folder that `lab init` made.")]


@app.command("serve")
def serve(folder: FolderArgument) -> None:
    """Run a laboratory's KMS until SIGTERM or Ctrl-C."""
    with one_line_errors():
        lab = Lab(folder)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with lab.kms():
            OUT.print(f"KMS ready at {lab.endpoint}; audit log in {folder}/kms")
            stop.wait()
        OUT.print("KMS stopped")


@app.command("audit")
def audit(
    endpoint: EndpointOption = None,
    region: RegionOption = "us-east-1",
    key: Annotated[str, typer.Option(help="KMS key id, ARN or alias.")] = "alias/fleet",
    attester: Annotated[
        str, typer.Option(help="`nitro`, or `simulated` with a development root.")
    ] = "simulated",
    root: Annotated[
        Path | None,
        typer.Option(envvar="EPHEMERALML_WORKER_SIMULATED_ROOT", help="Folder of the development root."),
    ] = None,
    image: Annotated[str, typer.Option(help="Simulated image that the key policy names.")] = IMAGE,
    single_use: Annotated[
        bool | None,
        typer.Option(help="Whether documents are taken once. Default: yes if simulated, no if nitro (AWS)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    access_key_id: AccessOption = None,
) -> None:
    """Hold a KMS to the audit table.

    Exit 0 only if all came out as it must, 2 if something did not, 3 if some rows cannot be tried here.
    The secret access key is read from EPHEMERALML_WORKER_KMS_SECRET_ACCESS_KEY.
    """
    with one_line_errors():
        settings = AwsSettings(
            endpoint_url=endpoint,
            region=region,
            access_key_id=access_key_id,
            secret_access_key=os.environ.get(_PREFIX + "SECRET_ACCESS_KEY"),
            session_token=os.environ.get(_PREFIX + "SESSION_TOKEN"),
        )
        right, wrong, debug = _attesters(attester, root, image)
        once = attester == "simulated" if single_use is None else single_use
        rows = audit_kms(settings, key, right, wrong=wrong, debug=debug, single_use=once)
        _show(rows, as_json)
        verdicts = {row.verdict for row in rows}
        if verdicts != {"ok"}:
            raise typer.Exit(UNSOUND if "FAILED" in verdicts else NOT_JUDGED)


@app.command("keys")
def keys(folder: FolderArgument) -> None:
    """List the keys of a running laboratory KMS with their states."""
    with one_line_errors():
        for one in list_keys(_owner(folder)):
            OUT.print(f"{one.alias}  {one.state}  {one.key_id}", soft_wrap=True)


@app.command("disable")
def disable(folder: FolderArgument, key: Annotated[str, typer.Argument(help="Key id or alias.")]) -> None:
    """Disable a key of a running laboratory KMS: nothing is released by it until it is enabled."""
    with one_line_errors():
        set_enabled(_owner(folder), key, enabled=False)
        OUT.print("disabled")


@app.command("enable")
def enable(folder: FolderArgument, key: Annotated[str, typer.Argument(help="Key id or alias.")]) -> None:
    """Enable a key of a running laboratory KMS."""
    with one_line_errors():
        set_enabled(_owner(folder), key, enabled=True)
        OUT.print("enabled")


@app.command("log")
def log(folder: FolderArgument) -> None:
    """Follow the hash chain of a laboratory KMS's audit log; exit 2 where it breaks."""
    with one_line_errors():
        count, last = check_audit(folder / "kms")
        OUT.print(f"{count} lines, last hash {last}", soft_wrap=True)


@policy_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="Key policy, JSON.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is dangerous in a key policy; exit 2 if it releases otherwise than against attestation."""
    with one_line_errors():
        findings = lint(_policy(file))
        if as_json:
            OUT.print_json(json.dumps([{"code": code, "detail": detail} for code, detail in findings]))
        else:
            for code, detail in findings:
                OUT.print(f"{code}: {escape(detail)}", soft_wrap=True)
            if not findings:
                OUT.print("no findings")
        if any(code in DANGEROUS for code, _ in findings):
            raise typer.Exit(UNSOUND)


def _policy(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_POLICY_BYTES + 1)
        value = json.loads(data) if len(data) <= MAX_POLICY_BYTES else None
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError("BAD_KEY_POLICY", "the file does not hold a key policy of at most 32 KiB")
    return value


def _owner(folder: Path) -> AwsSettings:
    lab = Lab(folder)
    key = lab.about["principals"]["owner"]
    return AwsSettings(
        endpoint_url=lab.endpoint,
        region="us-east-1",
        access_key_id=key["id"],
        secret_access_key=key["secret"],
    )


def _attesters(name: str, root: Path | None, image: str) -> tuple[Attester, Attester | None, Attester | None]:
    """Return attesters of the right image, of a wrong one and of a debug enclave."""
    if name == "nitro":
        return NitroAttester(), None, None
    if name != "simulated":
        raise ConfigurationError("UNKNOWN_ATTESTER", "an attester is `simulated` or `nitro`")
    if root is None:
        raise ConfigurationError(
            "SIMULATED_ROOT_MISSING", "`simulated` needs --root or EPHEMERALML_WORKER_SIMULATED_ROOT"
        )
    issuer = DevelopmentRoot.load(root)
    pcrs = development_pcrs(image)
    wrong = {**pcrs, 0: development_pcrs(image + " but another")[0]}
    return SimulatedAttester(issuer, pcrs), SimulatedAttester(issuer, wrong), SimulatedAttester(issuer, {})


def _show(rows: tuple[Row, ...], as_json: bool) -> None:
    if as_json:
        found = [
            {"name": row.name, "expected": row.expected, "got": row.got, "verdict": row.verdict}
            for row in rows
        ]
        OUT.print_json(json.dumps({"rows": found}))
        return
    for row in rows:
        OUT.print(f"{row.name:<28}{row.expected:<24}{row.got:<24}{row.verdict}", soft_wrap=True)
