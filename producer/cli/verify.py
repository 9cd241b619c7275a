"""``verify``: receipts, vectors and evidence, offline. Exit 0 sound, 1 misuse, 2 unsound, 3 not judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ... import __version__
from ...attestation.policy import TrustPolicy
from ...attestation.verify import Endorsements
from ...receipts.checks import Verification
from ...receipts.ear import issue_ear, result_of
from ...receipts.judge import judge_receipt
from ...receipts.policy import ReceiptPolicy
from ...receipts.report import to_json, to_markdown, to_text
from ...receipts.report_html import to_html
from ...receipts.vectors import run_vectors
from ...receipts.verify import assess
from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError
from ...wire.exit_codes import UNSOUND
from .batch_verify import batch
from .common import PolicyRootOption
from .evidence import PlatformOption, evidence, guessed_platform
from .judging import (
    AtOption,
    CollateralFolder,
    PolicyFile,
    endorsements_of,
    misuse,
    policy_of,
    read_file,
    time_of,
    verify_errors,
)

app = typer.Typer(
    help="Verify receipts and evidence offline. Exit 0 sound, 2 unsound, 3 not judged.", no_args_is_help=True
)

app.command("batch")(batch)
app.command("evidence")(evidence)

_MARKS = {True: "ok   ", False: "WRONG", None: "-    "}


@app.command("receipt")
def receipt(
    file: Annotated[Path, typer.Argument(help="AIR v1 receipt.")],
    public_key: Annotated[str, typer.Option("--public-key", help="Receipt key, hexadecimal.")],
    expect_request: Annotated[str | None, typer.Option(help="SHA-256 of the request.")] = None,
    expect_response: Annotated[str | None, typer.Option(help="SHA-256 of the response.")] = None,
    expect_model: Annotated[str | None, typer.Option(help="SHA-256 of the model manifest.")] = None,
    expect_nonce: Annotated[str | None, typer.Option(help="The nonce, hexadecimal.")] = None,
    max_age: Annotated[int | None, typer.Option(help="Oldest receipt, seconds.")] = None,
    evidence_file: Annotated[
        Path | None, typer.Option("--evidence", help="Evidence file, for TEE provenance.")
    ] = None,
    platform: PlatformOption = None,
    policy: PolicyFile = None,
    policy_root: PolicyRootOption = None,
    collateral: CollateralFolder = None,
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
        now = time_of(at)
        signer = _ear_signer(ear, ear_key)
        if evidence_file is not None and policy is None:
            raise ConfigurationError("POLICY_NEEDED", "--evidence needs --policy to appraise it")
        document = None if evidence_file is None else read_file(evidence_file)
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
        trusted = None if policy is None else policy_of(policy, policy_root, now)
        of = platform or ("" if document is None else guessed_platform(document, trusted))
        roots = endorsements_of(of, trusted, collateral)
        found = _judged(read_file(file), key, rules, now, of, document, trusted, roots)
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
    roots: Endorsements,
) -> Verification:
    if evidence is None or trusted is None:
        return assess(receipt, key, rules, now)
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


def _ear_signer(out: Path | None, seed: Path | None) -> Ed25519PrivateKey | None:
    if (out is None) != (seed is None):
        raise misuse("--ear and --ear-key go together")
    if seed is None:
        return None
    data = read_file(seed)
    if len(data) != 32:
        try:
            data = bytes.fromhex(data.decode("ascii").strip())
        except ValueError:
            data = b""
    if len(data) != 32:
        raise misuse("--ear-key takes a file of 32 bytes or 64 hexadecimal digits")
    return Ed25519PrivateKey.from_private_bytes(data)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError("FILE_UNWRITABLE", f"cannot write the file: {error.strerror}") from None


def _hex(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise misuse("an option is not hexadecimal") from None


def _key(text: str) -> bytes:
    key = _hex(text)
    if key is None or len(key) != 32:
        raise misuse("--public-key takes 64 hexadecimal digits")
    return key
