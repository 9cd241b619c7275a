"""What the chain walk remembers changes how long it takes, never what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ephemeralml.attestation.nitro import NitroEndorsements, chain
from ephemeralml.attestation.nitro.chain import MAX_REMEMBERED, verify_chain
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.wire.errors import EndorsementsError, Error

from .forge import DAY, NOW, Chain, Link, chain_links, make_chain, make_document, make_payload
from .tamper import flip


def forget() -> None:
    chain._read.cache_clear()
    chain._check_issued.cache_clear()


@pytest.fixture(autouse=True)
def _cold() -> Iterator[None]:
    forget()
    yield
    forget()


def walk(made: Chain, *, now: int = NOW, roots: tuple[bytes, ...] | None = None) -> None:
    *bundle, leaf = made.certificates
    verify_chain(bundle, leaf, made.roots if roots is None else roots, now)


def remembered() -> int:
    return chain._check_issued.cache_info().currsize


def test_the_links_of_a_good_chain_are_remembered_and_the_answer_is_the_same() -> None:
    made = make_chain()
    document = make_document(made)
    cold = verify(document, NitroEndorsements(made.roots), NOW)
    assert remembered() == 4
    warm = verify(document, NitroEndorsements(made.roots), NOW)
    assert chain._check_issued.cache_info().hits == 4
    assert warm == cold


@pytest.mark.parametrize(
    ("judge", "code"),
    [
        (lambda made: walk(made, now=NOW + 3 * 3600 + 1), "CERTIFICATE_EXPIRED"),
        (lambda made: walk(made, now=NOW - DAY - 1), "CERTIFICATE_NOT_YET_VALID"),
        (lambda made: walk(made, roots=(bytes(32),)), "UNKNOWN_ROOT"),
        (lambda made: walk(made, roots=()), "NO_ROOTS"),
        (lambda made: walk(Chain(made.certificates[:-1], made.key)), "KEY_USAGE"),
        (lambda made: walk(Chain(made.certificates[1:], made.key), roots=made.roots), "UNKNOWN_ROOT"),
        (lambda made: walk(Chain([*made.certificates, made.certificates[-1]], made.key)), "PATH_LENGTH"),
    ],
)
def test_what_is_judged_anew_is_judged_on_remembered_links_too(
    judge: Callable[[Chain], None], code: str
) -> None:
    made = make_chain()
    walk(made)
    with pytest.raises(Error) as caught:
        judge(made)
    assert caught.value.code == code


def test_a_changed_certificate_is_another_certificate() -> None:
    made = make_chain()
    walk(made)
    for index in range(1, 5):
        certificates = list(made.certificates)
        certificates[index] = flip(certificates[index], -1)
        with pytest.raises(Error) as caught:
            walk(Chain(certificates, made.key))
        assert caught.value.code == "CHAIN_BROKEN"


def test_a_failure_is_never_remembered() -> None:
    made = make_chain()
    broken = Chain([*made.certificates[:3], flip(made.certificates[3], -1), made.certificates[4]], made.key)
    for _ in range(2):
        with pytest.raises(Error):
            walk(broken)
        assert remembered() == 2
    walk(made)


def test_links_below_an_unknown_root_are_not_remembered() -> None:
    made = make_chain()
    with pytest.raises(Error):
        walk(made, roots=make_chain().roots)
    with pytest.raises(EndorsementsError):
        walk(made, roots=())
    assert remembered() == 0


def test_links_below_a_break_are_not_remembered() -> None:
    """Whoever signs a chain of his own below the vendor's root leaves nothing behind."""
    good, stranger = make_chain(), make_chain()
    mixed = Chain([good.certificates[0], *stranger.certificates[1:]], stranger.key)
    with pytest.raises(Error) as caught:
        walk(mixed, roots=good.roots)
    assert caught.value.code == "CHAIN_BROKEN"
    assert remembered() == 0


def test_a_remembered_link_lends_nothing_to_another_leaf() -> None:
    """Same names, same issuer's certificate, another key: its signature is checked."""
    made, other = make_chain(), make_chain()
    walk(made)
    payload = make_payload(made, certificate=other.certificates[-1])
    with pytest.raises(Error) as caught:
        verify(make_document(made, payload, key=other.key), NitroEndorsements(made.roots), NOW)
    assert caught.value.code == "CHAIN_BROKEN"


def test_memory_is_bounded() -> None:
    assert chain._read.cache_info().maxsize == MAX_REMEMBERED
    assert chain._check_issued.cache_info().maxsize == MAX_REMEMBERED
    made = make_chain([chain_links()[0], Link("enclave", authority=False)])
    for _ in range(3):
        walk(made)
    assert remembered() == 1
