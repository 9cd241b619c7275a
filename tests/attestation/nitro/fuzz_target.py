"""Fuzz target: documents, verified at the time that they state, under the vendor's root and one of ours."""

from __future__ import annotations

from functools import cache

from ephemeralml.attestation.nitro import AWS_NITRO_ROOT_G1, NitroEndorsements
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.nitro.show import show
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.wire.errors import MalformedError

from ...fuzz.seeds import recorded
from .forge import Chain, make_chain, make_document, make_payload


@cache
def chain() -> Chain:
    """The chain of the documents made here."""
    return make_chain()


@cache
def seeds() -> list[bytes]:
    """Recorded documents where the corpus is here, and three of our own."""
    made = [
        make_document(chain()),
        make_document(chain(), make_payload(chain(), public_key=..., user_data=..., nonce=b"n" * 64)),
        make_document(chain(), make_payload(chain(), pcrs={n: bytes([n + 1]) * 64 for n in range(32)})),
    ]
    return [*recorded("nitro/*.bin"), *made]


@cache
def _signed() -> frozenset[bytes]:
    payloads = set()
    for seed in seeds():
        try:
            payloads.add(parse(seed).payload)
        except MalformedError:  # some of the recorded ones
            continue
    return frozenset(payloads)


def target(data: bytes) -> None:
    """Verify; what passes must say what one of the seeds says, because nobody else could sign it."""
    document = parse(data)
    show(data)
    verify(document, NitroEndorsements((AWS_NITRO_ROOT_G1, *chain().roots)), document.timestamp_ms // 1000)
    assert document.payload in _signed(), "a forged payload verifies"
