"""The attester against an emulated TSM interface: races, failures, and answers that are wrong."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ephemeralml.attestation.attest import Attester
from ephemeralml.attestation.attest.detect import local_attester
from ephemeralml.attestation.attest.tdx import TdxAttester, report_data_for
from ephemeralml.attestation.attest.tsm import MAX_REPORT_BYTES, TsmFiles, tsm_report
from ephemeralml.attestation.tdx import TdxDetails
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError

from .forge import NOW, Forge
from .tsm import EmulatedTsm, quote_of

KEY, DIGEST = b"k" * 32, b"d" * 32


def code_of(files: TsmFiles) -> str:
    with pytest.raises(Error) as caught:
        tsm_report(bytes(64), files, pause=lambda _: None)
    return caught.value.code


def test_a_quote_vouches_for_key_and_digest(tmp_path: Path) -> None:
    kernel = EmulatedTsm(tmp_path)
    attester: Attester = TdxAttester(kernel)
    found = verify(attester.attest(public_key=KEY, user_data=DIGEST), Forge().endorsements(), NOW)
    details = TdxDetails.of(found)
    assert details.binds_key(KEY)
    assert details.binds_announcement(DIGEST)
    assert details.report.report_data == sha256(KEY) + DIGEST
    assert attester.measurements() == found.measurements
    assert list(tmp_path.iterdir()) == []
    assert len(set(kernel.made)) == 2


def test_a_quote_answers_a_challenge_where_there_is_no_digest(tmp_path: Path) -> None:
    data = TdxAttester(EmulatedTsm(tmp_path)).attest(public_key=KEY, nonce=b"challenge")
    details = TdxDetails.of(verify(data, Forge().endorsements(), NOW))
    assert details.binds_key(KEY)
    assert details.binds_nonce(b"challenge")
    assert not details.binds_nonce(b"another")
    assert not details.binds_announcement(sha256(b"challenge"))


def test_what_is_not_given_is_zeros() -> None:
    assert report_data_for(None, None) == bytes(64)
    assert report_data_for(None, DIGEST) == bytes(32) + DIGEST
    assert report_data_for(KEY, None) == sha256(KEY) + bytes(32)


@pytest.mark.parametrize(
    "values",
    [
        {"user_data": b"short"},
        {"user_data": bytes(33)},
        {"user_data": DIGEST, "nonce": b"n"},
        {"nonce": b""},
        {"nonce": bytes(1_025)},
    ],
)
def test_what_has_no_room_is_refused(tmp_path: Path, values: dict[str, bytes]) -> None:
    kernel = EmulatedTsm(tmp_path)
    with pytest.raises(MalformedError) as caught:
        TdxAttester(kernel).attest(
            public_key=KEY, user_data=values.get("user_data"), nonce=values.get("nonce")
        )
    assert caught.value.code == "OUT_OF_BOUNDS"
    assert kernel.made == []


@pytest.mark.parametrize("operation", ["make", "write", "read provider", "read outblob", "read generation"])
@pytest.mark.parametrize("number", [errno.EINTR, errno.EBUSY, errno.EAGAIN])
def test_it_asks_again_when_the_kernel_is_busy(tmp_path: Path, operation: str, number: int) -> None:
    kernel = EmulatedTsm(tmp_path, failures={operation: [number, number]})
    pauses: list[float] = []
    assert tsm_report(bytes(64), kernel, pause=pauses.append)
    assert pauses == [0.05, 0.1]
    assert list(tmp_path.iterdir()) == []


def test_it_does_not_ask_for_ever(tmp_path: Path) -> None:
    kernel = EmulatedTsm(tmp_path, failures={"read outblob": [errno.EBUSY] * 8})
    with pytest.raises(ConfigurationError) as caught:
        tsm_report(bytes(64), kernel, pause=lambda _: None)
    assert (caught.value.code, caught.value.retriable) == ("TSM_BUSY", True)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_somebody_else_asked_for_is_not_taken(tmp_path: Path) -> None:
    kernel = EmulatedTsm(tmp_path, meddle=3)
    asked = sha256(KEY) + DIGEST
    found = tsm_report(asked, kernel, pause=lambda _: None)
    assert found[48 + 520 : 48 + 584] == asked
    assert len(kernel.made) == 4
    assert code_of(EmulatedTsm(tmp_path, meddle=99)) == "TSM_BUSY"


@pytest.mark.parametrize(
    ("operation", "number", "code"),
    [
        ("make", errno.ENOENT, "NO_TSM"),
        ("make", errno.EACCES, "TSM_DENIED"),
        ("make", errno.EPERM, "TSM_DENIED"),
        ("write", errno.EACCES, "TSM_DENIED"),
        ("make", errno.ENOSPC, "TSM_FAILED"),
        ("write", errno.EINVAL, "TSM_FAILED"),
        ("read outblob", errno.EIO, "TSM_FAILED"),
        ("read outblob", errno.ENXIO, "TSM_FAILED"),
        ("read provider", errno.ENOENT, "NO_TSM"),
    ],
)
def test_failures_say_what_to_do(tmp_path: Path, operation: str, number: int, code: str) -> None:
    assert code_of(EmulatedTsm(tmp_path, failures={operation: [number]})) == code
    assert list(tmp_path.iterdir()) == []


def test_without_the_interface_it_is_said_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TdxAttester(TsmFiles(tmp_path / "none")).attest(public_key=KEY)
    assert caught.value.code == "NO_TSM"
    assert "tdx_guest" in caught.value.message
    assert str(tmp_path) not in str(caught.value)


def test_a_plain_folder_is_no_interface(tmp_path: Path) -> None:
    """Nothing but the kernel puts files into a new folder."""
    assert code_of(TsmFiles(tmp_path)) == "NO_TSM"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provider", [b"sev_guest\n", b"", b"tdx_guest2\n"])
def test_another_kind_of_guest_is_refused(tmp_path: Path, provider: bytes) -> None:
    assert code_of(EmulatedTsm(tmp_path, provider=provider)) == "NO_TDX_GUEST"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [b"", bytes(MAX_REPORT_BYTES + 1)])
def test_reports_of_impossible_length_are_refused(tmp_path: Path, answer: bytes) -> None:
    assert code_of(EmulatedTsm(tmp_path, answer=lambda _: answer)) == "TSM_BAD_ANSWER"


@pytest.mark.parametrize("count", [b"", b"many\n", b"-1\n", b"9" * 21])
def test_a_count_that_is_none_is_refused(tmp_path: Path, count: bytes) -> None:
    class Miscounting(EmulatedTsm):
        def read(self, name: str, attribute: str, limit: int) -> bytes:
            return count if attribute == "generation" else super().read(name, attribute, limit)

    assert code_of(Miscounting(tmp_path)) == "TSM_BAD_ANSWER"
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_stops_half_way_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.write", lambda _, data: len(data) - 1)
    assert code_of(EmulatedTsm(tmp_path)) == "TSM_FAILED"


@pytest.mark.parametrize("right_form", [False, True])
def test_answers_are_read_before_they_are_handed_out(tmp_path: Path, right_form: bool) -> None:
    answer = quote_of(bytes(64)) if right_form else b"no quote"
    with pytest.raises(MalformedError) as caught:
        TdxAttester(EmulatedTsm(tmp_path, answer=lambda _: answer)).attest(public_key=KEY)
    assert caught.value.code == ("TSM_WRONG_ANSWER" if right_form else "TSM_BAD_ANSWER")


def test_a_folder_that_cannot_be_removed_does_not_lose_the_report(tmp_path: Path) -> None:
    assert tsm_report(bytes(64), EmulatedTsm(tmp_path, failures={"remove": [errno.EBUSY]}))


def test_the_attester_is_found_by_its_name() -> None:
    assert isinstance(local_attester("tdx"), TdxAttester)
