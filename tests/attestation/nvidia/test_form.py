"""spec/nvidia.cddl against the code's output, and against what the code refuses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pycddl
import pytest

from ephemeralml.attestation.nvidia.parse import parse
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import MalformedError

from . import service
from .forge import device, leaf_first, make_evidence, make_report, other_device

SPEC = Path(__file__).parents[3] / "spec" / "nvidia.cddl"


@cache
def schema() -> pycddl.Schema:
    return pycddl.Schema(SPEC.read_text(encoding="utf-8"))


def test_what_the_code_makes_follows_the_specification() -> None:
    second = (make_report(key=other_device()[-1].key), leaf_first(other_device()))
    for data in (
        make_evidence(),
        make_evidence((make_report(), leaf_first(device())), second),
        service.make_evidence(),
    ):
        schema().validate_cbor(data)
        parse(data)


@pytest.mark.parametrize(
    "changes",
    [
        {1: 2},
        {2: "dpu"},
        {2: "switch"},
        {3: "ADA"},
        {4: bytes(31)},
        {5: []},
        {5: [[b"r"]]},
        {6: 0},
    ],
)
def test_what_the_specification_refuses_the_code_refuses(changes: dict[int, object]) -> None:
    value = decode(make_evidence())
    assert isinstance(value, dict)
    data = encode(value | changes)
    with pytest.raises(pycddl.ValidationError):
        schema().validate_cbor(data)
    with pytest.raises(MalformedError):
        parse(data)
