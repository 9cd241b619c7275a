"""``demo``: the whole way of a job on this machine, with real parts, then three refusals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from ...broker_config.health import depth
from ...broker_config.profiles import broker_running
from ...broker_config.replies import ReplyQueue
from ...broker_config.settings import BrokerSettings, broker_settings
from ...broker_config.submit import Submitter
from ...receipts.outcome import peek_outcome, verify_outcome
from ...receipts.verify import ReceiptPolicy, assess
from ...wire.errors import Error
from ...wire.exit_codes import DENIED
from ...wire.header import JobHeader
from ...wire.job import Embedding
from ...wire.pack import SealedJob, decode_jobs, decode_message, decode_replies, encode_jobs, encode_message
from ...wire.sealing import Sealer
from ..client import Client
from ..inputs import InputItem, read_inputs
from ..judge import JobResult
from ..lab import IMAGE, POOL, Lab, minilm_folder
from ..outputs import vector_of
from ..trust import VerifiedFleet
from .common import ERR, OUT, make_client, read_policy
from .jobs import collect

SENTENCES: Final = Path(__file__).resolve().parents[2] / "examples" / "sentences.txt"
QUERY: Final = "The patient was sent home after the operation."
READY_SECONDS: Final = 45.0


class StepFailed(Exception):
    """A step of the demo did not show what it must show."""


@dataclass
class Stage:
    """Names and times the steps, and says which one failed."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)
    current: str = ""

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Run one step; what is appended to the yielded list stands in the summary."""
        self.current = name
        started = time.perf_counter()
        notes: list[str] = []
        yield notes
        seconds = time.perf_counter() - started
        self.rows.append((name, seconds, "; ".join(notes)))
        OUT.print(f"[green]ok[/green] {name:<34}{seconds:6.2f} s  {'; '.join(notes)}", soft_wrap=True)


@dataclass
class Workers:
    """Worker processes that the demo started; ends only those.

    :param more: settings beside the laboratory's.
    """

    lab: Lab
    more: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one worker process."""
        log = self._log(len(self.started)).open("w")
        process = subprocess.Popen(  # noqa: S603 - our own command, arguments as a list
            [sys.executable, "-m", "ephemeralml", "worker", *arguments],
            env={**os.environ, **self.lab.worker_environment, **self.more},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        self.started.append(process)
        return process

    def last_line(self, process: subprocess.Popen[str]) -> str:
        """Return the last line that a worker wrote to its log."""
        lines = self._log(self.started.index(process)).read_text(encoding="utf-8").splitlines()
        return lines[-1] if lines else ""

    def _log(self, number: int) -> Path:
        return self.lab.folder / f"worker-{number}.log"

    def stop(self) -> list[int]:
        """Drain every worker (SIGTERM) and return the exit codes."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        codes = []
        for process in self.started:
            try:
                codes.append(process.wait(20))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
            if process.stdout is not None:
                process.stdout.close()
        return codes


def line_with(process: subprocess.Popen[str], start: str) -> str:
    """Return the process's first line that begins with ``start``.

    :raises StepFailed: the process ended first; with its last line.
    """
    last = "it said nothing"
    for line in process.stdout or ():
        last = line.strip()
        if last.startswith(start):
            return last
    raise StepFailed(f"a worker stopped early: {last}")


def demo(
    sentences: Annotated[Path, typer.Option(help="Text file, one sentence per line.")] = SENTENCES,
    keep: Annotated[Path | None, typer.Option(help="Keep everything in this new folder.")] = None,
    query: Annotated[str, typer.Option(help="Find the sentences nearest to this one.")] = QUERY,
    hostile: Annotated[
        bool, typer.Option("--hostile", help="Let the host attack all of it, and show what it meets.")
    ] = False,
) -> None:
    """Run the whole way of a job on this machine: attest, release, seal, run, verify, refuse.

    With --hostile, broker, store and machines turn on client and workers: the host reads, changes, swaps,
    replays, drops and re-routes messages and substitutes keys. Exit 1: an attempt was not met as designed.
    """
    stage = Stage()
    folder = keep or Path(tempfile.mkdtemp(prefix="ephemeralml-demo-"))
    try:
        if hostile:
            from .demo_hostile import HostileDemo

            shown = HostileDemo(stage, folder)
            shown.run()
            shown.report()
        else:
            Demo(stage, folder, sentences, query).run()
            _summary(stage)
    except (Error, StepFailed) as error:
        ERR.print(f"[red]failed[/red] in step '{stage.current}': {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _summary(stage: Stage) -> None:
    table = Table("step", "seconds", "what was shown", title="EphemeralML demo")
    for name, seconds, note in stage.rows:
        table.add_row(name, f"{seconds:.2f}", note)
    table.add_row("total", f"{sum(row[1] for row in stage.rows):.2f}", "every step held")
    OUT.print(table)


@dataclass
class Demo:
    """The demo's steps over one laboratory folder."""

    stage: Stage
    folder: Path
    sentences: Path
    query: str

    def run(self) -> None:
        """Run all steps; everything that was started is stopped again."""
        step = self.stage.step
        with ExitStack() as stack:
            with step("read sentences") as notes:
                items = read_inputs(self.sentences)
                notes.append(f"{len(items)} sentences")
            with step("start local KMS"):
                lab = Lab.create(self.folder)
                stack.enter_context(lab.kms())
            with step("package the model") as notes:
                lab.package(minilm_folder())
                notes.append(f"encrypted, signed, manifest {lab.about['model']['manifest_hash'][:16]}")
            with step("start broker"):
                settings = stack.enter_context(broker_running(broker_settings(state_dir=lab.state)))
            workers = Workers(lab)
            stack.callback(workers.stop)
            with step("start two attested workers") as notes:
                pair = [workers.start(), workers.start()]
                for process in pair:
                    notes.append(line_with(process, "ready:").rsplit("|", 1)[-1].strip())
            client = make_client(settings, read_policy(lab.policy))
            fleet = self._main(client, items)
            self._refusals(client, fleet, settings, workers)
            with step("drain the workers") as notes:
                codes = workers.stop()[:2]
                if codes != [0, 0]:
                    raise StepFailed(f"workers ended with {codes}")
                notes.append("SIGTERM: both finished, dropped their keys, exit 0")

    # ------------------------------------------------------------- the main way

    def _main(self, client: Client, items: list[InputItem]) -> VerifiedFleet:
        step = self.stage.step
        with step("verify the fleet") as notes:
            fleet = client.trust_pool(POOL)
            if len(fleet.workers) != 2:
                raise StepFailed(f"{len(fleet.workers)} of 2 workers are trusted")
            notes.append(f"{len(fleet.workers)} workers genuine, wanted, bound; {fleet.fleet_key.suite}")
        with step("seal and submit") as notes:
            ticket = client.plan(fleet, items, self.folder / "demo.ticket", pack_jobs=8)
            client.push(ticket)
            notes.append(f"{len(items)} jobs")
        with step("results, opened and verified") as notes:
            with ticket:
                results = collect(client, ticket, READY_SECONDS)
            notes.append(_check_results(results, len(items)))
        with step("nearest sentences") as notes:
            self._nearest(client, fleet, results, items)
            notes.append("query embedded through the same queue")
        self._results = results
        return fleet

    def _nearest(
        self, client: Client, fleet: VerifiedFleet, results: list[JobResult], items: list[InputItem]
    ) -> None:
        ticket = client.plan(fleet, [InputItem("query", (self.query,))], self.folder / "query.ticket")
        with ticket:
            client.push(ticket)
            found = list(client.results(ticket, READY_SECONDS))
        if len(found) != 1:
            raise StepFailed("the query was not answered")
        wanted = _vector(found[0])
        texts = {item.custom_id: str(item.texts[0]) for item in items}
        scored = sorted(
            (
                (sum(a * b for a, b in zip(wanted, _vector(result), strict=True)), result)
                for result in results
            ),
            key=lambda pair: -pair[0],
        )
        OUT.print(f"   nearest to: {escape(self.query)}", soft_wrap=True)
        for score, result in scored[:3]:
            OUT.print(f"   {score:6.3f}  {escape(texts[result.custom_id])}", soft_wrap=True)

    # ---------------------------------------------------------------- refusals

    def _refusals(
        self, client: Client, fleet: VerifiedFleet, settings: BrokerSettings, workers: Workers
    ) -> None:
        step = self.stage.step
        pack = self._some_pack(client, fleet)
        with step("refused: another measurement") as notes:
            notes.append(self._other_measurement(settings, workers, pack))
        with step("refused: receipt, one flipped byte") as notes:
            notes.append(self._flipped_receipt(client, self._results[0]))
        with step("refused: re-routed job") as notes:
            notes.append(self._rerouted(client, fleet, settings))

    def _some_pack(self, client: Client, fleet: VerifiedFleet) -> bytes:
        with client.plan(fleet, [InputItem("x", ("A sealed job.",))], self.folder / "x.ticket") as ticket:
            return next(iter(ticket.pending_packs.values()))

    def _other_measurement(self, settings: BrokerSettings, workers: Workers, pack: bytes) -> str:
        pool = "intruder"
        with Submitter(settings) as submitter:
            submitter.submit(pool, encode_message(pack))
        process = workers.start("--pool", pool, "--simulated-image", IMAGE + "-modified")
        code = process.wait(READY_SECONDS)
        left = depth(settings, pool).waiting
        if code != DENIED or left != 1:
            raise StepFailed(f"exit {code}, {left} message(s) left in its queue")
        return f"KMS denied the key, exit {code}, its queue still holds the message"

    def _flipped_receipt(self, client: Client, result: JobResult) -> str:
        if result.receipt is None or result.worker is None:
            raise StepFailed("the first result has no receipt")
        forged = bytearray(result.receipt)
        forged[len(forged) // 2] ^= 1
        verification = assess(
            bytes(forged),
            result.worker.body.receipt_key,
            ReceiptPolicy(security_modes=tuple(client.trust.current().security_modes)),
            int(time.time()),
            verified_evidence=result.worker.verified,
            appraisal=result.worker.appraisal,
        )
        if verification.passed:
            raise StepFailed("a forged receipt verified")
        return f"{verification.codes[0]}"

    def _rerouted(self, client: Client, fleet: VerifiedFleet, settings: BrokerSettings) -> str:
        """Seal a job for another pool under the same key, then let the host rewrite its header."""
        ticket_path = self.folder / "rerouted.ticket"
        with client.plan(fleet, [InputItem("r", ("A job for elsewhere.",))], ticket_path) as ticket:
            (sealed,) = decode_jobs(next(iter(ticket.pending_packs.values())))[1]
            header = JobHeader.decode(sealed.header)
            home = replace(header, pool="elsewhere").encode()
            sealer = Sealer(fleet.fleet_key, "job", monotonic=time.monotonic)
            forged = encode_jobs(fleet.pool, [SealedJob(sealed.header, sealer.seal(home, b"a job"))])
            with Submitter(settings) as submitter:
                submitter.submit(fleet.pool, encode_message(forged))
            with ReplyQueue(settings, header.reply_to) as queue:
                delivery = queue.receive(READY_SECONDS)
            if delivery is None:
                raise StepFailed("no answer to the re-routed job")
            body = decode_message(delivery.body)
            (reply,) = decode_replies(body if isinstance(body, bytes) else b"")[1]
            outcome = verify_outcome(reply.outcome, self._signer(client, fleet, reply.outcome))
            if outcome.status != "rejected":
                raise StepFailed(f"the re-routed job ended as {outcome.status}")
            return f"signed outcome: {outcome.status} {outcome.code}"

    def _signer(self, client: Client, fleet: VerifiedFleet, outcome: bytes) -> bytes:
        return client.trust.worker(fleet.pool, peek_outcome(outcome).attestation_doc_hash).body.receipt_key


def _vector(result: JobResult) -> tuple[float, ...]:
    if result.response is None or not isinstance(result.response.outputs[0], Embedding):
        raise StepFailed("a result holds no embedding")
    return vector_of(result.response.outputs[0])


def _check_results(results: list[JobResult], wanted: int) -> str:
    good = [result for result in results if result.status == "succeeded"]
    if len(good) != wanted:
        raise StepFailed(f"{len(good)} of {wanted} jobs succeeded")
    levels = {result.assurance for result in good}
    workers = {result.receipt_key for result in good}
    if levels != {"provenance"}:
        raise StepFailed(f"receipts reached {sorted(levels)} instead of provenance")
    return f"{len(good)} receipts verified up to key binding, from {len(workers)} worker(s)"
