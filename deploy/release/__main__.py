"""``python deploy/release check``: may this revision be released? ``verify``: is this what was released?

See docs/release.md. Exit 0: yes; 1: no, and why; 2: misuse.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import artefacts
import installed
import licences
import provenance
import vulnerabilities
from exceptions import Kind, read_exceptions
from locks import read_locks
from step import NotHeld, Step

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: How the names of results end; nothing else is ever removed.
RESULTS = (".whl", ".tar.gz", "report.json", "provenance.json", "provenance.dsse.json")


def main() -> int:
    """Run the command line."""
    arguments = _arguments()
    try:
        return check(arguments) if arguments.command == "check" else verify(arguments)
    except NotHeld as error:
        print(f"error {error}", file=sys.stderr)
        return 1


def check(arguments: argparse.Namespace) -> int:
    """Do every step, write artefacts, report and provenance, and return 0 when all hold."""
    started = int(time.time())
    out: Path = arguments.out
    _empty(out)
    source = artefacts.read_source(ROOT, arguments.revision)
    exceptions = read_exceptions(HERE / "exceptions.toml", datetime.now(UTC).date())
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        scratch = Path(folder)
        step, built = artefacts.check(ROOT, source, scratch, out)
        _say(steps, step)
        wheel = next(out.glob("*.whl"))
        unpacked = artefacts.unpack(ROOT, source, scratch / "revision")
        locks = unpacked / "deploy" / "docker" / "locks"
        step, python = installed.check(unpacked, wheel, locks, scratch)
        _say(steps, step)
        pins = read_locks(locks)
        found = licences.installed([python, Path(sys.executable)])
        rules = licences.read_rules(HERE / "licences.toml")
        _say(steps, licences.check(pins, found, rules, exceptions))
        judged: set[Kind] = {"licence"}
        step = vulnerabilities.judge(pins, arguments.osv, arguments.offline_ok, exceptions)
        judged |= {"vulnerability"} if step.data["judged"] else set()
        _say(steps, step)
        faults = exceptions.faults(judged)
        _say(steps, Step("exceptions", not faults, tuple(faults) or ("all in force, all needed",)))
        materials = {f"deploy/docker/locks/{path.name}": path.read_bytes() for path in locks.glob("*.txt")}
    held = all(step.held for step in steps)
    report = _report(steps, source, held)
    (out / "report.json").write_bytes(report)
    _attest(arguments, source, built, materials, report, started)
    print(_verdict(steps))
    return 0 if held else 1


def _verdict(steps: list[Step]) -> str:
    if not all(step.held for step in steps):
        return "NOT to be released"
    dark = [step.name for step in steps if step.data.get("judged") is False]
    return (
        f"may be released, by agreement without a judgement of: {', '.join(dark)}"
        if dark
        else "may be released"
    )


def _empty(out: Path) -> None:
    """Make the folder for the results, or take out of it what an earlier check left.

    :raises NotHeld: it holds something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = list(out.iterdir())
    foreign = [path.name for path in found if not path.is_file() or not path.name.endswith(RESULTS)]
    if foreign:
        raise NotHeld(f"the folder of --out holds something else: {foreign[0]}")
    for path in found:
        path.unlink()


def _say(steps: list[Step], step: Step) -> None:
    steps.append(step)
    print(f"{'ok  ' if step.held else 'FAIL'} {step.name}")
    for line in step.lines:
        print(f"     {line}")


def _report(steps: list[Step], source: artefacts.Source, held: bool) -> bytes:
    value: dict[str, Any] = {
        "revision": source.revision,
        "held": held,
        "steps": [{"name": step.name, "held": step.held, "lines": step.lines, **step.data} for step in steps],
    }
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _attest(
    arguments: argparse.Namespace,
    source: artefacts.Source,
    built: dict[str, bytes],
    materials: dict[str, bytes],
    report: bytes,
    started: int,
) -> None:
    payload = provenance.encode(
        provenance.statement(
            source,
            built,
            materials,
            started_at=started,
            ended_at=int(time.time()),
            byproducts={"report.json": report},
        )
    )
    (arguments.out / "provenance.json").write_bytes(payload)
    if arguments.key is None:
        print("provenance.json is not signed: name the release key with --key")
        return
    envelope = provenance.sign(payload, arguments.key.read_bytes())
    (arguments.out / "provenance.dsse.json").write_bytes(envelope)


def verify(arguments: argparse.Namespace) -> int:
    """Verify signed provenance and hold the files of a folder against it."""
    try:
        key = bytes.fromhex(arguments.public_key)
        envelope = arguments.envelope.read_bytes()
    except (ValueError, OSError) as error:
        raise NotHeld(f"cannot read key or envelope: {error}") from None
    found = provenance.verify(envelope, key)
    for line in provenance.check_files(found, arguments.artefacts, arguments.revision):
        print(line)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python deploy/release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check", help="build, test, judge and attest a revision")
    one.add_argument("--revision", default="HEAD", help="commit to release (HEAD)")
    one.add_argument(
        "--out", type=Path, default=ROOT / "dist" / "release", help="folder for the results (dist/release)"
    )
    one.add_argument("--osv", type=Path, help="OSV dump: the zip of an ecosystem, or a folder")
    one.add_argument("--offline-ok", action="store_true", help="go on where no database could be asked")
    one.add_argument("--key", type=Path, help="release key: file of an Ed25519 seed, 32 bytes")
    other = commands.add_parser("verify", help="hold artefacts against signed provenance")
    other.add_argument("envelope", type=Path, help="provenance.dsse.json")
    other.add_argument("--public-key", required=True, help="release key, hexadecimal")
    other.add_argument("--artefacts", type=Path, required=True, help="folder of wheel and sdist")
    other.add_argument("--revision", help="commit that they must come from, hexadecimal")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
