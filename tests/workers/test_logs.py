"""Logs hold fixed words, codes, counts and ids: whatever happens, and whoever logs."""

from __future__ import annotations

import ast
import base64
import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.producer.inputs import InputItem
from ephemeralml.wire.errors import DeliveryError, EngineError
from ephemeralml.wire.job import Job, Output
from ephemeralml.wire.pack import PackReference, encode_message
from ephemeralml.workers.job_task import JobTask
from ephemeralml.workers.logs import (
    FIELDS,
    LIBRARIES,
    MEANINGS,
    Form,
    SafeFormatter,
    Spoken,
    configure_logging,
    event,
)
from ephemeralml.workers.metrics import Tally, exposition

from ..way.harness import Stand, run

ROOT = Path(__file__).parents[2]
CANARY = "CANARY-93b2 of a person's text"
HEAD = {"time", "level", "logger", "event"}


def traces(text: str) -> list[str]:
    """Return the ways in which a text may show up."""
    raw = text.encode()
    encoded = [base64.b64encode(b"x" * shift + raw).decode()[4:-4] for shift in range(3)]
    return [
        text,
        raw.hex(),
        raw.hex().upper(),
        repr(raw),
        *encoded,
        text.encode("utf-16-le").hex(),
        text[::-1],
    ]


def held(text: str) -> list[str]:
    """Return which traces of the canary a text holds."""
    return [trace for trace in traces(CANARY) if trace in text]


@contextmanager
def captured(form: Form = "json") -> Iterator[io.StringIO]:
    """Configure logging as a worker does, into a buffer; everything else as it was afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("ephemeralml")
    before = root.handlers[:], root.level, ours.level
    hooks = threading.excepthook, sys.excepthook, sys.unraisablehook
    stream = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            configure_logging(form, stream)
            yield stream
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level, ours.level = before
        threading.excepthook, sys.excepthook, sys.unraisablehook = hooks


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object_of_known_fields() -> None:
    with captured() as stream:
        event(logging.getLogger("ephemeralml.worker"), logging.INFO, "answered", jobs=3, message="ab" * 32)
    (line,) = lines(stream)
    assert line.keys() == HEAD | {"jobs", "message"}
    assert (line["level"], line["logger"], line["event"]) == ("info", "ephemeralml.worker", "answered")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["time"]))


def test_text_form() -> None:
    with captured("text") as stream:
        event(
            logging.getLogger("ephemeralml.worker"), logging.WARNING, "kept", code="SOME_CODE", deliveries=2
        )
    assert stream.getvalue().endswith("Z WARNING ephemeralml.worker kept code=SOME_CODE deliveries=2\n")


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "prompt", "text", "exc_info"]),
        st.one_of(
            st.text(), st.integers(), st.floats(allow_nan=False), st.just(CANARY), st.binary(), st.none()
        ),
    )
)
def test_what_does_not_fit_its_field_is_left_out(fields: dict[str, object]) -> None:
    record = logging.LogRecord("ephemeralml.x", logging.INFO, "", 0, "words", (), None)
    record.ephemeralml_fields = fields
    line = json.loads(SafeFormatter("json").format(record))
    assert line.keys() <= HEAD | FIELDS.keys()
    assert not held(json.dumps(line))
    assert "\n" not in SafeFormatter("text").format(record)


@pytest.mark.parametrize("name", ["celery.worker.consumer", "kombu", "redis", "evil\nname", CANARY, "root"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_library_s_words_are_never_shown(name: str, form: Form) -> None:
    with captured(form) as stream:
        logger = logging.getLogger(name)
        logger.error(CANARY)
        logger.error("%s %r", CANARY, CANARY.encode())
        logger.error("Task %(name)s[%(id)s] raised", {"name": CANARY, "id": CANARY})
        try:
            raise ValueError(CANARY)
        except ValueError:
            logger.exception("Error in timer: %r", CANARY)
        logger.critical("broken %d", CANARY)
        logger.warning(object())
    text = stream.getvalue()
    assert len(text.splitlines()) == 6
    assert not held(text)
    assert "ValueError" in text
    assert name.partition(".")[0] in LIBRARIES or "other" in text


def test_known_words_of_celery_are_still_its_words() -> None:
    """What a line means is told by the beginning of Celery's and kombu's own templates."""
    folder = Path(sys.modules["celery"].__path__[0]).parent
    sources = "".join(
        path.read_text() for name in ("celery", "kombu") for path in (folder / name).rglob("*.py")
    )
    missing = [start for start, _ in MEANINGS if start.split("\n")[0] not in sources]
    assert missing == []


def test_our_own_templates_are_constants() -> None:
    """A formatted string would put contents where the formatter expects fixed words."""
    calls = 0
    for folder in ("workers", "broker_config"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "logs.py":
                continue  # what makes lines for people into events has words of a closed set
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and node.args):
                    continue
                name = ast.unparse(node.func)
                place = 2 if name == "event" else 0
                if name == "event" or re.fullmatch(r"LOG\.(debug|info|warning|error|critical)", name):
                    calls += 1
                    assert isinstance(node.args[place], ast.Constant), f"{path.name}:{node.lineno}"
                assert name != "LOG.exception", f"{path.name}:{node.lineno}"
    assert calls > 10


def test_our_arguments_are_numbers_and_codes() -> None:
    with captured() as stream:
        log = logging.getLogger("ephemeralml.worker")
        log.warning("given up: %s after %d", "SOME_CODE", 3)
        log.warning("given up: %s", "UNEXPECTED:ValueError")
        log.warning("given up: %s", CANARY)
        log.warning("given up: %d", CANARY)
    assert [line["event"] for line in lines(stream)] == [
        "given up: SOME_CODE after 3",
        "given up: UNEXPECTED:ValueError",
        "given up: -",
        "given up: %d",
    ]


def test_uncaught_faults_and_warnings_are_named_only() -> None:
    def fail() -> None:
        raise ValueError(CANARY)

    with captured() as stream:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError(CANARY), None)
        warnings.warn(CANARY, UserWarning, stacklevel=1)
    assert not held(stream.getvalue())
    assert [line.get("error") for line in lines(stream)] == ["ValueError", "ValueError", None]


@pytest.mark.parametrize(
    ("line", "what", "code"),
    [
        ("ready: pool x worker y | attest 0.1s", "ready", None),
        ("keys: KMS_UNAVAILABLE: the KMS cannot be reached; tried again", "keys", "KMS_UNAVAILABLE"),
        ("error KMS_DENIED: refused; nothing was taken off the queue", "error", "KMS_DENIED"),
        (f"status pages on port 1 {CANARY}", "said", None),
    ],
)
def test_lines_for_people_become_events(line: str, what: str, code: str | None) -> None:
    with captured() as stream:
        Spoken(logging.INFO)(line)
    (found,) = lines(stream)
    assert (found["event"], found.get("code")) == (what, code)
    assert not held(stream.getvalue())


# ------------------------------------------------------------------------------------ canaries


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.close()


def faulty(kind: str) -> object:
    """Return a runner that fails in one way, with the canary in every text it can put it into."""

    def runner(jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
        if kind == "unexpected":
            raise ValueError(CANARY)
        if kind == "engine":
            return [EngineError("ENGINE_BAD_INPUT", CANARY)] * len(jobs)
        if kind == "foreign code":
            return [EngineError("ENGINE_OF_A_PLUGIN", CANARY)] * len(jobs)
        if kind == "library":
            logging.getLogger("tokenizers").error("cannot read %r", CANARY)
            logging.getLogger("celery.app.trace").error("Task %s", CANARY, exc_info=ValueError(CANARY))
        return run(jobs)

    return runner


KINDS = (
    "none",
    "engine",
    "foreign code",
    "unexpected",
    "library",
    "publish",
    "blob",
    "expired",
    "seal",
    "junk",
)


@pytest.mark.parametrize("deliveries", [1, 2, 31])
@pytest.mark.parametrize("kind", KINDS)
def test_no_canary_in_logs_or_metrics(stand: Stand, kind: str, deliveries: int) -> None:
    tally, pipeline = Tally(), stand.worker()
    pipeline.meter, pipeline.runner = tally, faulty(kind)  # type: ignore[assignment]
    ticket = stand.plan(*(InputItem(f"{CANARY}-{n}", (f"{CANARY} {n}",)) for n in range(3)))
    (pack,) = stand.packs(ticket)
    body = encode_message(pack)
    if kind == "blob":
        body = encode_message(PackReference(bytes(32), 7))
    if kind == "junk":
        body = CANARY.encode()
    if kind == "expired":
        stand.now += 10_000

    def publish(*_: object) -> None:
        if kind == "publish":
            task.stopping.set()
            raise DeliveryError("BROKER_UNREACHABLE", CANARY)

    def seal(_: bytes) -> bool:
        if kind == "seal":
            raise ValueError(CANARY)
        return False

    task = JobTask(pipeline, stand.blobs, publish, 1 << 20, seal=seal)
    with captured() as stream:
        try:
            task(body, deliveries)
        except DeliveryError as error:
            logging.getLogger("ephemeralml.worker").error("returned: %s", error.code)
        page = exposition(tally, ()).decode()
    found = lines(stream)
    assert all(line.keys() <= HEAD | FIELDS.keys() for line in found)
    assert found, "nothing was logged, so nothing was tested"
    assert not held(stream.getvalue())
    assert not held(page)
    if kind == "engine" and deliveries == 1:
        ended = [line for line in found if line["event"] == "a job ended"]
        assert {line["job"] for line in ended} == set(ticket.jobs)
        assert {line["code"] for line in ended} == {"ENGINE_BAD_INPUT"}
