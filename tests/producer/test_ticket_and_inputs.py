"""Tickets survive a kill at any byte; inputs are refused whole, by line, without their contents."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ephemeralml.producer.inputs import read_inputs
from ephemeralml.producer.outputs import result_line
from ephemeralml.producer.ticket import JobRecord, Ticket, TicketHead
from ephemeralml.producer.trust import VerifiedFleet
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError
from ephemeralml.wire.pack import SealedReply

SECRET = "a secret that no message may show"


def head() -> TicketHead:
    return TicketHead("minilm", "reply." + "0" * 32, "x25519", "11" * 32, "m", "22" * 32, 2**31, "{}")


def record(number: int) -> JobRecord:
    return JobRecord(f"{number:032x}", str(number), "00" * 32, "00" * 32, "00" * 16, "00" * 32)


def filled(path: Path) -> None:
    with Ticket.create(path, head()) as ticket:
        ticket.plan([record(n) for n in range(4)], [b"pack one", b"pack two"])
        ticket.submitted("0", 1234.5)
        ticket.received("minilm", [SealedReply(bytes.fromhex(record(1).job_id), b"outcome")])


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "t"
    filled(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Ticket.load(path) as ticket:
        assert ticket.head == head()
        assert ticket.pending_packs == {"1": b"pack two"}
        assert ticket.packs == {"0": b"pack one", "1": b"pack two"}
        assert ticket.last_submitted == 1234.5
        assert len(ticket.missing) == 3
        assert ticket.received("minilm", [SealedReply(bytes(16), b"x"), SealedReply(b"?" * 16, b"x")]) == [
            SealedReply(bytes(16), b"x")
        ]


def test_second_plan_does_not_reuse_names(tmp_path: Path) -> None:
    path = tmp_path / "t"
    filled(path)
    with Ticket.load(path) as ticket:
        ticket.plan([record(9)], [b"pack three"])
        assert ticket.pending_packs == {"1": b"pack two", "2": b"pack three"}


def test_only_one_process_works_on_a_ticket(tmp_path: Path) -> None:
    path = tmp_path / "t"
    filled(path)
    with Ticket.load(path), pytest.raises(ConfigurationError, match="TICKET_IN_USE"):
        Ticket.load(path)
    with pytest.raises(ConfigurationError, match="TICKET_EXISTS"):
        Ticket.create(path, head())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_kill_at_any_byte_loses_no_whole_line(tmp_path: Path, share: float) -> None:
    path = tmp_path / os.urandom(4).hex()
    filled(path)
    whole = path.read_bytes()
    cut = int(share * len(whole))
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    if lines == 0:
        with pytest.raises(ConfigurationError, match="TICKET_DAMAGED"):
            Ticket.load(path)
        return
    with Ticket.load(path) as ticket:
        assert len(ticket.jobs) == min(4, lines - 1)
        ticket.plan([record(8)], [])
    with Ticket.load(path) as again:
        assert record(8).job_id in again.jobs


def test_damage_is_said_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for text in ("", "[]\n", "{}\n", "null\n", '{"head": {}}\n', "\xff\n", json.dumps({"head": 1}) + "\n"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigurationError, match="TICKET_DAMAGED"):
            Ticket.load(path)


def test_plain_text_and_json_lines(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("one\n\n  two  \r\n")
    assert [(item.custom_id, item.texts) for item in read_inputs(plain)] == [("1", ("one",)), ("3", ("two",))]
    lines.write_text('"x"\n{"id": "b", "inputs": ["y", "z"], "parameters": {"dimensions": 64}}\n')
    items = read_inputs(lines)
    assert [(item.custom_id, item.texts) for item in items] == [("1", ("x",)), ("b", ("y", "z"))]
    assert items[1].parameters == {"dimensions": 64}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        "[]",
        "null",
        '{"text": 3}',
        '{"text": ""}',
        '{"text": "@", "inputs": ["b"]}',
        '{"inputs": []}',
        '{"inputs": ["@", 3]}',
        '{"text": "@", "id": 3}',
        '{"text": "@", "id": ""}',
        '{"text": "@", "other": 1}',
        '{"text": "@", "parameters": 3}',
        '{"text": "@", "parameters": {"x": null}}',
        '{"text": "@", "parameters": {"x": {"y": 1}}}',
        '{"text": "@", "parameters": {"x": [[1]]}}',
        '{"text": "@", "parameters": {"x": 99999999999999999999999}}',
        '{"text": "\\ud800"}',
    ],
)
def test_lines_that_are_refused_without_showing_them(tmp_path: Path, line: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('"good"\n' + line.replace("@", SECRET) + "\n")
    with pytest.raises(MalformedError) as caught:
        read_inputs(path)
    assert "line 2" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_fleet_is_made_by_trust_alone() -> None:
    with pytest.raises(TypeError, match=r"Trust\.fleet"):
        VerifiedFleet("p", None, 1, None, {}, (), None, object())  # type: ignore[arg-type]


def test_secrets_do_not_show(tmp_path: Path) -> None:
    assert "11" * 32 not in repr(head())
    assert issubclass(ConfigurationError, Error)
    assert callable(result_line)
