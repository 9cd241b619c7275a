#!/usr/bin/env python3
"""Records what ``nitro-cli build-enclave`` measured, and proposes from it.

    measurements.py NITRO_CLI_JSON --worker IMAGE --eif-sha256 FILE --out measurements.json
    measurements.py propose measurements.json --version V --set-name NAME --model ID=HASH --out policy.json
    measurements.py parameters measurements.json [--next measurements.json] > parameters.json

``propose`` runs ``ephemeralml policy new``; ``parameters`` prints those of keys.yaml. What nitro-cli
prints: AWS Nitro Enclaves User Guide, "Nitro CLI reference: nitro-cli build-enclave".
"""

# ruff: noqa: S603 - runs this project's own command
from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HEX = re.compile(r"[0-9a-f]{96}")
MAX_BYTES = 64 << 10


class BadMeasurements(ValueError):
    """A file that does not hold an image's measurements."""


def measured(text: str) -> dict[str, str]:
    """Return PCR0, PCR1, PCR2 and, of a signed image, PCR8 from what nitro-cli printed."""
    try:
        found = json.loads(text[text.index("{") :])["Measurements"]
    except (ValueError, KeyError, TypeError):
        raise BadMeasurements("this is not what nitro-cli build-enclave prints") from None
    if not isinstance(found, dict) or not str(found.get("HashAlgorithm", "")).startswith("Sha384"):
        raise BadMeasurements("the measurements are not SHA-384")
    registers = {}
    for name in ("PCR0", "PCR1", "PCR2", "PCR8"):
        if name not in found and name == "PCR8":
            continue
        registers[name.lower()] = _register(name, found.get(name))
    return registers


def _register(name: str, value: object) -> str:
    if not isinstance(value, str) or not HEX.fullmatch(value.lower()):
        raise BadMeasurements(f"{name} is not 96 hexadecimal digits")
    if not int(value, 16):
        raise BadMeasurements(f"{name} is zero: every debug enclave shows that")
    return value.lower()


def record(text: str, worker: str, eif: str) -> dict[str, Any]:
    """Return the record of one image: what it was built from, its file's hash, its registers."""
    if not re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", worker):
        raise BadMeasurements("the worker's image is named by its digest")
    digest = eif.partition(" ")[0].strip()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise BadMeasurements("the image file's SHA-256 is 64 hexadecimal digits")
    return {"worker_image": worker, "eif_sha256": digest, "registers": measured(text)}


def read_record(path: str) -> dict[str, str]:
    """Return the registers of a recorded image, checked again."""
    with open(path, encoding="utf-8") as file:
        data = file.read(MAX_BYTES)
    try:
        registers = json.loads(data)["registers"]
        again = {"HashAlgorithm": "Sha384", **{name.upper(): value for name, value in registers.items()}}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadMeasurements("this is not a record of measurements") from None
    return measured(json.dumps({"Measurements": again}))


def proposal(registers: dict[str, str], arguments: argparse.Namespace) -> list[str]:
    """Return the command that writes a trust policy; an unsigned image's signer is left unchecked by name."""
    here = importlib.util.find_spec("ephemeralml") is not None
    command = [sys.executable, "-m", "ephemeralml"] if here else ["ephemeralml"]
    command += ["policy", "new", "--version", arguments.version]
    command += ["--set-name", arguments.set_name, "--out", arguments.out]
    for name in ("pcr0", "pcr1", "pcr2", "pcr8"):
        command += [f"--nitro-{name}", registers.get(name, "UNCHECKED")]
    for model in arguments.model:
        command += ["--model", model]
    return command


def parameters(current: dict[str, str], following: dict[str, str] | None) -> list[dict[str, str]]:
    """Return CloudFormation parameters: the release in service and, while it is rolled, the next."""
    values = {f"Current{name.upper()}": current[name] for name in ("pcr0", "pcr1", "pcr2")}
    for name in ("pcr0", "pcr1", "pcr2"):
        values[f"Next{name.upper()}"] = "" if following is None else following[name]
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out")
    if given[:1] == ["propose"]:
        parser.add_argument("action")
        parser.add_argument("file")
        parser.add_argument("--version", required=True)
        parser.add_argument("--set-name", default="release-1")
        parser.add_argument("--model", action="append", default=[])
    elif given[:1] == ["parameters"]:
        parser.add_argument("action")
        parser.add_argument("file")
        parser.add_argument("--next")
    else:
        parser.add_argument("file")
        parser.add_argument("--worker", required=True)
        parser.add_argument("--eif-sha256", required=True)
        parser.set_defaults(action="record")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Run a command; return the exit status."""
    arguments = _arguments(given)
    if arguments.action != "parameters" and not arguments.out:
        print("measurements: --out says where to write", file=sys.stderr)
        return 64
    try:
        if arguments.action == "record":
            eif = Path(arguments.eif_sha256).read_text("ascii")
            made = record(Path(arguments.file).read_text("utf-8"), arguments.worker, eif)
            with open(arguments.out, "x", encoding="utf-8") as out:
                out.write(json.dumps(made, indent=2) + "\n")
            return 0
        registers = read_record(arguments.file)
        if arguments.action == "propose":
            return subprocess.run(proposal(registers, arguments), check=False).returncode
        following = None if arguments.next is None else read_record(arguments.next)
        print(json.dumps(parameters(registers, following), indent=2))
    except BadMeasurements as error:
        print(f"measurements: {error}", file=sys.stderr)
        return 65
    except OSError as error:
        print(f"measurements: {error.strerror}", file=sys.stderr)
        return 66
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
