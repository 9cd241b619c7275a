"""A worker's numbers, and their form for Prometheus.

:class:`Tally` is plain Python, so that a worker without a metrics endpoint imports no library;
:func:`exposition` imports ``prometheus_client`` when it is first called, long after the gate has opened.

Whoever reads the numbers is untrusted. He sees anyway when messages come and replies go; the
stages must not tell him more, for example how long a prompt is from the time that its forward pass
took. So times are kept in buckets that are four times as wide as the one before, the sum that
Prometheus wants is that of the buckets' upper bounds, and a text is made at most once in
:data:`FRESH_SECONDS`, so that nobody can watch one job pass from stage to stage.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..receipts.outcome import Status
from ..wire.errors import ConfigurationError
from .logs import event
from .meter import ENDS, STAGES, End, Meter, Stage, code_name

LOG: Final = logging.getLogger("ephemeralml.worker")
#: Upper bounds of the buckets of times, in seconds: 1 ms to about 4 minutes.
SECONDS: Final = tuple(4**n / 1000 for n in range(10))
#: Upper bounds of the buckets of jobs in a message; sizes of packs are public.
JOBS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
#: A text that is younger is given again.
FRESH_SECONDS: Final = 5.0
PREFIX: Final = "ephemeralml_"


class Histogram:
    """Counts observations per bucket, and nothing finer."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Return Prometheus's cumulative buckets."""
        total, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found

    def rough_sum(self) -> float:
        """Return the sum as the buckets tell it: each value counts as its bucket's upper bound."""
        bounds = (*self.bounds, self.bounds[-1])
        return sum(bound * count for bound, count in zip(bounds, self._counts, strict=True))


class Tally(Meter):
    """Keeps a worker's numbers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken: Counter[str] = Counter({"first": 0, "again": 0})
        self.ended: Counter[str] = Counter(dict.fromkeys(ENDS, 0))
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.dead: Counter[str] = Counter()
        self.publish_failures = 0
        self.messages_in_work = 0
        self.jobs_in_work = 0
        self.stages = {stage: Histogram(SECONDS) for stage in STAGES}
        self.pack_jobs = Histogram(JOBS)

    def message(self, deliveries: int) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.taken["first" if deliveries <= 1 else "again"] += 1
            self.messages_in_work += 1

    def message_ended(self, end: End) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.ended[end] += 1
            self.messages_in_work -= 1

    def pack(self, jobs: int) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.pack_jobs.observe(jobs)
            self.jobs_in_work += jobs

    def pack_ended(self, jobs: int) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.jobs_in_work -= jobs

    def took(self, stage: Stage, seconds: float) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.stages[stage].observe(seconds)

    def outcome(self, job_id: bytes, status: Status, code: str) -> None:
        """See :class:`.meter.Meter`; logs every job that did not succeed."""
        with self._lock:
            self.outcomes[status, code_name(code)] += 1
        if status != "succeeded":
            event(LOG, logging.INFO, "a job ended", job=job_id.hex(), status=status, code=code_name(code))

    def dead_letter(self, code: str) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.dead[code_name(code)] += 1

    def publish_failed(self) -> None:
        """See :class:`.meter.Meter`."""
        with self._lock:
            self.publish_failures += 1


@dataclass(frozen=True)
class Reading:
    """A number that is read when it is asked for.

    :param name: without :data:`PREFIX`. :param kind: ``gauge`` or ``counter``.
    :param values: numbers by the values of ``labels``, which are of closed sets.
    """

    name: str
    kind: str
    about: str
    values: Sequence[tuple[Sequence[str], float]]
    labels: tuple[str, ...] = ()


def tally_readings(tally: Tally) -> Iterator[Reading]:
    """Yield the plain numbers of a tally."""
    counted = {
        ("messages_taken", ("delivery",)): ("Messages taken off the queue", tally.taken),
        ("messages_ended", ("end",)): ("Messages that a worker is done with", tally.ended),
        ("dead_letters", ("code",)): ("Messages kept as dead letters", tally.dead),
    }
    for (name, labels), (about, counts) in counted.items():
        yield Reading(
            name, "counter", about, [((key,), float(n)) for key, n in counts.copy().items()], labels
        )
    outcomes = [(key, float(count)) for key, count in tally.outcomes.copy().items()]
    yield Reading("outcomes", "counter", "Signed outcomes of jobs", outcomes, ("status", "code"))
    plain: tuple[tuple[str, str, str, float], ...] = (
        ("publish_failures", "counter", "Tries to publish replies that failed", tally.publish_failures),
        ("messages_in_work", "gauge", "Messages in work", tally.messages_in_work),
        ("jobs_in_work", "gauge", "Jobs in work", tally.jobs_in_work),
    )
    for name, kind, about, value in plain:
        yield Reading(name, kind, about, [((), float(value))])


@dataclass
class Exposition:
    """A worker's metrics page.

    :param readings: what there is beside the tally. :param monotonic: seconds.
    """

    tally: Tally
    readings: Callable[[], Iterable[Reading]] = tuple
    monotonic: Callable[[], float] = time.monotonic
    _made: tuple[float, bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self) -> bytes:
        """Return the page in Prometheus's text form; one that is a few seconds old is given again.

        :raises ConfigurationError: ``EXTRA_MISSING``: prometheus-client is not installed.
        """
        with self._lock:
            now = self.monotonic()
            if self._made is None or now - self._made[0] >= FRESH_SECONDS:
                self._made = now, exposition(self.tally, self.readings())
            return self._made[1]


def exposition(tally: Tally, readings: Iterable[Reading]) -> bytes:
    """Return all numbers in Prometheus's text form.

    :raises ConfigurationError: ``EXTRA_MISSING``: prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        message = "the metrics endpoint is not installed: pip install 'ephemeralml[metrics]'"
        raise ConfigurationError("EXTRA_MISSING", message) from None

    class Collected:
        def collect(self) -> Iterator[Any]:
            yield from (_family(reading) for reading in (*tally_readings(tally), *readings))
            yield from _histograms(tally)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return generate_latest(registry)


def _family(reading: Reading) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    family = kind(PREFIX + reading.name, reading.about, labels=reading.labels)
    for values, number in reading.values:
        family.add_metric(list(values), number)
    return family


def _histograms(tally: Tally) -> Iterator[Any]:
    from prometheus_client.core import HistogramMetricFamily

    about = "Time of a stage of a message; the sum is that of the buckets' upper bounds"
    stages = HistogramMetricFamily(PREFIX + "stage_seconds", about, labels=["stage"])
    for stage, histogram in tally.stages.items():
        stages.add_metric([stage], histogram.buckets(), histogram.rough_sum())
    jobs = HistogramMetricFamily(PREFIX + "pack_jobs", "Jobs of a message", labels=[])
    jobs.add_metric([], tally.pack_jobs.buckets(), tally.pack_jobs.rough_sum())
    yield from (stages, jobs)
