"""Fuzz target: quotes under Intel's root and ours, each with its collateral and at its own time."""

from __future__ import annotations

import json
from functools import cache

from ephemeralml.attestation.tdx import TdxEndorsements, from_files
from ephemeralml.attestation.tdx.parse import parse
from ephemeralml.attestation.tdx.show import show
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.wire.errors import Error

from ...corpus import corpus
from ...fuzz.seeds import recorded
from .forge import NOW, pair


@cache
def seeds() -> list[bytes]:
    """Recorded quotes where the corpus is here, and two of our own."""
    return [*recorded("tdx/*.quote"), pair(4)[0], pair(5)[0]]


@cache
def _judges() -> tuple[tuple[TdxEndorsements, int], ...]:
    """What judges our own seeds, and one recorded quote of each version with its collateral."""
    found = [(pair(4)[1], NOW)]
    for expected in recorded("tdx/EXPECTED.json"):
        rows = {row["collateral"]: row for row in json.loads(expected)[:4:3]}
        for folder, row in rows.items():
            data = corpus(f"{folder}/collateral.json").read_bytes()
            found.append((from_files({"collateral.json": data}), row["time"]))
    return tuple(found)


@cache
def _signed() -> frozenset[bytes]:
    """What the seeds' attestation keys signed."""
    inputs = set()
    for seed in seeds():
        try:
            inputs.add(parse(seed).signed)
        except Error:  # the synthetic one
            continue
    return frozenset(inputs)


def target(data: bytes) -> None:
    """Verify; what passes must say what one of the seeds says, because nobody else could sign it."""
    quote = parse(data)
    show(data)
    refusals: list[Error] = []
    for endorsements, now in _judges():
        try:
            verify(data, endorsements, now)
        except Error as error:
            refusals.append(error)
    if len(refusals) == len(_judges()):
        raise refusals[0]
    assert quote.signed in _signed(), "a forged quote verifies"
