"""Logs that cannot hold contents: fixed words, and fields of a closed set.

A record of ours is its template, which is a constant of the source, and fields that :func:`event`
was given; what is not of :data:`FIELDS` or not of its field's form is left out. Of a library's record
nothing is shown but the library's name, the level, and what it means where we know its template:
libraries print messages, arguments and addresses.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO

Form = Literal["text", "json"]
Value = str | int | float

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,47}(:[A-Za-z]{1,48})?")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,62}")
_TEMPLATE: Final = re.compile(r"[\x20-\x7e]{1,160}")
_ID: Final = re.compile(r"[0-9a-f]{8,64}")

#: The fields of a line beside time, level, logger and event, and what each may hold.
FIELDS: Final[Mapping[str, re.Pattern[str] | type[float]]] = {
    "code": _CODE,
    "count": float,
    "deliveries": float,
    "error": _WORD,
    "job": _ID,
    "jobs": float,
    "library": _WORD,
    "message": _ID,
    "platform": _WORD,
    "pool": re.compile(r"[a-z0-9][a-z0-9-]{0,62}"),
    "seconds": float,
    "status": re.compile(r"succeeded|failed|expired|rejected|cancelled"),
    "worker": _ID,
}
_OURS: Final = "ephemeralml"
#: Libraries that are named; all others are "other".
LIBRARIES: Final = frozenset(
    {"amqp", "asyncio", "boto3", "botocore", "celery", "google", "grpc", "kombu", "py", "redis", "urllib3"}
)
#: Beginnings of what Celery and kombu log (5.7), and what they mean.
MEANINGS: Final[tuple[tuple[str, str], ...]] = (
    ("consumer: Connection to broker lost", "connection to the broker lost"),
    ("%s (%r)", "connection to the broker lost"),
    ("consumer: Cannot connect to", "the broker cannot be reached"),
    ("No hostname was supplied", "the broker cannot be reached"),
    ("Redis BRPOP got no reply", "connection to the broker silent"),
    ("Frequent restarts detected", "the consumer restarts often"),
    ("Task %(name)s[%(id)s] ", "a task ended with an error"),
    ("Task handler raised error", "a task handler failed"),
    ("Received and deleted unknown message", "an unknown message was deleted"),
    ("Received unregistered task", "an unknown task was deleted"),
    ("Couldn't ack", "an acknowledgement was lost"),
    ("Error in timer", "a timer failed"),
    ("Restoring ", "messages are given back"),
)
_EXTRA: Final = "ephemeralml_fields"


def event(logger: logging.Logger, level: int, what: str, **fields: Value) -> None:
    """Log what happened, in constant words, with fields of :data:`FIELDS`."""
    if logger.isEnabledFor(level):
        logger.log(level, what, extra={_EXTRA: fields})


def fitting(name: str, value: object) -> bool:
    """Return whether a value may stand in a field."""
    form = FIELDS.get(name)
    if form is None:
        return False
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    return type(value) in (int, float)


def facts(record: logging.LogRecord) -> dict[str, Value]:
    """Return what a line shows of a record, logger and event first."""
    top = record.name.partition(".")[0]
    if top != _OURS:
        return {"logger": top if top in LIBRARIES else "other", "event": _meaning(record), **_error(record)}
    template = record.msg if isinstance(record.msg, str) else ""
    words = template if _TEMPLATE.fullmatch(template) else "an unnamed event"
    found: dict[str, Value] = {"logger": record.name, "event": _filled(words, record.args)}
    given = getattr(record, _EXTRA, {})
    if isinstance(given, dict):
        found |= {name: value for name, value in sorted(given.items()) if fitting(name, value)}
    return {**found, **_error(record)}


def _filled(words: str, args: object) -> str:
    """Fill a template of ours with what can hold no contents: whole numbers and codes."""
    if not args:
        return words
    values = args if isinstance(args, tuple) else (args,)
    safe = tuple(value if _harmless(value) else "-" for value in values)
    try:
        return words % safe
    except (TypeError, ValueError):
        return words


def _harmless(value: object) -> bool:
    return type(value) in (int, float) or (isinstance(value, str) and _CODE.fullmatch(value) is not None)


def _meaning(record: logging.LogRecord) -> str:
    if record.name.startswith("py."):
        return "a library warned"
    template = record.msg if isinstance(record.msg, str) else ""
    return next((meaning for start, meaning in MEANINGS if template.startswith(start)), "something happened")


def _error(record: logging.LogRecord) -> dict[str, Value]:
    """Return the type of an exception: neither its text nor its traceback."""
    kind = record.exc_info[0] if record.exc_info else None
    name = "" if kind is None else kind.__name__
    return {"error": name} if fitting("error", name) else {}


class SafeFormatter(logging.Formatter):
    """One line per record: JSON, or words and ``name=value``.

    :param form: ``json`` or ``text``.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head: dict[str, Value] = {"time": f"{moment}.{int(record.msecs):03d}Z"}
        head |= {"level": record.levelname.lower(), **facts(record)}
        if self._form == "json":
            return json.dumps(head)
        when, level, logger, what = (head.pop(name) for name in ("time", "level", "logger", "event"))
        rest = "".join(f" {name}={value}" for name, value in head.items())
        return f"{when} {str(level).upper()} {logger} {what}{rest}"


class SafeHandler(logging.StreamHandler[TextIO]):
    """Writes such lines; a record that cannot be written is dropped without a word."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: logging's own way prints the record's arguments."""


def configure_logging(form: Form = "text", stream: TextIO | None = None) -> None:
    """Make every logger of the process write such lines to standard error; libraries from warnings on."""
    from celery.platforms import SecurityWarning

    # Celery warns root about pickled messages; here nothing but CBOR is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    handler = SafeHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(SafeFormatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger(_OURS).setLevel(logging.INFO)
    # Python's own way prints the exception's text and the lines of the traceback.
    threading.excepthook = lambda args: _uncaught(args.exc_type)
    sys.excepthook = lambda kind, _, __: _uncaught(kind)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type)


def _uncaught(kind: type[BaseException] | None) -> None:
    name = "unknown" if kind is None else kind.__name__
    event(logging.getLogger("ephemeralml.worker"), logging.ERROR, "an uncaught fault", error=name)


#: What a worker says of itself begins with one of these words and a colon.
_SAID: Final = re.compile(r"(ready|stopping|stopped|keys|policy|key release refused|watchdog|error)\b")
_SAID_CODE: Final = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")


class Spoken:
    """Turns the lines that a worker says into events, where its log is JSON.

    Such a line holds text for a person; the event keeps its first word and its code.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._logger = logging.getLogger("ephemeralml.worker")

    def __call__(self, line: str) -> None:
        """Log one line."""
        begin, code = _SAID.match(line), _SAID_CODE.search(line)
        fields: dict[str, Any] = {} if code is None else {"code": code.group()}
        event(self._logger, self._level, "said" if begin is None else begin.group(), **fields)
