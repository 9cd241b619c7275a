"""What is fuzzed: every ``fuzz_target.py`` below tests/attestation, and the parsers named in this folder.

A ``fuzz_target.py`` has ``seeds() -> list[bytes]``, ``target(data: bytes) -> None`` (see
:class:`.target.Target`), and may have a ``DICTIONARY`` of byte strings.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from . import own_attestation, own_generation, own_models, own_receipts, own_wire
from .target import Target

ROOT = Path(__file__).resolve().parents[1]


def targets() -> dict[str, Target]:
    """Return every target by name."""
    found = [
        *_platforms(),
        *own_wire.TARGETS,
        *own_receipts.TARGETS,
        *own_attestation.TARGETS,
        *own_models.TARGETS,
        *own_generation.TARGETS,
    ]
    named = {target.name: target for target in found}
    assert len(named) == len(found), "two fuzz targets have one name"
    return dict(sorted(named.items()))


def _platforms() -> list[Target]:
    base = ROOT / "attestation"
    found = []
    for path in sorted(base.rglob("fuzz_target.py")):
        place = path.parent.relative_to(base)
        module = import_module(".".join(("..attestation", *place.parts, "fuzz_target")), __package__)
        name = "-".join(place.parts).replace("_", "-") or "attestation"
        found.append(Target(name, module.seeds, module.target, getattr(module, "DICTIONARY", ())))
    return found
