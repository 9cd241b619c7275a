"""Checks a batch whole: outcomes as a stream, every index exactly once, then the roots.

The same check stands before the TEE signs and behind ``verify batch``; only the way to
a worker's key differs. A batch file is a CBOR sequence (RFC 8742) of byte strings: the
head, then the outcome statements in index order (spec/batch.md).
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from ..wire.encoding import encode
from ..wire.errors import AppraisalError, MalformedError, VerificationError
from .batch_statement import MAX_HEAD_BYTES, BatchHead, BatchStatement, verify_batch_statement
from .inclusion import make_inclusion_receipt, verify_inclusion_receipt
from .merkle import RootBuilder, leaf_hash
from .outcome import MAX_OUTCOME_BYTES, Outcome, peek_outcome, verify_outcome

MAX_FAULTS: Final = 16
#: Finds a worker's receipt key (32 bytes) by the hash of its evidence; None: not known here.
KeyOf = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one item, and its index (its place in the file where it names none).

    :param code: ``DROPPED``, ``DOUBLED``, ``SWAPPED``, ``FOREIGN``, ``MALFORMED``, ``UNTRUSTED_WORKER`` or
        ``BAD_SIGNATURE``.
    """

    code: str
    index: int


class BatchFault(VerificationError):
    """A batch is not whole.

    :param faults: what is wrong, at most 16 of them, in the order of the indexes.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        named = ", ".join(f"{fault.code} item {fault.index}" for fault in faults)
        super().__init__(faults[0].code, named)
        self.faults = faults


@dataclass(slots=True)
class Tally:
    """What a whole batch adds up to. ``unchecked``: outcomes whose own signature was not checked."""

    output_root: bytes
    counts: dict[str, int]
    leaves: list[bytes] = field(repr=False)
    unchecked: int = 0


def write_batch(head: BatchHead, outcomes: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a batch file's parts; join or write them."""
    yield encode(head.encode())
    for outcome in outcomes:
        yield encode(outcome)


def read_batch(stream: BinaryIO) -> tuple[BatchHead, Iterator[bytes]]:
    """Read a batch file's head, and its outcomes one by one.

    :raises MalformedError: ``BATCH_FILE``, also later from the iterator; the codes of the head.
    """
    head = _string(stream, MAX_HEAD_BYTES)
    if head is None:
        raise MalformedError("BATCH_FILE", "the batch file is empty")
    return BatchHead.decode(head), iter(lambda: _string(stream, MAX_OUTCOME_BYTES), None)


def _string(stream: BinaryIO, limit: int) -> bytes | None:
    initial = stream.read(1)
    if not initial:
        return None
    size = initial[0] - 0x40
    if 24 <= size <= 25:
        size = int.from_bytes(stream.read(1 if size == 24 else 2), "big")
    if not 0 <= size <= limit:
        raise MalformedError("BATCH_FILE", "an item of the batch file is no byte string, or too long")
    value = stream.read(size)
    if len(value) != size or not encode(value).startswith(initial):
        raise MalformedError("BATCH_FILE", "an item of the batch file is cut short or has a long form")
    return value


class _Checker:
    """Looks at outcomes in the order they come."""

    def __init__(self, head: BatchHead, key_of: KeyOf) -> None:
        self.head = head
        self.key_of = key_of
        self.faults: list[Fault] = []
        self.seen = bytearray(head.count)
        self.moved: list[int] = []
        self.counts: Counter[str] = Counter()
        self.builder = RootBuilder()
        self.leaves: list[bytes] = []
        self.unchecked = 0
        self.cut = False

    def add(self, place: int, data: bytes) -> None:
        """Take the outcome that stands at a place."""
        outcome = self._read(place, data)
        if outcome is None:
            return
        index = outcome.index
        if (outcome.batch_id, outcome.pool) != (self.head.batch_id, self.head.pool) or index is None:
            self.faults.append(Fault("FOREIGN", place))
        elif index >= self.head.count:
            self.faults.append(Fault("FOREIGN", index))
        elif self.seen[index]:
            self.faults.append(Fault("DOUBLED", index))
        else:
            self.seen[index] = 1
            if index != place and len(self.moved) < MAX_FAULTS:
                self.moved.append(index)
            self.counts[outcome.status] += 1
            leaf = leaf_hash(data)
            self.leaves.append(leaf)
            self.builder.add(leaf)

    def _read(self, place: int, data: bytes) -> Outcome | None:
        try:
            outcome = peek_outcome(data)
        except MalformedError:
            self.faults.append(Fault("MALFORMED", place))
            return None
        index = place if outcome.index is None else outcome.index
        try:
            key = self.key_of(outcome.attestation_doc_hash)
        except (AppraisalError, VerificationError, MalformedError):
            self.faults.append(Fault("UNTRUSTED_WORKER", index))
            return None
        if key is None:
            self.unchecked += 1
            return outcome
        try:
            return verify_outcome(data, key)
        except VerificationError:
            self.faults.append(Fault("BAD_SIGNATURE", index))
            return None

    def done(self) -> Tally:
        """Return the sums, or raise what is wrong."""
        if self.cut:  # the rest was not looked at
            raise BatchFault(tuple(sorted(self.faults, key=lambda fault: fault.index)))
        named = {fault.index for fault in self.faults if fault.code != "DOUBLED"}
        dropped = (i for i, seen in enumerate(self.seen) if not seen and i not in named)
        faults = self.faults + [
            Fault("DROPPED", index) for index, _ in zip(dropped, range(MAX_FAULTS), strict=False)
        ]
        if not faults:  # nothing is missing and nothing too many: what moved was swapped
            faults = [Fault("SWAPPED", index) for index in self.moved]
        if faults:
            faults.sort(key=lambda fault: fault.index)
            raise BatchFault(tuple(faults[:MAX_FAULTS]))
        return Tally(self.builder.root(), dict(self.counts), self.leaves, self.unchecked)


def check_outcomes(
    head: BatchHead,
    outcomes: Iterable[bytes],
    key_of: KeyOf,
    progress: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Check that every index of a batch has exactly one outcome, in order, signed by its worker.

    :param key_of: finds a worker's key; raises :class:`AppraisalError` or
        :class:`VerificationError` for a worker that is not trusted. :param progress: items so far.
    :raises BatchFault: which items are wrong. :raises MalformedError: the stream cannot be read.
    """
    checker = _Checker(head, key_of)
    for place, data in enumerate(outcomes):
        checker.add(place, data)
        if len(checker.faults) >= MAX_FAULTS:
            checker.cut = True
            break  # this also ends a stream that goes on for ever: surplus items are faults
        if place % 256 == 255:
            progress(place + 1)
    return checker.done()


@dataclass(frozen=True, slots=True)
class BatchVerification:
    """A batch that was found whole.

    :param unchecked: outcomes whose own signatures only the sealing TEE has checked.
    :param receipt: COSE Receipt of the item that was asked for. :param item: that outcome.
    """

    statement: BatchStatement
    unchecked: int
    item: Outcome | None = None
    receipt: bytes | None = None


def verify_batch(
    statement: bytes,
    public_key: bytes,
    file: BinaryIO,
    *,
    item: int | None = None,
    input_root: bytes | None = None,
    key_of: KeyOf = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> BatchVerification:
    """Verify a batch statement and that a batch file is exactly what it was made over.

    :param public_key: raw Ed25519 key, 32 bytes, of the worker that sealed the batch.
    :param item: index of one item to prove. :param input_root: what the client committed to.
    :raises MalformedError: not in the form. :raises VerificationError: not sound (:class:`BatchFault`
        names items).
    """
    found = verify_batch_statement(statement, public_key)
    if input_root is not None and not hmac.compare_digest(found.head.input_root, input_root):
        raise VerificationError("INPUT_ROOT_MISMATCH", "the statement is over other inputs")
    head, outcomes = read_batch(file)
    if head != found.head:
        raise VerificationError("BATCH_MISMATCH", "the batch file is of another batch than the statement")
    if item is not None and item >= head.count:
        raise VerificationError("FOREIGN", "the batch has no such item")
    wanted: list[bytes] = []
    tally = check_outcomes(head, _keeping(outcomes, item, wanted), key_of, progress)
    if not hmac.compare_digest(tally.output_root, found.output_root):
        raise VerificationError("OUTPUT_ROOT_MISMATCH", "the outcomes are not those that were sealed")
    if tally.counts != dict(found.counts):
        raise VerificationError("COUNTS_MISMATCH", "the statement counts other ends")
    if item is None:
        return BatchVerification(found, tally.unchecked)
    receipt = make_inclusion_receipt(found, tally.leaves, item)
    included = verify_inclusion_receipt(receipt, wanted[0], public_key)
    return BatchVerification(found, tally.unchecked, included.outcome, receipt)


def _keeping(outcomes: Iterable[bytes], item: int | None, kept: list[bytes]) -> Iterator[bytes]:
    for place, data in enumerate(outcomes):
        if place == item:
            kept.append(data)
        yield data
