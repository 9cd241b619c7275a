"""Hot reload: forward, once good, never past its end, and said."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ephemeralml.attestation.policy_bundle import Position
from ephemeralml.attestation.policy_memory import PolicyMemory, default_memory
from ephemeralml.attestation.policy_source import (
    BundlePolicy,
    PolicyEvent,
    PolicyInForce,
    StaticPolicy,
    is_signed,
    open_policy,
    policy_at,
)
from ephemeralml.attestation.policy_store import PolicyStore
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, ConfigurationError, Error, MalformedError

from .samples import DAY, NOW, OTHER_KEY, ROOT, after, first, policy

END = NOW + 30 * DAY


@dataclass
class Post:
    """What the deliverer offers, and what was said about it."""

    path: Path
    events: list[PolicyEvent] = field(default_factory=list)

    def offer(self, data: bytes) -> None:
        self.path.write_bytes(data)

    def open(
        self, *, now: float = NOW, memory: PolicyMemory | None = None, poll_s: float = 0
    ) -> BundlePolicy:
        source = open_policy(
            self.path, policy_root=ROOT, now=now, notify=self.events.append, memory=memory, poll_s=poll_s
        )
        assert isinstance(source, BundlePolicy)
        return source

    @property
    def codes(self) -> list[str]:
        return [event.code for event in self.events]


@pytest.fixture
def post(tmp_path: Path) -> Post:
    made = Post(tmp_path / "offered")
    made.offer(first())
    return made


def refused(source: BundlePolicy, now: float) -> str:
    with pytest.raises(AppraisalError) as caught:
        source.current(now)
    return caught.value.code


def test_a_new_bundle_is_in_force_at_the_next_judgement(post: Post) -> None:
    source = post.open()
    assert source.in_force(NOW) == PolicyInForce(policy("1"), "prod#1", signed=True, expires=END)
    post.offer(after(first()))
    assert source.current(NOW) == policy("2")
    assert source.in_force(NOW).label == "prod#2"
    assert post.codes == ["POLICY_ACTIVATED"]
    assert "prod#2" in str(post.events[0])


@pytest.mark.parametrize(
    ("offer", "code"),
    [
        (b"", "CBOR_TRUNCATED"),
        (b"{}", "CBOR_TRUNCATED"),
        (after(first())[:100], "CBOR_TRUNCATED"),
        (after(first(), key=OTHER_KEY), "SIG_FAILED"),
        (after(first(), previous=b"x" * 32), "POLICY_HISTORY_BROKEN"),
        (after(first(), name="other"), "POLICY_OTHER_NAME"),
        (first(expires=NOW + DAY), "POLICY_FORKED"),
        (after(first(), issued_at=NOW - DAY, not_before=NOW - DAY, expires=NOW), "POLICY_EXPIRED"),
        (after(first(), not_before=NOW + DAY), "POLICY_NOT_YET_VALID"),
        (b"\xd2" + bytes(2 << 20), "CBOR_TOO_LARGE"),
    ],
)
def test_a_bad_offer_keeps_the_last_good_one_and_is_said_once(post: Post, offer: bytes, code: str) -> None:
    source = post.open()
    post.offer(offer)
    for _ in range(3):
        assert source.current(NOW) == policy("1")
    assert post.codes == [code]
    assert "prod#1 stays in force" in post.events[0].message
    post.offer(after(first()))
    assert source.current(NOW) == policy("2")
    assert post.codes == [code, "POLICY_ACTIVATED"]


def test_a_downgrade_is_refused(post: Post) -> None:
    post.offer(after(first()))
    source = post.open()
    post.offer(first())
    assert source.in_force(NOW).label == "prod#2"
    assert post.codes == ["POLICY_DOWNGRADE"]


def test_the_same_bad_offer_after_a_good_one_is_said_again(post: Post) -> None:
    source = post.open()
    for offer in (b"", first(), b""):
        post.offer(offer)
        source.current(NOW)
    assert post.codes == ["CBOR_TRUNCATED", "CBOR_TRUNCATED"]


def test_a_missing_file_keeps_the_last_good_one(post: Post) -> None:
    source = post.open()
    post.path.unlink()
    assert source.current(NOW) == policy("1")
    assert post.codes == ["POLICY_UNREADABLE"]
    assert str(post.path) not in str(post.events[0])


def test_a_torn_write_is_taken_when_it_is_whole(post: Post) -> None:
    source = post.open()
    two = after(first())
    for size in range(1, len(two), 40):
        post.offer(two[:size])
        assert source.current(NOW) == policy("1")
    post.offer(two)
    assert source.current(NOW) == policy("2")
    assert set(post.codes) == {"CBOR_TRUNCATED", "POLICY_ACTIVATED"}


def test_a_bundle_that_begins_later_is_taken_when_it_begins(post: Post) -> None:
    source = post.open()
    post.offer(after(first(), not_before=NOW + DAY, expires=END + DAY))
    assert source.current(NOW) == policy("1")
    assert source.current(NOW + DAY - 301) == policy("1")
    assert source.current(NOW + DAY) == policy("2")
    assert post.codes == ["POLICY_NOT_YET_VALID", "POLICY_ACTIVATED"]


def test_the_end_is_held_while_in_use(post: Post) -> None:
    source = post.open()
    assert source.current(END - 1) == policy("1")
    assert refused(source, END) == "POLICY_EXPIRED"
    post.offer(after(first(), issued_at=END, not_before=END, expires=END + DAY))
    assert source.current(END) == policy("2")


def test_the_end_is_held_between_two_readings(post: Post) -> None:
    source = post.open(now=END - 10, poll_s=3600)
    assert source.current(END - 1) == policy("1")
    assert refused(source, END) == "POLICY_EXPIRED"


def test_a_bad_offer_does_not_prolong_what_ended(post: Post) -> None:
    source = post.open()
    post.offer(b"")
    assert refused(source, END) == "POLICY_EXPIRED"


def test_a_clock_put_back_before_the_start_is_refused(post: Post) -> None:
    source = post.open()
    assert refused(source, NOW - 301) == "POLICY_NOT_YET_VALID"


def test_it_reads_no_more_often_than_asked(post: Post) -> None:
    reads = 0

    def read() -> bytes:
        nonlocal reads
        reads += 1
        return first()

    source = BundlePolicy(read, ROOT, NOW, poll_s=5)
    for tick in range(20):
        source.current(NOW + tick)
    assert reads == 1 + 3
    source.current(NOW + 10)  # the clock was put back: reading goes on
    assert reads == 1 + 4


@pytest.mark.parametrize(
    ("offer", "now", "code"),
    [
        (b"\xd2", NOW, "CBOR_TRUNCATED"),
        (first(), END, "POLICY_EXPIRED"),
        (first(), NOW - DAY, "POLICY_NOT_YET_VALID"),
        (first()[:-1] + bytes([first()[-1] ^ 1]), NOW, "SIG_FAILED"),
    ],
)
def test_the_first_bundle_must_be_good(post: Post, offer: bytes, now: int, code: str) -> None:
    post.offer(offer)
    with pytest.raises(Error) as caught:
        post.open(now=now)
    assert caught.value.code == code


def test_many_threads_see_one_policy_after_another(post: Post) -> None:
    source = post.open()
    seen: list[list[int]] = [[] for _ in range(4)]
    stop = threading.Event()

    def watch(mine: list[int]) -> None:
        while not stop.is_set():
            mine.append(int(source.current(NOW).version))

    threads = [threading.Thread(target=watch, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    data = first()
    for _ in range(10):
        data = after(data)
        post.offer(data)
        source.current(NOW)
    stop.set()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in seen)
    assert source.current(NOW) == policy("11")


# ------------------------------------------------------------- a store


def test_a_store_is_followed(tmp_path: Path) -> None:
    post = Post(tmp_path / "store")
    store = PolicyStore(post.path, ROOT)
    one = first()
    two = after(one)
    store.activate(one, NOW)
    source = post.open()
    store.activate(two, NOW)
    assert source.current(NOW) == policy("2")
    store.activate(after(two), NOW)
    assert source.current(NOW) == policy("3")
    (post.path / "active").write_bytes(f"000001 {sha256(one).hex()}\n".encode())
    assert source.current(NOW) == policy("3")
    for path in post.path.glob("00000[23].bundle"):
        path.unlink()  # the whole folder as it was a week ago
    assert source.current(NOW) == policy("3")
    assert post.codes == ["POLICY_ACTIVATED", "POLICY_ACTIVATED", "POLICY_DOWNGRADE"]


# ------------------------------------------------------------- memory


@pytest.fixture
def memory(tmp_path: Path) -> PolicyMemory:
    return PolicyMemory(tmp_path / "state" / "policies.json")


def test_the_next_process_refuses_a_downgrade(post: Post, memory: PolicyMemory) -> None:
    post.offer(after(first()))
    post.open(memory=memory)
    post.offer(first())
    with pytest.raises(AppraisalError, match="POLICY_DOWNGRADE"):
        post.open(memory=memory)
    post.offer(after(first(), name="other"))
    with pytest.raises(AppraisalError, match="POLICY_OTHER_NAME"):
        post.open(memory=memory)


def test_what_was_reloaded_is_remembered(post: Post, memory: PolicyMemory) -> None:
    source = post.open(memory=memory)
    post.offer(after(first()))
    source.current(NOW)
    assert memory.recall(ROOT) == Position("prod", 2, sha256(after(first())))
    assert memory.recall(bytes(32)) is None


def test_another_process_s_memory_counts_while_in_use(post: Post, memory: PolicyMemory) -> None:
    source = post.open(memory=memory)
    two = after(first())
    memory.remember(ROOT, Position("prod", 3, b"x" * 32))
    post.offer(two)
    assert source.current(NOW) == policy("1")
    assert post.codes == ["POLICY_DOWNGRADE"]


def test_memory_never_goes_back(memory: PolicyMemory) -> None:
    memory.remember(ROOT, Position("prod", 5, b"5" * 32))
    memory.remember(ROOT, Position("prod", 4, b"4" * 32))
    memory.remember(bytes(32), Position("dev", 1, b"1" * 32))
    assert memory.recall(ROOT) == Position("prod", 5, b"5" * 32)
    assert memory.recall(bytes(32)) == Position("dev", 1, b"1" * 32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        json.dumps({ROOT.hex(): 1}).encode(),
        json.dumps({ROOT.hex(): {"name": "prod", "serial": 1}}).encode(),
        json.dumps({ROOT.hex(): {"name": "prod", "serial": True, "digest": "00" * 32}}).encode(),
        json.dumps({ROOT.hex(): {"name": "prod", "serial": 1, "digest": "zz"}}).encode(),
        json.dumps({ROOT.hex(): {"name": "prod", "serial": 1, "digest": 1}}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_broken_memory_is_no_empty_one(post: Post, memory: PolicyMemory, content: bytes) -> None:
    memory.path.parent.mkdir()
    memory.path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="POLICY_MEMORY_BROKEN"):
        post.open(memory=memory)


def test_a_memory_that_cannot_be_written_is_said(post: Post, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = post.open(memory=PolicyMemory(tmp_path / "file" / "policies.json"))
    assert source.current(NOW) == policy("1")
    assert post.codes == ["POLICY_MEMORY_UNWRITABLE"]


def test_where_a_user_s_memory_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert default_memory() == Path("state/ephemeralml/policies.json")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "home-folder")
    assert default_memory() == Path("home-folder/.local/state/ephemeralml/policies.json")


# ------------------------------------------------------------- what is given


def test_a_plain_policy_says_that_it_is_unsigned(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(policy("9").to_json())
    source = open_policy(path, policy_root=None, now=NOW)
    assert isinstance(source, StaticPolicy)
    assert source.in_force(NOW + 10**9) == PolicyInForce(policy("9"), "9", signed=False)
    assert source.current(0) == policy_at(path, policy_root=None, at=0) == policy("9")
    assert not is_signed(path)


def test_a_signature_cannot_be_left_off(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(policy().to_json())
    for act in (
        lambda: open_policy(path, policy_root=ROOT, now=NOW),
        lambda: policy_at(path, policy_root=ROOT, at=NOW),
    ):
        with pytest.raises(ConfigurationError, match="POLICY_NOT_SIGNED"):
            act()


def test_a_bundle_without_a_root_is_not_used(post: Post, tmp_path: Path) -> None:
    for path in (post.path, tmp_path):
        with pytest.raises(ConfigurationError, match="NO_POLICY_ROOT"):
            open_policy(path, policy_root=None, now=NOW)


def test_an_archived_bundle_is_good_at_its_own_time(post: Post) -> None:
    assert policy_at(post.path, policy_root=ROOT, at=NOW) == policy("1")
    with pytest.raises(AppraisalError, match="POLICY_EXPIRED"):
        policy_at(post.path, policy_root=ROOT, at=END)


def test_files_that_are_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="POLICY_UNREADABLE"):
        open_policy(tmp_path / "missing", policy_root=None, now=NOW)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(MalformedError, match="BAD_POLICY"):
        open_policy(tmp_path / "empty", policy_root=None, now=NOW)
