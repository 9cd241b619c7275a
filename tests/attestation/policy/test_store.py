"""The store: append-only, forward only, whole after a crash, and one winner of two."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.policy_bundle import canonical_policy
from ephemeralml.attestation.policy_store import PolicyStore
from ephemeralml.wire.errors import AppraisalError, ConfigurationError, Error, VerificationError

from .samples import DAY, NOW, OTHER_KEY, OTHER_ROOT, ROOT, after, first, opened, policy

ENDED = {"issued_at": NOW - DAY, "not_before": NOW - DAY, "expires": NOW}


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies", ROOT)


def names(store: PolicyStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_versions_are_kept_and_the_last_is_in_force(store: PolicyStore) -> None:
    one = first()
    two = after(one)
    for data in (one, two):
        assert store.activate(data, NOW).data == data
        assert store.active().data == data
    assert names(store) == ["000001.bundle", "000002.bundle", "active", "lock"]
    assert [entry.bundle and entry.bundle.data for entry in store.history()] == [one, two]
    assert store.bundle(1).data == one


def test_activating_again_changes_nothing(store: PolicyStore) -> None:
    store.activate(first(), NOW)
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    store.activate(first(), NOW)
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before


def test_an_empty_store_says_so(store: PolicyStore) -> None:
    store.folder.mkdir()
    with pytest.raises(ConfigurationError, match="POLICY_STORE_EMPTY"):
        store.active()


def test_a_store_may_begin_in_the_middle(store: PolicyStore) -> None:
    two = after(first())
    store.activate(two, NOW)
    assert store.activate(after(two), NOW).label == "prod#3"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda one, two: one, "POLICY_DOWNGRADE"),
        (lambda one, two: after(one, expires=NOW + DAY), "POLICY_FORKED"),
        (lambda one, two: after(two, previous=b"x" * 32), "POLICY_HISTORY_BROKEN"),
        (lambda one, two: after(after(two)), "POLICY_HISTORY_BROKEN"),
        (lambda one, two: after(two, name="other"), "POLICY_OTHER_NAME"),
        (
            lambda one, two: after(two, issued_at=NOW - DAY, not_before=NOW - DAY, expires=NOW),
            "POLICY_EXPIRED",
        ),
        (lambda one, two: after(two, not_before=NOW + 301), "POLICY_NOT_YET_VALID"),
        (lambda one, two: after(two, key=OTHER_KEY), "SIG_FAILED"),
        (lambda one, two: after(two)[:-1], "CBOR_TRUNCATED"),
        (lambda one, two: b"", "CBOR_TRUNCATED"),
        (lambda one, two: after(two, rollback_of=1), "POLICY_ROLLBACK_MISMATCH"),
    ],
)
def test_what_is_not_activated(store: PolicyStore, make: Callable[[bytes, bytes], bytes], code: str) -> None:
    one = first()
    two = after(one)
    store.activate(one, NOW)
    store.activate(two, NOW)
    kept = names(store)
    with pytest.raises(Error) as caught:
        store.activate(make(one, two), NOW)
    assert caught.value.code == code
    assert names(store) == kept
    assert store.active().data == two


def test_an_old_policy_comes_back_as_a_new_version(store: PolicyStore) -> None:
    one = first()
    two = after(one)
    back = after(two, rollback_of=1, policy=canonical_policy(policy("1")))
    for data in (one, two, back):
        store.activate(data, NOW)
    assert store.active().policy == policy("1")
    assert store.active().label == "prod#3"


def test_an_expired_version_can_be_followed(store: PolicyStore) -> None:
    store.activate(first(), NOW)
    late = NOW + 31 * DAY
    following = after(first(), issued_at=late, not_before=late, expires=late + DAY)
    assert store.activate(following, late).label == "prod#2"


def test_another_root_reads_nothing(store: PolicyStore) -> None:
    store.activate(first(), NOW)
    other = PolicyStore(store.folder, OTHER_ROOT)
    with pytest.raises(VerificationError, match="SIG_FAILED"):
        other.active()
    assert [entry.code for entry in other.history()] == ["SIG_FAILED"]


# ------------------------------------------------------------- who may write the folder


@pytest.fixture
def three(store: PolicyStore) -> PolicyStore:
    data = first()
    for _ in range(3):
        store.activate(data, NOW)
        data = after(data)
    return store


def pointer_of(data: bytes) -> bytes:
    bundle = opened(data)
    return f"{bundle.statement.serial:06d} {bundle.position.digest.hex()}\n".encode()


def test_a_pointer_that_was_put_back_is_refused(three: PolicyStore) -> None:
    (three.folder / "active").write_bytes(pointer_of(first()))
    with pytest.raises(AppraisalError, match="POLICY_DOWNGRADE"):
        three.active()
    three.activate((three.folder / "000003.bundle").read_bytes(), NOW)
    assert three.active().label == "prod#3"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "POLICY_STORE_BROKEN"),
        (b"000003", "POLICY_STORE_BROKEN"),
        (b"3 " + b"00" * 32 + b"\n", "POLICY_STORE_BROKEN"),
        (b"000003 " + b"00" * 32 + b"\n", "POLICY_STORE_BROKEN"),
        (b"000009 " + b"00" * 32 + b"\n", "POLICY_UNREADABLE"),
        (b"../../x", "POLICY_STORE_BROKEN"),
        (bytes(1 << 16), "POLICY_STORE_BROKEN"),
    ],
)
def test_a_broken_pointer_is_refused(three: PolicyStore, content: bytes, code: str) -> None:
    (three.folder / "active").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        three.active()
    assert caught.value.code == code
    assert str(three.folder) not in str(caught.value)


def test_a_bundle_under_another_s_name_is_refused(three: PolicyStore) -> None:
    two = (three.folder / "000002.bundle").read_bytes()
    (three.folder / "000003.bundle").write_bytes(two)
    with pytest.raises(ConfigurationError, match="POLICY_STORE_BROKEN"):
        three.active()


def test_the_history_names_what_is_wrong(three: PolicyStore) -> None:
    path = three.folder / "000002.bundle"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert [entry.code for entry in three.history()] == ["", "SIG_FAILED", ""]
    path.write_bytes(after(first(), expires=NOW + DAY))
    assert [entry.code for entry in three.history()] == ["", "", "POLICY_HISTORY_BROKEN"]


def test_junk_beside_the_history_is_no_downgrade(three: PolicyStore) -> None:
    (three.folder / "000099.bundle").write_bytes(b"junk")
    (three.folder / "0000001.bundle").write_bytes(first())
    (three.folder / "notes.txt").write_text("mine")
    assert three.active().label == "prod#3"
    assert [entry.code for entry in three.history()] == ["", "", "", "CBOR_TRUNCATED"]


def test_unknown_serials_are_refused(three: PolicyStore) -> None:
    with pytest.raises(ConfigurationError, match="POLICY_UNKNOWN_SERIAL"):
        three.bundle(4)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = PolicyStore(tmp_path / "file", ROOT)
    with pytest.raises(ConfigurationError, match="POLICY_STORE_UNWRITABLE"):
        store.activate(first(), NOW)
    with pytest.raises(ConfigurationError, match="POLICY_UNREADABLE"):
        store.active()
    with pytest.raises(ConfigurationError, match="POLICY_UNREADABLE"):
        PolicyStore(tmp_path / "missing", ROOT).history()


# ------------------------------------------------------------- crashes


class Killed(BaseException):
    """The process ends here."""


def found(store: PolicyStore) -> bytes | str:
    try:
        return store.active().data
    except AppraisalError as error:
        return error.code


@pytest.mark.parametrize("step", range(12))
def test_a_kill_at_any_step_leaves_the_old_or_the_new(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    one = first()
    two = after(one)
    store.activate(one, NOW)
    calls = iter(range(1000))

    def until(name: str) -> None:
        real = getattr(os, name)

        def act(*arguments: object, **more: object) -> object:
            if next(calls) == step:
                raise Killed
            return real(*arguments, **more)

        monkeypatch.setattr(os, name, act)

    for name in ("open", "fsync", "replace", "link"):
        until(name)
    with suppress(Killed):
        store.activate(two, NOW)
    monkeypatch.undo()
    # Where the history has it and the pointer not yet, the store is refused, and says so.
    assert found(store) in (one, two, "POLICY_DOWNGRADE")
    assert store.activate(two, NOW).data == two
    assert store.active().data == two
    leftovers = [name for name in names(store) if name.startswith(".")]
    assert leftovers == []


def test_a_leftover_of_another_version_is_never_overwritten(store: PolicyStore) -> None:
    one = first()
    store.activate(one, NOW)
    (store.folder / "000002.bundle").write_bytes(after(one, expires=NOW + DAY))
    with pytest.raises(AppraisalError, match="POLICY_FORKED"):
        store.activate(after(one), NOW)


# ------------------------------------------------------------- two at once


def _activate(folder: Path, data: bytes, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    try:
        PolicyStore(folder, ROOT).activate(data, NOW)
        results.put("won")  # type: ignore[attr-defined]
    except Error as error:
        results.put(error.code)  # type: ignore[attr-defined]


def test_of_two_processes_one_wins(store: PolicyStore) -> None:
    context = multiprocessing.get_context("fork")
    one = first()
    store.activate(one, NOW)
    rivals = [after(one, expires=NOW + (index + 1) * DAY) for index in range(4)]
    start, results = context.Event(), context.Queue()
    processes = [
        context.Process(target=_activate, args=(store.folder, data, start, results)) for data in rivals
    ]
    for process in processes:
        process.start()
    start.set()
    ends = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join(30)
    assert ends == ["POLICY_FORKED"] * 3 + ["won"]
    assert store.active().data in rivals
    assert names(store) == ["000001.bundle", "000002.bundle", "active", "lock"]


# ------------------------------------------------------------- any order


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), max_size=12))
def test_whatever_is_tried_the_serial_never_falls(
    tmp_path_factory: pytest.TempPathFactory, tries: list[int]
) -> None:
    store = PolicyStore(tmp_path_factory.mktemp("store"), ROOT)
    line = [first()]
    for _ in range(4):
        line.append(after(line[-1]))
    highest = 0
    for index in tries:
        try:
            store.activate(line[index], NOW)
        except AppraisalError:
            pass
        else:
            assert index + 1 in {highest, highest + 1} or not highest
            highest = index + 1
        if highest:
            assert store.active().statement.serial == highest
