"""Hypothesis strategies of the wire formats and what every reader must hold against any bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import strategies as st

from ephemeralml.wire.announcement import AnnouncementBody, ModelIdentity
from ephemeralml.wire.bundle import Collateral, EvidenceBundle
from ephemeralml.wire.encoding import Tag
from ephemeralml.wire.errors import Error, MalformedError
from ephemeralml.wire.generation import FINISH_REASONS
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.job import (
    BatchCommitment,
    Completion,
    Embedding,
    EngineInfo,
    Job,
    Response,
    TokenLogprob,
    Turn,
)
from ephemeralml.wire.keys import SuiteName
from ephemeralml.wire.pack import SealedJob, SealedReply
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealed

SUITES: tuple[SuiteName, ...] = ("xwing", "x25519")
TAGS = frozenset({0, 18, 96, 2**64 - 1})


@lru_cache
def private_key(suite: SuiteName, number: int = 1) -> PrivateKey:
    """Return the key of a seed that is told by a number."""
    return PrivateKey.from_seed(suite, bytes([number]) * 32)


def octets(minimum: int, maximum: int | None = None) -> st.SearchStrategy[bytes]:
    """Return byte strings of ``minimum`` to ``maximum`` bytes, exactly ``minimum`` by default."""
    return st.binary(min_size=minimum, max_size=minimum if maximum is None else maximum)


keys = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
scalars = st.none() | st.booleans() | st.floats() | keys
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.builds(Tag, st.sampled_from(sorted(TAGS)), inner)
    ),
    max_leaves=25,
)

pools = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
reply_queues = octets(16).map(lambda raw: "reply." + raw.hex())
times = st.integers(1, 2**64 - 1)
places = st.tuples(octets(16), st.integers(0, 49_999)) | st.just((None, None))
public_keys = st.sampled_from([private_key(suite, n).public_key for suite in SUITES for n in (1, 2)])
engines = st.builds(EngineInfo, *(st.text(min_size=1, max_size=16),) * 4)
model_ids = st.text(min_size=1, max_size=64)
counts = st.integers(0, 2**64 - 1)

job_headers = st.builds(
    lambda job_id, pool, key_id, reply_to, not_after, place: JobHeader(
        job_id, pool, key_id, reply_to, not_after, *place
    ),
    *(octets(16), pools, octets(32), reply_queues, times, places),
)
reply_headers = st.builds(
    lambda job_id, pool, key_id, place: ReplyHeader(job_id, pool, key_id, *place),
    *(octets(16), pools, octets(32), places),
)
parameter_scalars = (
    st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8) | st.booleans()
)
inputs = st.text(max_size=40) | st.lists(
    st.builds(Turn, st.text(max_size=9), st.text(max_size=40)), min_size=1, max_size=3
).map(tuple)
jobs = st.builds(
    Job,
    model=model_ids,
    task=st.sampled_from(["embed", "generate"]),
    inputs=st.lists(inputs, min_size=1, max_size=4).map(tuple),
    parameters=st.dictionaries(
        st.text(min_size=1, max_size=8),
        parameter_scalars | st.lists(parameter_scalars, max_size=3),
        max_size=4,
    ),
    salt=octets(32),
    nonce=octets(8, 64),
    reply_key=public_keys,
    not_after=times,
    batch=st.none() | st.builds(BatchCommitment, octets(32), st.integers(1, 50_000)),
)
embeddings = st.builds(Embedding, octets(0, 5).map(lambda raw: raw * 4), counts, st.booleans())
_logprob = st.floats(max_value=0.0, allow_nan=False)
_tops = st.lists(st.tuples(octets(0, 4), _logprob), max_size=3).map(tuple)
_logprobs = st.lists(st.builds(TokenLogprob, octets(0, 4), _logprob, _tops), max_size=3).map(tuple)
_ends = (st.text(max_size=20), st.sampled_from(FINISH_REASONS), counts)
_seeds = st.integers(0, 2**32 - 1)
completions = st.builds(Completion, *_ends, counts, _seeds) | st.builds(
    lambda text, end, read, logprobs, seed: Completion(text, end, read, len(logprobs), seed, logprobs),
    *(*_ends, _logprobs, _seeds),
)
sampling = st.dictionaries(st.text(min_size=1, max_size=8), parameter_scalars, max_size=4)


def _responses(task: str) -> st.SearchStrategy[Response]:
    outputs: st.SearchStrategy[Embedding | Completion] = embeddings if task == "embed" else completions
    return st.builds(
        Response,
        job_id=octets(16),
        model=model_ids,
        model_hash=octets(32),
        task=st.just(task),
        outputs=st.lists(outputs, min_size=1, max_size=4).map(tuple),
        engine=engines,
        salt=octets(32),
        sampling=st.just({}) if task == "embed" else sampling,
    )


responses = _responses("embed") | _responses("generate")
recipients = st.sampled_from([bytes([n]) * n for n in (1, 2, 40)])
sealed = st.builds(Sealed, recipients, octets(12), octets(16, 40))
sealed_jobs = st.builds(SealedJob, octets(1, 40), sealed)
sealed_replies = st.builds(SealedReply, octets(16), octets(1, 40)) | st.builds(
    SealedReply, octets(16), octets(1, 40), octets(1, 40), sealed
)
bodies = st.builds(
    AnnouncementBody,
    pool=pools,
    worker_id=octets(16),
    fleet_key=public_keys,
    epoch=times,
    receipt_key=octets(32),
    model=st.builds(ModelIdentity, model_ids, st.text(min_size=1, max_size=16), octets(32)),
    tasks=st.sampled_from([("embed",), ("generate",), ("embed", "generate"), ("generate", "embed")]),
    engine=engines,
    issued_at=times,
    not_after=times,
    security_mode=st.text(min_size=1, max_size=8),
)


def mutations(data: bytes, count: int = 400, seed: int = 1) -> Iterator[bytes]:
    """Yield ``data`` with a byte flipped, dropped, added or exchanged, or cut, always the same ones."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(count):
        place = draw.randrange(len(data))
        byte = bytes([draw.randrange(256)])
        match draw.randrange(5):
            case 0:
                yield data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
            case 1:
                yield data[:place] + data[place + 1 :]
            case 2:
                yield data[:place] + byte + data[place:]
            case 3:
                yield data[:place] + byte + data[place + 1 :]
            case _:
                yield data[:place]


def refuses(code: str, call: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Assert that ``call(*arguments, **options)`` raises a MalformedError with ``code``."""
    raises(MalformedError, code, call, *arguments, **options)


def raises(
    kind: type[Error], code: str, call: Callable[..., object], *arguments: Any, **options: Any
) -> None:
    """Assert that ``call(*arguments, **options)`` raises exactly ``kind`` with ``code``."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert type(caught.value) is kind
    assert caught.value.code == code


def only_malformed(read: Callable[[bytes], object], write: Callable[[object], bytes], data: bytes) -> None:
    """Assert that a reader, given mutated bytes, refuses properly or reads what writes the same again."""
    for changed in mutations(data):
        try:
            value = read(changed)
        except MalformedError:
            continue
        assert write(value) == changed


_names = st.text(min_size=1, max_size=9)
bundles = st.builds(
    EvidenceBundle,
    _names,
    st.binary(max_size=40),
    st.lists(st.tuples(_names, st.binary(max_size=20)), max_size=4, unique_by=lambda pair: pair[0]).map(
        tuple
    ),
    st.lists(
        st.builds(Collateral, _names, _names, st.binary(max_size=20)),
        max_size=5,
        unique_by=lambda file: (file.platform, file.name),
    ).map(tuple),
)
