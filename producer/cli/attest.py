"""``attest``: make evidence of this machine, and say in words what any evidence claims."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ...attestation.show import guess_platform
from ...attestation.show import show as explain
from ...wire.encoding import sha256
from ...wire.errors import ConfigurationError, MalformedError
from .collateral import collateral
from .common import ERR, OUT, one_line_errors
from .evidence import PlatformOption
from .judging import read_file

app = typer.Typer(help="Make evidence of this machine; say what evidence claims.", no_args_is_help=True)

app.command("collateral")(collateral)

_UNVERIFIED = (
    "NOT VERIFIED: this is what the evidence claims; `ephemeralml verify evidence` says whether it is true"
)
_CHALLENGE_BYTES = 32


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="Evidence of any platform.")],
    platform: PlatformOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Explain an evidence file in words; checks nothing."""
    with one_line_errors():
        data = read_file(file)
        named = platform or guess_platform(data)
        if named is None:
            raise MalformedError(
                "UNKNOWN_FORMAT", "the bytes look like no platform's evidence; name --platform"
            )
        lines = explain(named, data)
    if as_json:
        claims = [{"label": label, "words": words} for label, words in lines]
        print(json.dumps({"verified": False, "platform": named, "claims": claims}))
        return
    OUT.print(_UNVERIFIED, soft_wrap=True, markup=False, style="bold yellow")
    guessed = "" if platform else " (guessed from the bytes)"
    width = max(len(label) for label, _ in lines)
    for label, words in (("format", named + guessed), *lines):
        OUT.print(f"{label:<{width}}  {words}", soft_wrap=True, markup=False)


@app.command("make")
def make(
    out: Annotated[Path, typer.Option("--out", help="File for the evidence.")],
    platform: Annotated[
        str | None, typer.Option(help="nitro, tdx or confidential-space; found by its device where left out.")
    ] = None,
    nonce: Annotated[
        str | None,
        typer.Option(help="Challenge, hexadecimal; random; none for TDX beside user data."),
    ] = None,
    public_key: Annotated[str | None, typer.Option(help="Key to vouch for, hexadecimal.")] = None,
    user_data: Annotated[str | None, typer.Option(help="SHA-256 to vouch for, hexadecimal.")] = None,
    audience: Annotated[str | None, typer.Option(help="Who a Confidential Space token is for.")] = None,
) -> None:
    """Ask this machine's TEE for fresh evidence and write it to a file; exit 78 where there is none."""
    from ...attestation.attest.detect import detect_platform, local_attester

    with one_line_errors():
        key = None if public_key is None else _octets(public_key, "--public-key")
        digest = None if user_data is None else _octets(user_data, "--user-data")
        named = platform or detect_platform()
        # A TDX quote has room for user data or a challenge, not for both.
        drawn = None if named == "tdx" and digest is not None else os.urandom(_CHALLENGE_BYTES)
        challenge = drawn if nonce is None else _octets(nonce, "--nonce")
        evidence = local_attester(named, audience=audience).attest(
            public_key=key, user_data=digest, nonce=challenge
        )
        try:
            out.write_bytes(evidence)
        except OSError as error:
            raise ConfigurationError("FILE_UNWRITABLE", f"cannot write: {error.strerror}") from None
    found: dict[str, object] = {"platform": named, "sha256": sha256(evidence).hex(), "bytes": len(evidence)}
    print(json.dumps(found | {"nonce": None if challenge is None else challenge.hex()}))
    ERR.print(f"evidence of {named} written", soft_wrap=True)


def _octets(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigurationError("NOT_HEXADECIMAL", f"{option} is not hexadecimal") from None
