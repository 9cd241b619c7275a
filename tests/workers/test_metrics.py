"""A worker's numbers: closed sets of names, times in buckets only, and no library before it is needed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ephemeralml.producer.inputs import InputItem
from ephemeralml.receipts.outcome import STATUSES
from ephemeralml.wire.errors import ConfigurationError, DeliveryError
from ephemeralml.wire.header import JobHeader
from ephemeralml.wire.pack import SealedJob, decode_jobs, encode_jobs, encode_message
from ephemeralml.workers.job_task import JobTask
from ephemeralml.workers.meter import CODES, ENDS, OTHER, STAGES, code_name
from ephemeralml.workers.metrics import (
    FRESH_SECONDS,
    JOBS,
    PREFIX,
    SECONDS,
    Exposition,
    Histogram,
    Tally,
    exposition,
)

from ..way.harness import Stand

ROOT = Path(__file__).parents[2]
#: Series that a tally can have at most: whatever happens, and however often.
MOST = 2 + 3 + len(CODES) + len(STATUSES) * len(CODES) + 3 + len(STAGES) * (len(SECONDS) + 3) + len(JOBS) + 3


def series(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return all samples of a page by name and labels."""
    families = text_string_to_metric_families(page.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(page: bytes, name: str, **labels: str) -> float:
    return series(page)[PREFIX + name, tuple(sorted(labels.items()))]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.close()


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.text(max_size=40), st.binary(max_size=8))))
def test_whatever_codes_come_names_stay_those_of_the_closed_set(
    outcomes: list[tuple[str, str, bytes]],
) -> None:
    tally = Tally()
    for status, code, job_id in outcomes:
        tally.outcome(job_id, status, code)  # type: ignore[arg-type]
        tally.dead_letter(code)
    found = series(exposition(tally, ()))
    assert {dict(labels)["code"] for _, labels in found if "code" in dict(labels)} <= CODES
    assert len(found) <= MOST


def test_every_code_that_a_job_can_end_with_has_a_name() -> None:
    """Read from the source: a new code must be named in workers/meter.py, or it counts as OTHER."""
    found = set()
    for path in (ROOT / "workers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                place = {"EngineError": 0, "Refusal": 1}.get(node.func.id)
                if place is not None and len(node.args) > place:
                    code = node.args[place]
                    found |= {code.value} if isinstance(code, ast.Constant) else set()
    assert len(found) > 10
    assert found <= CODES
    assert code_name("A_CODE_OF_A_HOST_S") == OTHER


def hostile(stand: Stand, pack: bytes) -> bytes:
    """Return a pack whose headers a host has written: other pools, reply queues and batches."""
    pool, jobs = decode_jobs(pack)
    crafted = []
    for index, job in enumerate(jobs):
        header = JobHeader.decode(job.header)
        other = replace(header, pool=f"tenant-{index}", batch_id=os.urandom(16), index=index)
        crafted.append(SealedJob(other.encode(), job.sealed))
    return encode_jobs(pool, crafted)


def test_a_host_s_headers_make_no_series(stand: Stand) -> None:
    tally = Tally()
    pipeline = stand.worker()
    pipeline.meter = tally
    ticket = stand.plan(*(InputItem(str(n), (f"text {n}",)) for n in range(40)), pack_jobs=20)
    task = JobTask(pipeline, stand.blobs, lambda *_: None, 1 << 20)
    packs = stand.packs(ticket)
    task(encode_message(packs[0]))
    before = series(exposition(tally, ()))
    for pack in packs:
        task(encode_message(hostile(stand, pack)), 2)
    task(b"junk")
    page = exposition(tally, ())
    grown = series(page).keys() - before.keys()
    assert {name for name, _ in grown} <= {PREFIX + "outcomes_total", PREFIX + "dead_letters_total"}
    text = page.decode()
    assert "tenant" not in text
    assert not any(job_id in text for job_id in ticket.jobs)
    assert value(page, "outcomes_total", status="rejected", code="WRONG_POOL") == 40
    assert value(page, "outcomes_total", status="succeeded", code="") == 20
    assert value(page, "messages_taken_total", delivery="first") == 2
    assert value(page, "messages_taken_total", delivery="again") == 2
    assert value(page, "messages_ended_total", end="answered") == 3
    assert value(page, "messages_ended_total", end="dead") == 1
    assert value(page, "pack_jobs_count") == 1 + 40
    assert value(page, "messages_in_work") == value(page, "jobs_in_work") == 0


def test_a_message_that_goes_back_is_counted_so(stand: Stand) -> None:
    tally, pipeline = Tally(), stand.worker()
    pipeline.meter = tally
    (pack,) = stand.packs(stand.plan(InputItem("1", ("text",))))

    def refuse(*_: object) -> None:
        task.stopping.set()
        raise DeliveryError("BROKER_UNREACHABLE")

    task = JobTask(pipeline, stand.blobs, refuse, 1 << 20)
    with pytest.raises(DeliveryError):
        task(encode_message(pack))
    page = exposition(tally, ())
    assert value(page, "messages_ended_total", end="returned") == 1
    assert value(page, "publish_failures_total") == 1
    assert value(page, "messages_in_work") == 0


@given(st.lists(st.floats(0, 400), max_size=30), st.data())
def test_times_of_one_bucket_cannot_be_told_apart(times: list[float], data: st.DataObject) -> None:
    """Neither from the buckets nor from the sum: times of a bucket are as good as its upper bound."""
    one, other = Histogram(SECONDS), Histogram(SECONDS)
    for seconds in times:
        one.observe(seconds)
        upper = next((bound for bound in SECONDS if seconds <= bound), 401.0)
        lower = max((bound for bound in SECONDS if bound < seconds), default=0.0)
        same = data.draw(st.floats(lower, upper, exclude_min=lower > 0))
        other.observe(same)
    assert one.buckets() == other.buckets()
    assert one.rough_sum() == other.rough_sum()


def test_buckets_are_wide() -> None:
    assert all(later / earlier >= 4 for earlier, later in pairwise(SECONDS))


def test_a_page_is_not_made_anew_for_every_reader() -> None:
    now, tally = [0.0], Tally()
    page = Exposition(tally, monotonic=lambda: now[0])
    first = page.page()
    tally.message(1)
    now[0] = FRESH_SECONDS - 0.1
    assert page.page() is first
    now[0] = FRESH_SECONDS
    assert value(page.page(), "messages_in_work") == 1


def test_all_ends_are_there_before_they_happen() -> None:
    page = exposition(Tally(), ())
    assert all(value(page, "messages_ended_total", end=end) == 0 for end in ENDS)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match="EXTRA_MISSING"):
        exposition(Tally(), ())


def test_a_worker_imports_no_library_for_it() -> None:
    code = "import sys, ephemeralml.workers.app as a; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "ephemeralml.workers.metrics" in loaded
    late = {f"ephemeralml.workers.{name}" for name in ("health", "lookout", "watchdog")}
    assert not loaded & {"prometheus_client", "http.server", "ephemeralml.broker_config.events", *late}


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    source = "".join((ROOT / "workers" / name).read_text() for name in ("metrics.py", "instruments.py"))
    named = {word for word in text.replace("`", " ").split() if word.startswith(PREFIX)}
    shown = {name.split("{")[0].removesuffix("_total").removesuffix("_sum") for name in named}
    for name in shown:
        assert f'"{name.removeprefix(PREFIX)}"' in source, name
    for family in text_string_to_metric_families(exposition(Tally(), ()).decode()):
        assert family.name in shown, family.name


def test_alert_rules_name_metrics_that_exist() -> None:
    documented = (ROOT / "docs" / "observability.md").read_text()
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    named = {name.removesuffix("_bucket") for name in re.findall(rf"{PREFIX}[a-z_]+", rules)}
    assert len(named) > 10
    assert [name for name in sorted(named) if f"`{name}" not in documented] == []
    alerts = re.findall(r"^      - alert: (Ephemeralml[A-Za-z]+)$", rules, re.MULTILINE)
    assert (
        len(alerts)
        == len(set(alerts))
        == rules.count("        expr: ")
        == rules.count("annotations: {summary: ")
    )
