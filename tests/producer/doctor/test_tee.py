"""``doctor``'s look at TEEs, the clock and the hosts of collateral; nothing here asks the network."""

from __future__ import annotations

import json
import sys
from email.utils import formatdate
from pathlib import Path
from unittest.mock import patch

import pytest

from ephemeralml.attestation.attest.detect import DEVICES, GPU
from ephemeralml.attestation.fetch.http import Fetched
from ephemeralml.cli import main
from ephemeralml.producer.cli.doctor import tee
from ephemeralml.producer.cli.doctor.finding import Finding
from ephemeralml.producer.cli.doctor.tee import RTC, clock, devices, hosts, online
from ephemeralml.wire.errors import FetchError

NOW = 1_800_000_000.0
ADDRESSES = {"HOST_A": "https://a.example/x", "HOST_B": "https://b.example", "HOST_C": "https://c.example"}


def place(root: Path, path: str, text: str = "") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_machine_without_devices_has_no_problem(tmp_path: Path) -> None:
    found = list(devices(str(tmp_path)))
    assert [finding.code for finding in found] == [
        "DEVICE_NITRO",
        "DEVICE_CONFIDENTIAL_SPACE",
        "DEVICE_TDX",
        "DEVICE_NVIDIA",
    ]
    assert {finding.verdict for finding in found} == {"ok"}
    assert all(finding.seen.startswith("not here") for finding in found)


def test_devices_that_are_here_are_named_and_a_module_that_does_not_answer_is_a_problem(
    tmp_path: Path,
) -> None:
    for device in (*DEVICES, GPU):
        place(tmp_path, device.path)
    found = {finding.code: finding for finding in devices(str(tmp_path))}
    assert found["DEVICE_NITRO"].verdict == "problem"
    assert found["DEVICE_NITRO"].fix
    assert all(found[code].seen.startswith("here") for code in found)


@pytest.mark.parametrize(
    ("now", "rtc", "verdict"),
    [
        (0.0, None, "problem"),
        (1_700_000_000.0, "1700000000", "problem"),
        (NOW, None, "ok"),
        (NOW, "1800000000\n", "ok"),
        (NOW, "1799999701", "ok"),
        (NOW, "1799999699", "warning"),
        (NOW, "1800000301", "warning"),
        (NOW, "noise", "ok"),
    ],
)
def test_the_clock_is_compared_with_the_hardware_clock(
    tmp_path: Path, now: float, rtc: str | None, verdict: str
) -> None:
    if rtc is not None:
        place(tmp_path, RTC, rtc)
    (found,) = clock(now, str(tmp_path))
    assert (found.code, found.verdict) == ("CLOCK", verdict)
    assert bool(found.fix) == (verdict != "ok")


def answering(*apart: float | None) -> tee.Fetch:
    """Hosts whose clocks differ from ours by so many seconds; None is a host that does not answer."""
    dates = dict(zip(ADDRESSES.values(), apart, strict=True))

    def ask(url: str) -> Fetched:
        seconds = dates[url]
        if seconds is None:
            raise FetchError("FETCH_FAILED")
        return Fetched(404, {"date": formatdate(NOW - seconds, usegmt=True)}, b"")

    return ask


@pytest.mark.parametrize(
    ("apart", "verdict"),
    [
        ((0, 1, -1), "ok"),
        ((0, 5000, 0), "ok"),
        ((5000, 5000, 0), "problem"),
        ((-5000, -4000, -6000), "problem"),
        ((None, 0, None), "ok"),
        ((None, None, None), "warning"),
    ],
)
def test_the_clock_is_compared_with_the_middle_host(apart: tuple[float | None, ...], verdict: str) -> None:
    *reached, compared = online(NOW, ask=answering(*apart), addresses=ADDRESSES)
    assert (compared.code, compared.verdict) == ("CLOCK_ONLINE", verdict)
    assert [finding.verdict for finding in reached] == ["warning" if one is None else "ok" for one in apart]
    assert all(finding.fix for finding in reached if finding.verdict == "warning")


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT", "9" * 400])
def test_a_date_that_is_none_is_left_out(date: str) -> None:
    *_, compared = online(
        NOW, ask=lambda _: Fetched(200, {"date": date}, b""), addresses={"HOST_A": "https://a"}
    )
    assert compared.verdict == "warning"


def test_hosts_are_asked_over_https_only() -> None:
    assert all(url.startswith("https://") for url in hosts().values())


def test_the_command_asks_hosts_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def ask(now: float) -> list[Finding]:
        asked.append(now)
        return []

    monkeypatch.setattr("ephemeralml.producer.cli.doctor.command.online", ask)
    codes = []
    for more in ([], ["--online"]):
        words = ["ephemeralml", "doctor", "--json", "--state-dir", str(tmp_path), *more]
        with patch.object(sys, "argv", words), pytest.raises(SystemExit) as ended:
            main()
        codes.append(ended.value.code)
        found = {finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]}
        assert {"PYTHON", "CLOCK", "DEVICE_NITRO", "DEVICE_NVIDIA", "BROKER"} <= found
    assert len(asked) == 1
    assert codes[0] == codes[1]
