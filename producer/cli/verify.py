"""``verify``: receipts, vectors and evidence, offline. Exit 0 sound, 1 misuse, 2 unsound, 3 not judged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ... import __version__
from ...attestation.appraise import appraise
from ...attestation.evidence import VerifiedEvidence
from ...attestation.policy import TrustPolicy
from ...attestation.verify import Endorsements, endorsements_for, verify_evidence
from ...receipts.checks import Verification
from ...receipts.ear import issue_ear, result_of
from ...receipts.judge import judge_receipt
from ...receipts.policy import ReceiptPolicy
from ...receipts.report import to_json, to_markdown, to_text
from ...receipts.report_html import to_html
from ...receipts.vectors import run_vectors
from ...receipts.verify import assess
from ...wire.encoding import sha256
from ...wire.errors import AppraisalError, ConfigurationError, Error, MalformedError, VerificationError
from ...wire.exit_codes import UNSOUND
from .batch_verify import batch
from .common import OUT, one_line_errors, read_policy

app = typer.Typer(
    help="Verify receipts and evidence offline. Exit 0 sound, 2 unsound, 3 not judged.", no_args_is_help=True
)

app.command("batch")(batch)

MAX_FILE_BYTES = 1 << 20
_MARKS = {True: "ok   ", False: "WRONG", None: "-    "}
AtOption = Annotated[
    str | None, typer.Option("--at", help="Judge at this time (Unix seconds or ISO 8601), not now.")
]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="Trust policy (JSON) to appraise under.")]


@app.command("receipt")
def receipt(
    file: Annotated[Path, typer.Argument(help="AIR v1 receipt.")],
    public_key: Annotated[str, typer.Option("--public-key", help="Receipt key, hexadecimal.")],
    expect_request: Annotated[str | None, typer.Option(help="SHA-256 of the request.")] = None,
    expect_response: Annotated[str | None, typer.Option(help="SHA-256 of the response.")] = None,
    expect_model: Annotated[str | None, typer.Option(help="SHA-256 of the model manifest.")] = None,
    expect_nonce: Annotated[str | None, typer.Option(help="The nonce, hexadecimal.")] = None,
    max_age: Annotated[int | None, typer.Option(help="Oldest receipt, seconds.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="Evidence file, for TEE provenance.")] = None,
    platform: Annotated[str, typer.Option(help="Platform of the evidence.")] = "nitro",
    policy: PolicyFile = None,
    allow_evaluation: Annotated[
        bool, typer.Option(help="Accept receipts of simulated TEEs and debug enclaves.")
    ] = False,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON report.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown report.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one HTML page too.")] = None,
    ear: Annotated[Path | None, typer.Option("--ear", help="Write the verdict as a signed EAR too.")] = None,
    ear_key: Annotated[
        Path | None, typer.Option("--ear-key", help="Your Ed25519 seed: 32 bytes or 64 hex digits.")
    ] = None,
) -> None:
    """Verify one receipt through all four layers and report every check."""
    with verify_errors():
        now = _time(at)
        signer = _ear_signer(ear, ear_key)
        if evidence is not None and policy is None:
            raise ConfigurationError("POLICY_NEEDED", "--evidence needs --policy to appraise it")
        document = None if evidence is None else _read(evidence)
        rules = ReceiptPolicy(
            max_age_s=max_age,
            expected_request_hash=_hex(expect_request),
            expected_response_hash=_hex(expect_response),
            expected_model_hash=_hex(expect_model),
            expected_nonce=_hex(expect_nonce),
            expected_attestation_doc_hash=None if document is None else sha256(document),
            security_modes=("production", "evaluation") if allow_evaluation else ("production",),
        )
        key = _key(public_key)
        trusted = None if policy is None else _policy(policy)
        found = _judged(_read(file), key, rules, now, platform, document, trusted)
        if html is not None:
            _write(html, to_html(found, judged_at=now).encode())
        if ear is not None and signer is not None:
            named = None if trusted is None else trusted.version
            _write(ear, issue_ear(result_of(found, now, build=__version__, policy_id=named), signer))
    print((to_json if as_json else to_markdown if markdown else to_text)(found), end="")
    if not found.passed:
        raise typer.Exit(UNSOUND)


def _judged(
    receipt: bytes,
    key: bytes,
    rules: ReceiptPolicy,
    now: int,
    platform: str,
    evidence: bytes | None,
    trusted: TrustPolicy | None,
) -> Verification:
    if evidence is None or trusted is None:
        return assess(receipt, key, rules, now)
    roots = endorsements_for(trusted)
    return judge_receipt(
        receipt, key, rules, now, platform=platform, evidence=evidence, endorsements=roots, trust=trusted
    )


@app.command("vectors")
def vectors(
    path: Annotated[Path, typer.Argument(help="A vector, a JSON list of them, or a folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Run AIR v1 test vectors in the public form; exit 2 when one does not give what it expects.

    A vector that expects nothing is judged and printed, and never counts as wrong.
    """
    wrong = 0
    with verify_errors():
        for result in run_vectors(path):
            wrong += result.passed is False
            found = result.verification
            if as_json:
                line = {
                    "name": result.name,
                    "verdict": found.verdict,
                    "layer": result.layer,
                    "codes": list(found.codes),
                    "as_expected": result.passed,
                }
                print(json.dumps(line))
            else:
                layer = () if result.layer is None else (f"layer {result.layer}",)
                print(_MARKS[result.passed], result.name, found.verdict, *layer, *found.codes)
    if wrong:
        raise typer.Exit(UNSOUND)


@app.command("evidence")
def evidence(
    file: Annotated[Path, typer.Argument(help="Evidence, e.g. a Nitro attestation document.")],
    platform: Annotated[
        str, typer.Option(help="nitro, or simulated with a policy that allows it.")
    ] = "nitro",
    policy: PolicyFile = None,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say whether evidence is genuine and, under a policy, wanted."""
    with verify_errors():
        now = _time(at)
        trusted = None if policy is None else _policy(policy)
        endorsements = Endorsements() if trusted is None else endorsements_for(trusted)
        found = verify_evidence(platform, _read(file), endorsements, now)
        report: dict[str, object] = {
            "genuine": True,
            "platform": found.platform,
            "issued_at": found.issued_at,
            "debug": found.debug,
            "simulated": found.simulated,
            "measurements": _registers(found),
            "wanted": "not asked: no --policy",
            "findings": [],
        }
        bad = found.debug or found.simulated
        if trusted is not None:
            try:
                appraisal = appraise(found, trusted, now)
                report |= {"wanted": True, "findings": list(appraisal.findings)}
                bad = False
            except AppraisalError as error:
                report |= {"wanted": False, "findings": list(error.findings)}
                bad = True
    if as_json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            OUT.print(f"{name:<13}{value}", soft_wrap=True)
    if bad:
        raise typer.Exit(UNSOUND)


def _registers(found: VerifiedEvidence) -> dict[str, str]:
    values = {} if found.measurements is None else found.measurements.values
    return {name: value.hex() for name, value in values.items()}


@contextmanager
def verify_errors() -> Iterator[None]:
    """Let verify commands end with 0 to 3 only: what is malformed is unsound, a bad option is misuse."""
    with one_line_errors():
        try:
            yield
        except ConfigurationError as error:
            raise Misuse(error.code, error.message) from None
        except MalformedError as error:
            if error.code == "BAD_VECTOR":
                raise Misuse(error.code, error.message) from None
            raise VerificationError(error.code, error.message) from None


def _policy(path: Path) -> TrustPolicy:
    try:
        return read_policy(path)
    except MalformedError as error:
        raise Misuse(error.code, error.message) from None


def _ear_signer(out: Path | None, seed: Path | None) -> Ed25519PrivateKey | None:
    if (out is None) != (seed is None):
        raise _misuse("--ear and --ear-key go together")
    if seed is None:
        return None
    data = _read(seed)
    if len(data) != 32:
        try:
            data = bytes.fromhex(data.decode("ascii").strip())
        except ValueError:
            data = b""
    if len(data) != 32:
        raise _misuse("--ear-key takes a file of 32 bytes or 64 hexadecimal digits")
    return Ed25519PrivateKey.from_private_bytes(data)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError("FILE_UNWRITABLE", f"cannot write the file: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError("FILE_UNREADABLE", f"cannot read the file: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise MalformedError("FILE_TOO_LARGE", f"the file is over {MAX_FILE_BYTES} bytes")
    return data


def _hex(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _misuse("an option is not hexadecimal") from None


def _key(text: str) -> bytes:
    key = _hex(text)
    if key is None or len(key) != 32:
        raise _misuse("--public-key takes 64 hexadecimal digits")
    return key


def _time(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return int(text) if text.isdecimal() else int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise _misuse("--at takes Unix seconds or an ISO 8601 time") from None


def _misuse(message: str) -> Error:
    return Misuse("MISUSE", message)


class Misuse(Error):
    """The command was called wrongly (exit 1)."""
