"""Genuine documents with one thing wrong, made when the test runs: each is refused with its own code."""

from __future__ import annotations

import json
from functools import cache
from itertools import permutations
from typing import Any

import pytest

from ephemeralml.attestation.nitro import NitroEndorsements
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.wire.errors import Error

from ...corpus import corpus
from .tamper import OPERATIONS, ORDER_P384, SWAPS, Parts, swap
from .test_corpus import GENUINE


@cache
def _time(stem: str) -> int:
    rows: list[dict[str, Any]] = json.loads(corpus("nitro/EXPECTED.json").read_text())
    return next(int(row["time"]) for row in rows if row["file"] == f"nitro/{stem}.bin")


@cache
def parts(stem: str) -> Parts:
    return Parts.of(corpus(f"nitro/{stem}.bin").read_bytes())


def refused(document: bytes, now: int) -> str:
    with pytest.raises(Error) as caught:
        verify(document, NitroEndorsements(), now)
    return caught.value.code


@pytest.mark.parametrize("stem", GENUINE)
def test_taken_apart_and_put_together_it_still_verifies(stem: str) -> None:
    """Else the refusals below would prove nothing."""
    verify(parts(stem).document(), NitroEndorsements(), _time(stem))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stem", GENUINE)
def test_a_genuine_document_with_one_thing_wrong_is_refused(stem: str, name: str) -> None:
    operation, code = OPERATIONS[name]
    assert refused(operation(parts(stem)), _time(stem)) == code


@pytest.mark.parametrize("what", SWAPS)
@pytest.mark.parametrize(("mine", "theirs"), list(permutations(GENUINE[:4], 2)))
def test_parts_of_two_genuine_documents_do_not_mix(mine: str, theirs: str, what: str) -> None:
    """The bundles of the two documents of 2022 were valid together for a while, their leaves never."""
    document = swap(parts(mine), parts(theirs), what)
    assert document != parts(mine).document()
    code = refused(document, _time(mine))
    expected = {
        "signature": {"SIG_FAILED"},
        "payload": {"CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID"},
        "cabundle": {"CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID", "CHAIN_BROKEN"},
        "certificate": {"CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID"},
        "pcrs": {"SIG_FAILED"},
        "public_key": {"SIG_FAILED"},
    }
    assert code in expected[what]


@pytest.mark.parametrize("stem", GENUINE)
def test_the_other_s_of_ecdsa_changes_the_bytes_and_nothing_that_is_said(stem: str) -> None:
    """Of every ECDSA signature (r, s) there is (r, n - s). Hence evidence is named by its own hash only."""
    mine, now = parts(stem), _time(stem)
    s = ORDER_P384 - int.from_bytes(mine.signature[48:], "big")
    other = Parts(mine.protected, {}, mine.payload, mine.signature[:48] + s.to_bytes(48, "big"))
    found, original = (verify(one.document(), NitroEndorsements(), now) for one in (other, mine))
    assert found.evidence_hash != original.evidence_hash
    assert found.details == original.details
