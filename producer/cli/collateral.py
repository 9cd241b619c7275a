"""``attest collateral``: fetch what evidence is judged with; it is verified where it is used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ...attestation.show import guess_platform
from ...wire.errors import ConfigurationError, MalformedError
from .common import OUT, one_line_errors
from .evidence import PlatformOption
from .judging import read_file


def collateral(
    file: Annotated[Path, typer.Argument(help="Evidence that is to be judged.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made where it is not there.")],
    platform: PlatformOption = None,
    pccs: Annotated[
        str | None, typer.Option("--pccs", help="Cache of Intel's service (PCCS), an https:// address.")
    ] = None,
) -> None:
    """Fetch the collateral that evidence needs into a folder, for `verify evidence --collateral`.

    What the folder has and is still young is not fetched again. A worker takes the same files along
    with its evidence: put them into tdx/ or nvidia/ below EPHEMERALML_WORKER_COLLATERAL.
    """
    with one_line_errors():
        data = read_file(file)
        named = platform or guess_platform(data)
        if named is None:
            raise MalformedError(
                "UNKNOWN_FORMAT", "the bytes look like no platform's evidence; name --platform"
            )
        names = fetch_for(named, data, out, time.time(), pccs)
    if not names:
        OUT.print(f"{named} needs no collateral: its document carries its chain")
    for name in names:
        OUT.print(str(out / name), soft_wrap=True)


def fetch_for(platform: str, data: bytes, folder: Path, now: float, pccs: str | None = None) -> list[str]:
    """Fetch into a folder, and return the names of the files that the evidence needs.

    :param now: Unix seconds. :param pccs: address of a cache of Intel's service.
    :raises FetchError: the network failed, and the folder does not have it.
    :raises ConfigurationError: ``UNKNOWN_PLATFORM`` or ``BAD_URL``.
    :raises MalformedError: it is no evidence.
    """
    match platform:
        case "tdx":
            from ...attestation.fetch import pcs

            service = None if pccs is None else pcs.PcsService.pccs(pccs.rstrip("/"))
            return sorted(pcs.collect(data, folder, now, service))
        case "nvidia":
            from ...attestation.fetch import nvidia
            from ...attestation.nvidia.vendor import evidence_from

            return sorted(nvidia.collect(evidence_from(data), folder, int(now)))
        case "confidential-space":
            from ...attestation.confidential_space.endorsements import JWKS_FILE
            from ...attestation.fetch.jwks import cached_endorsements

            cached_endorsements(folder, now)
            return [JWKS_FILE]
        case "nitro" | "simulated":
            return []
        case _:
            raise ConfigurationError("UNKNOWN_PLATFORM", "no collateral is known for this platform")
