"""Merkle trees: the public vectors, and an honest tree of our own written another way."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.receipts.inclusion import InclusionProof
from ephemeralml.receipts.merkle import (
    check_inclusion,
    inclusion_path,
    leaf_hash,
    node_hash,
    root_from_path,
    tree_root,
)
from ephemeralml.wire.encoding import Tag, decode_tolerant
from ephemeralml.wire.errors import MalformedError, VerificationError

from ..corpus import corpus

LEAVES = st.lists(st.binary(max_size=4).map(leaf_hash), min_size=1, max_size=70)


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """The recursive definition of RFC 9162, section 2.1.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def test_inclusion_vectors() -> None:
    vectors = sorted(corpus("vectors/merkle-testdata/inclusion").rglob("*.json"))
    assert len(vectors) > 80
    for path in vectors:
        case = json.loads(path.read_text())
        proof = [base64.b64decode(part) for part in case["proof"] or ()]
        leaf, root = (base64.b64decode(case[name] or "") for name in ("leafHash", "root"))
        try:
            check_inclusion(case["leafIdx"], case["treeSize"], leaf, proof, root)
            accepted = True
        except VerificationError:
            accepted = False
        assert accepted is not case["wantErr"], path.name


def test_the_published_cose_receipt_holds_a_proof_of_our_form() -> None:
    data = corpus("vectors/cose-receipts/inclusion-receipt.cbor").read_bytes()
    outer = decode_tolerant(data, tags=(18,))
    assert isinstance(outer, Tag)
    assert isinstance(outer.value, list)
    _, unprotected, payload, _ = outer.value
    encoded = unprotected[396][-1][0]
    proof = InclusionProof.decode(encoded)
    assert (proof.size, proof.index, len(proof.path), payload) == (5, 3, 3, None)
    assert proof.encode() == encoded
    assert len(root_from_path(proof.index, proof.size, leaf_hash(b"any"), proof.path)) == 32


@given(LEAVES)
def test_the_streamed_root_is_the_defined_one(leaves: list[bytes]) -> None:
    assert tree_root(leaves) == by_definition(leaves)


def test_the_empty_tree() -> None:
    assert tree_root([]) == by_definition([])


@given(LEAVES, st.data())
def test_every_leaf_is_included_and_only_there(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = inclusion_path(leaves, index), tree_root(leaves)
    check_inclusion(index, len(leaves), leaves[index], path, root)
    for wrong in (path[:-1], (*path, root)):
        if wrong != path:
            with pytest.raises(VerificationError):
                check_inclusion(index, len(leaves), leaves[index], wrong, root)
    with pytest.raises(VerificationError):
        check_inclusion(index, len(leaves), leaf_hash(b"other leaf"), path, root)


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_path_to_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(MalformedError, match="OUT_OF_BOUNDS"):
        inclusion_path([bytes(32)] * 2, index)
