"""``demo --hostile``: the machines between client and TEE turn on them; what each attempt meets.

Broker, blob store, KMS, workers and client are real and unchanged. The host
(:mod:`.demo_host`) does each of these things, and the demo holds what comes of it
against what must: it fails when an attempt gets through, and also when it is met
otherwise than by design.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ...broker_config.profiles import broker_running
from ...broker_config.settings import broker_settings
from ...wire.errors import Error
from ..lab import POOL, Lab, minilm_folder
from . import demo_on_keys as keys
from . import demo_on_messages as messages
from .common import OUT, make_client, read_policy
from .demo import READY_SECONDS, Stage, StepFailed, Workers, line_with
from .demo_host import Host
from .demo_scene import OTHER_POOL, VISIBILITY_S, Met, NotMet, Scene

Kind = Literal["read", "change", "swap", "replay", "drop", "re-route", "keys"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that a host may try.

    :param did: what the host does, in a few words. :param code: what it must meet; ``""`` where there is
        nothing to refuse.
    """

    kind: Kind
    did: str
    code: str
    act: Callable[[Scene], Met]


ATTEMPTS: Final = (
    Attempt(
        "read",
        "search everything it has, try its own key",
        "SEALING_FAILED",
        messages.read_everything,
    ),
    Attempt("change", "flip one bit of a job", "CANNOT_OPEN", messages.change_job),
    Attempt("change", "flip one bit of a result", "SEALING_FAILED", messages.change_result),
    Attempt("change", "sign a failure in a worker's name", "SIG_FAILED", messages.forge_outcome),
    Attempt("swap", "exchange the results of two jobs", "RESULT_MISMATCH", messages.swap_results),
    Attempt("swap", "give one job another's whole answer", "OUTCOME_MISMATCH", messages.swap_answers),
    Attempt("replay", "deliver an answered job again", "", messages.replay_job),
    Attempt("replay", "answer a new job by an old answer", "OUTCOME_MISMATCH", messages.replay_answer),
    Attempt("replay", "hold a job until its deadline has passed", "EXPIRED", messages.delay_job),
    Attempt("drop", "drop a job once", "", messages.drop_job),
    Attempt("drop", "let nothing arrive, then give in", "", messages.drop_everything),
    Attempt("re-route", "move a job to another pool's queue", "WRONG_POOL", messages.to_another_pool),
    Attempt(
        "re-route", "and write that pool's name into it", "CANNOT_OPEN", messages.to_another_pool_renamed
    ),
    Attempt("re-route", "write own reply queue into a job", "CANNOT_OPEN", messages.to_another_client),
    Attempt("keys", "ask the KMS with the worker's credentials", "KMS_DENIED", keys.ask_without_attestation),
    Attempt("keys", "ask the KMS from a modified image", "KMS_DENIED", keys.ask_from_another_image),
    Attempt("keys", "ask the KMS with a self-signed document", "KMS_REFUSED_REQUEST", keys.ask_from_own_tee),
    Attempt(
        "keys",
        "announce own key with a worker's evidence",
        "ANNOUNCEMENT_BINDING_FAILED",
        keys.announce_own_key,
    ),
    Attempt("keys", "announce own key with own evidence", "UNKNOWN_ROOT", keys.announce_own_tee),
    Attempt("keys", "plant a fleet key for a new pool", "UNKNOWN_ROOT", keys.plant_fleet_key),
    Attempt(
        "keys", "put one pool's key in another's place", "BIRTH_WRONG_POOL", keys.plant_another_pools_key
    ),
    Attempt(
        "keys",
        "revoke the fleet key in the operator's name",
        "ORDER_NOT_BY_OPERATOR",
        keys.revoke_in_the_operators_name,
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one attempt. ``held`` says whether it was met as designed."""

    attempt: Attempt
    met: Met
    held: bool


def attempt(scene: Scene, one: Attempt) -> Verdict:
    """Let the host do one thing, and judge what it met."""
    try:
        met = one.act(scene)
    except NotMet as error:
        return Verdict(one, Met("", str(error)), held=False)
    except Error as error:
        return Verdict(one, Met(error.code, "the attempt itself failed"), held=False)
    except ValueError:  # more, or fewer, messages or announcements than the attempt is made for
        return Verdict(one, Met("", "the attempt went otherwise than planned"), held=False)
    return Verdict(one, met, held=met.code == one.code)


@dataclass
class HostileDemo:
    """A laboratory, and its host turned hostile.

    :param stage: names and times the steps. :param folder: of the laboratory; new.
    """

    stage: Stage
    folder: Path
    verdicts: list[Verdict] = field(default_factory=list)

    def run(self) -> None:
        """Set the scene, make every attempt, and stop everything that was started.

        :raises StepFailed: the scene could not be set. :raises Error: likewise.
        """
        step = self.stage.step
        with ExitStack() as stack:
            with step("start local KMS, package the model"):
                lab = Lab.create(self.folder)
                stack.enter_context(lab.kms())
                lab.package(minilm_folder())
            with step("start broker"):
                settings = broker_settings(state_dir=lab.state).model_copy(
                    update={"visibility_timeout_s": VISIBILITY_S}
                )
                settings = stack.enter_context(broker_running(settings))
            workers = Workers(lab, {"EPHEMERALML_VISIBILITY_TIMEOUT_S": str(VISIBILITY_S)})
            stack.callback(workers.stop)
            with step("start attested workers of two pools") as notes:
                for process in [workers.start(), workers.start("--pool", OTHER_POOL)]:
                    notes.append(line_with(process, "ready:").rsplit("|", 1)[-1].strip())
            client = make_client(settings, read_policy(lab.policy))
            with step("verify the fleet"):
                fleet = client.trust_pool(POOL)
                client.trust_pool(OTHER_POOL)
            host = Host(settings, client.blobs, list(workers.started))
            scene = Scene(lab, client, fleet, host, lambda pool: _refused_boot(workers, pool))
            for one in ATTEMPTS:
                self._try(scene, one)

    def _try(self, scene: Scene, one: Attempt) -> None:
        self.stage.current = f"{one.kind}: {one.did}"
        started = time.perf_counter()
        verdict = attempt(scene, one)
        self.verdicts.append(verdict)
        seconds, met = time.perf_counter() - started, verdict.met.code or escape(verdict.met.words)
        OUT.print(f"{_mark(verdict)} {self.stage.current:<52}{seconds:6.2f} s  {met}", soft_wrap=True)

    def report(self) -> None:
        """Print the table.

        :raises typer.Exit: 1: an attempt was not met as designed.
        """
        OUT.print(table(self.verdicts))
        failed = [verdict for verdict in self.verdicts if not verdict.held]
        if failed:
            OUT.print(f"[red]{len(failed)} of {len(self.verdicts)} attempts were not met as designed[/red]")
            raise typer.Exit(1)
        OUT.print(f"[green]all {len(self.verdicts)} attempts were met as designed[/green]")


def table(verdicts: list[Verdict]) -> Table:
    """Return the summary: attempt, what the host did, what it met, verdict."""
    found = Table(title="EphemeralML against its host", box=SIMPLE_HEAD)
    found.add_column("attempt", no_wrap=True)
    found.add_column("what the host did")
    found.add_column("what it met", min_width=max(len(verdict.met.code) for verdict in verdicts))
    found.add_column("verdict", no_wrap=True)
    kinds = [None, *(verdict.attempt.kind for verdict in verdicts)]
    for verdict, before in zip(verdicts, kinds, strict=False):
        one, met = verdict.attempt, verdict.met
        code = f"[yellow]{met.code}[/yellow]\n" if met.code else ""
        kind = "" if one.kind == before else f"[bold]{one.kind}[/bold]"
        found.add_row(kind, escape(one.did), f"{code}[dim]{escape(met.words)}[/dim]", _mark(verdict))
    return found


def _mark(verdict: Verdict) -> str:
    return "[green]held[/green]" if verdict.held else "[red]NOT HELD[/red]"


def _refused_boot(workers: Workers, pool: str) -> str:
    """Start a worker of a pool that must not come up; return its last line.

    :raises NotMet: it is ready.
    """
    process = workers.start("--pool", pool)
    try:
        line_with(process, "ready:")
    except StepFailed:
        process.wait(READY_SECONDS)
        return workers.last_line(process)
    raise NotMet("the worker came up")
