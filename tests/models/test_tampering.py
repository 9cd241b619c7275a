"""Whatever a storage may do to a package is noticed, and named by a stable code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ephemeralml.wire.cose import sign1
from ephemeralml.wire.errors import Error, ModelError
from ephemeralml.workers.models import inspect_package
from ephemeralml.workers.models.manifest import PROTECTED
from ephemeralml.workers.models.stream import LENGTH, MAGIC, ChunkCipher, PackageHeader

from .forge import CHUNK, KEY, OWNER, chunks, forge, load, make, tensors


def with_package_header(package: bytes, **change: Any) -> bytes:
    """Return the package under a changed header."""
    head, pieces = chunks(package)
    header = PackageHeader.decode(head[len(MAGIC) + 4 :])
    parts = {name: getattr(header, name) for name in header.__slots__}
    encoded = PackageHeader(**{**parts, **change}).encode()
    return MAGIC + LENGTH.pack(len(encoded)) + encoded + b"".join(pieces)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": bytes(32)}, "PACKAGE_TAMPERED"),
        ({"key": bytes(16)}, "MODEL_KEY_LENGTH"),
        ({"signers": (bytes(32),)}, "MODEL_SIGNER_UNTRUSTED"),
        ({"signers": (b"short",)}, "MODEL_SIGNER_UNTRUSTED"),
        ({"signers": ()}, "MODEL_SIGNER_UNTRUSTED"),
        ({"expected": bytes(32)}, "MODEL_UNEXPECTED"),
    ],
)
def test_wrong_key_signer_or_model(package: bytes, change: dict[str, Any], code: str) -> None:
    asked: list[str] = []
    with pytest.raises(ModelError, match=code):
        load(package, asked=asked, **change)
    assert bool(asked) == ("key" in change)


def test_chunks_reordered_doubled_or_dropped(package: bytes) -> None:
    head, pieces = chunks(package)
    assert len(pieces) == 3 + 3
    swapped = [pieces[1], pieces[0], *pieces[2:]]
    same_size = [*pieces[:3], pieces[4], pieces[3], *pieces[5:]]
    for broken in (swapped, same_size, [*pieces[:4], pieces[3], *pieces[4:]], pieces[:-1], pieces[1:], []):
        with pytest.raises(ModelError, match=r"PACKAGE_(TAMPERED|TRUNCATED)"):
            load(head + b"".join(broken))


def test_cut_at_every_boundary_and_beside_it(package: bytes) -> None:
    head, pieces = chunks(package)
    edges, place = [0, len(MAGIC), len(MAGIC) + 4, len(head)], len(head)
    for piece in pieces:
        edges += [place, place + 4, place + len(piece)]
        place += len(piece)
    for cut in {edge + step for edge in edges for step in (-1, 0, 1)}:
        if 0 <= cut < len(package):
            with pytest.raises(ModelError, match="PACKAGE_TRUNCATED"):
                load(package[:cut])


def test_bytes_after_the_last_chunk(package: bytes) -> None:
    with pytest.raises(ModelError, match="PACKAGE_MALFORMED"):
        load(package + b"\0")
    with pytest.raises(ModelError, match="PACKAGE_MALFORMED"):
        load(package + chunks(package)[1][-1])


def test_chunk_of_another_package_under_the_same_key(folder: Path, package: bytes, tmp_path: Path) -> None:
    head, pieces = chunks(package)
    _, others = chunks(make(folder, tmp_path / "other.eml"))
    for place in range(len(pieces)):
        mixed = [*pieces[:place], others[place], *pieces[place + 1 :]]
        with pytest.raises(ModelError, match="PACKAGE_TAMPERED"):
            load(head + b"".join(mixed))


@pytest.mark.parametrize(
    ("place", "package_id", "header", "key"),
    [
        ((1, 7, False), bytes(16), b"h", KEY),
        ((0, 6, False), bytes(16), b"h", KEY),
        ((0, 7, True), bytes(16), b"h", KEY),
        ((0, 7, False), bytes(15) + b"1", b"h", KEY),
        ((0, 7, False), bytes(16), b"H", KEY),
        ((0, 7, False), bytes(16), b"h", bytes(32)),
    ],
)
def test_chunk_is_bound_to_each_thing_by_itself(
    place: tuple[int, int, bool], package_id: bytes, header: bytes, key: bytes
) -> None:
    """Under one nonce: file, number, last-flag, package, header and key count by themselves."""
    sealed = memoryview(ChunkCipher(KEY, bytes(16), b"h").seal(0, 7, False, b"text"))
    into = memoryview(bytearray(4))
    ChunkCipher(KEY, bytes(16), b"h").open(0, 7, False, sealed, into)
    assert bytes(into) == b"text"
    with pytest.raises(ModelError, match="PACKAGE_TAMPERED"):
        ChunkCipher(key, package_id, header).open(*place, sealed, into)


def test_no_two_chunks_share_a_nonce() -> None:
    cipher = ChunkCipher(KEY, bytes(16), b"h")
    assert len({cipher.seal(0, 0, False, bytes(64)) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "change",
    [{"package_id": bytes(16)}, {"chunk_bytes": CHUNK * 2}, {"chunk_bytes": 16 << 20}],
)
def test_changed_header_opens_no_chunk(package: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="PACKAGE_TAMPERED"):
        load(with_package_header(package, **change))


def test_context_of_another_model_is_refused_before_the_key_is_asked_for(package: bytes) -> None:
    context = PackageHeader.decode(chunks(package)[0][len(MAGIC) + 4 :]).context
    for forged in ({"purpose": "model"}, {**context, "model": "n"}, {**context, "more": "x"}, {}):
        asked: list[str] = []
        with pytest.raises(ModelError, match="MODEL_CONTEXT_MISMATCH"):
            load(with_package_header(package, context=forged), asked=asked)
        assert asked == []


def test_manifest_with_extra_headers_is_refused(package: bytes) -> None:
    payload = load(package).manifest.encode()
    signed = sign1(payload, OWNER, protected={**PROTECTED, 4: b"kid"})
    with pytest.raises(ModelError, match="MANIFEST_MALFORMED"):
        load(with_package_header(package, manifest=signed))


@pytest.mark.parametrize("size", [0, 3, 5, 9000])
def test_size_that_the_manifest_only_claims(size: int) -> None:
    with pytest.raises(ModelError, match=r"PACKAGE_(TAMPERED|TRUNCATED)"):
        load(forge({"model.safetensors": tensors(a=b"1"), "v.txt": b"text"}, sizes={"v.txt": size}))


@pytest.mark.parametrize("name", ["model.safetensors", "v.txt", "empty.txt"])
def test_content_that_the_owner_did_not_sign(name: str) -> None:
    """Whoever holds the model key can seal chunks; only the owner can sign what they hold."""
    files = {"model.safetensors": tensors(a=bytes(9000)), "v.txt": b"text", "empty.txt": b""}
    load(forge(files))
    with pytest.raises(ModelError, match="PACKAGE_TAMPERED"):
        load(forge(files, digests={name: bytes(32)}))


def test_model_that_no_memory_holds_ends_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"MODEL_TOO_LARGE|PACKAGE_TAMPERED"):
        load(forge({"v.txt": b"text"}, sizes={"v.txt": 1 << 40}))


def test_every_region_flipped(package: bytes) -> None:
    """One bit of every byte of the head, and of every chunk's length, text and tag."""
    head, pieces = chunks(package)
    places, start = list(range(len(head))), len(head)
    for piece in pieces:
        places += [start, start + 3, start + 4, start + len(piece) // 2, start + len(piece) - 1]
        start += len(piece)
    for place in places:
        data = bytearray(package)
        data[place] ^= 1
        with pytest.raises(Error):
            load(bytes(data))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 20), mask=st.integers(1, 255))
def test_any_flipped_byte_is_refused_by_our_errors(package: bytes, place: int, mask: int) -> None:
    data = bytearray(package)
    data[place % len(data)] ^= mask
    with pytest.raises(Error):
        load(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused_by_our_errors(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, MAGIC + LENGTH.pack(len(noise)) + noise):
        with pytest.raises(ModelError):
            load(data)
        with pytest.raises(ModelError):
            inspect_package(io.BytesIO(data))
