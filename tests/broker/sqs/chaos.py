"""The chaos of :mod:`tests.delivery.chaos` on SQS (moto): ``python -m tests.broker.sqs.chaos [--seconds S]``.

An outage is a line that is cut: moto itself would forget everything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from botocore.exceptions import ClientError

from ephemeralml.producer.lab import POOL

from ...delivery import faults
from ...delivery.brokers import VISIBILITY_S, Broker
from ...delivery.chaos import SETTINGS, Report, run
from ...delivery.site import laboratory, site
from ...servers.cut import line_to
from ...servers.moto import environment, moto_server, sqs_settings, varied
from .host import SqsHost


class SqsChaos(faults.Chaos):
    """Chaos whose host may find that a client has just deleted its queue."""

    def inject(self, name: str) -> None:
        """Do one fault."""
        try:
            super().inject(name)
        except ClientError as error:
            if not error.response["Error"]["Code"].endswith(("QueueDoesNotExist", "NonExistentQueue")):
                raise


@contextmanager
def sqs_to_cut(folder: Path) -> Iterator[tuple[Broker, str]]:
    """Yield a broker behind a line, with a folder for blobs, and its endpoint before the line."""
    blobs = f"file://{folder}/blobs"
    with (
        moto_server(folder) as server,
        line_to(server.address) as line,
        sqs_settings(server, [POOL], visibility_timeout_s=VISIBILITY_S, blob_url=blobs) as direct,
    ):
        settings = varied(direct, sqs_endpoint=f"http://{line.address}")
        yield Broker(settings, environment(settings), lambda _: line.cut(), line.mend), server.url


def chaos(folder: Path, *, seconds: float, jobs: int, seed: int, outage_s: float = 3) -> Report:
    """Run jobs while workers, broker and host do harm."""
    with (
        laboratory(folder) as lab,
        sqs_to_cut(folder / "broker") as (broker, endpoint),
        site(lab, broker, folder / "site", **SETTINGS) as place,
        patch.object(faults, "Host", lambda settings, random: SqsHost(settings, endpoint, random)),
        patch("tests.delivery.chaos.Chaos", SqsChaos),
    ):
        return run(place, seconds=seconds, jobs=jobs, seed=seed, outage_s=outage_s)


def main() -> int:
    """Print what was done and what came of it; 1 where a job was lost, doubled or read."""
    parser = argparse.ArgumentParser(description="jobs on SQS while workers, broker and host do harm")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=100, help="jobs per ticket")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--outage", type=float, default=3, help="seconds of an outage at most")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = chaos(
            Path(folder), seconds=given.seconds, jobs=given.jobs, seed=given.seed, outage_s=given.outage
        )
    print(report.lines())
    return 0 if report.findings.clean else 1


if __name__ == "__main__":
    sys.exit(main())
