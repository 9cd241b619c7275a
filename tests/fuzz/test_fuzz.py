"""Every target briefly, and the fuzzer itself: it must find what is there to be found."""

from __future__ import annotations

import os
import signal
import time
from itertools import islice
from pathlib import Path

import pytest

from ephemeralml.wire.errors import Error, MalformedError

from . import measure
from . import run as command
from .measure import MAX_INPUT_S, MAX_PEAK_BYTES, inputs, run
from .mutate import MAX_BYTES
from .target import Target
from .targets import ROOT, targets

TARGETS = targets()
COUNT = 300


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_meets_nothing_foreign(name: str) -> None:
    """Longer runs: ``python -m tests.fuzz.run``."""
    tally = run(TARGETS[name], count=COUNT)
    assert tally.finding is None, tally.finding[0]
    assert tally.inputs == COUNT
    assert tally.slowest_s < MAX_INPUT_S
    assert tally.peak_bytes < MAX_PEAK_BYTES
    assert tally.refused.total() > COUNT // 4, "nearly everything is accepted: the target checks nothing"


@pytest.mark.parametrize("name", TARGETS)
def test_a_targets_seeds_lead_past_the_first_check(name: str) -> None:
    """Some seed is accepted, or refused by something else than the first parser of noise."""
    target = TARGETS[name]

    def verdict(data: bytes) -> str:
        try:
            target.act(data)
        except Error as error:
            return error.code
        return "accepted"

    noise = {verdict(bytes(reversed(range(256)))), verdict(b"")}
    assert {verdict(seed) for seed in target.seeds()} - noise


def test_every_platform_with_a_verifier_is_fuzzed() -> None:
    verifiers = {path.parent.name for path in (ROOT.parent / "attestation").glob("*/verify.py")}
    assert "nitro" in verifiers
    # The simulated TEE speaks Nitro's format, and shares its parser and verifier.
    assert {name.replace("_", "-") for name in verifiers - {"simulated"}} <= TARGETS.keys()


def test_inputs_are_the_same_for_the_same_seed_and_bounded() -> None:
    target = TARGETS["policy"]
    first, again, other = (list(islice(inputs(target, seed), 60)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) > 50
    assert all(len(data) <= MAX_BYTES for data in first)


# ----------------------------------------------------------------- it finds what is there


def _of(act: object) -> Target:
    return Target("bad", lambda: [b"seed"], act)  # type: ignore[arg-type]


def _foreign(data: bytes) -> None:
    if b"seed" not in data:
        raise KeyError("secret")


def _forged(data: bytes) -> None:
    assert data == b"seed"


def _hungry(_: bytes) -> None:
    bytearray(MAX_PEAK_BYTES + 1)


def _panics(_: bytes) -> None:
    raise BaseException("a panic of a library in Rust")


def _nameless(_: bytes) -> None:
    raise MalformedError("not a code")


def _chatty(_: bytes) -> None:
    raise MalformedError("CODE", "one line\nand another")


@pytest.mark.parametrize("act", [_foreign, _forged, _hungry, _panics, _nameless, _chatty])
def test_what_is_wrong_is_found(act: object) -> None:
    assert run(_of(act), count=500).finding is not None


def test_a_slow_input_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MAX_INPUT_S", -1.0)
    found = run(_of(lambda _: None), count=5).finding
    assert found is not None
    assert "of CPU" in found[0]


def test_refusals_are_counted_by_code() -> None:
    def act(data: bytes) -> None:
        if data != b"seed":
            raise MalformedError("BAD_THING")

    tally = run(_of(act), count=50)
    assert tally.refused["BAD_THING"] + tally.accepted == 50
    assert tally.finding is None


def test_time_ends_a_run() -> None:
    assert run(_of(lambda _: time.sleep(0.01)), count=10**9, seconds=0.1).inputs < 100


# ----------------------------------------------------------------- the command


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"bad": _of(_foreign), "good": _of(lambda _: None), "dies": _of(_dies), "hangs": _of(_hangs)}
    monkeypatch.setattr(command, "targets", lambda: known)
    monkeypatch.setattr(command, "MAX_INPUT_S", 0.05)


def _dies(_: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hangs(_: bytes) -> None:
    while True:
        pass


@pytest.mark.usefixtures("_here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(("name", "words"), [("bad", "KeyError"), ("dies", "SIGKILL"), ("hangs", "s of CPU")])
def test_the_command_keeps_the_input_of_a_finding(
    name: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--target", name, "--count", "500"]) == 2
    said = capfd.readouterr().out
    assert words in said
    (kept,) = Path("fuzz-findings").iterdir()
    assert kept.name in said
    if name == "bad":
        assert command.main(["--target", name, "--replay", str(kept)]) == 2


@pytest.mark.usefixtures("_here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_command_ends_well_and_refuses_what_it_does_not_know() -> None:
    assert command.main(["--target", "good", "--count", "50"]) == 0
    assert command.main(["--target", "unheard-of"]) == 1
    assert command.main(["--list"]) == 0
