"""The command: which checks are made, and how they are shown."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from ....attestation.key_release.aws_settings import AwsSettings
from ....attestation.key_release.gcp_settings import KMS_ENDPOINT
from ....attestation.policy_source import PolicyInForce, PolicySource
from ....broker_config.health import ping
from ....broker_config.profiles import broker_running
from ....broker_config.settings import BrokerSettings
from ....wire.errors import ConfigurationError, Error
from ....wire.exit_codes import CONFIGURATION
from ..common import (
    OUT,
    BrokerOption,
    PolicyRootOption,
    StateOption,
    make_client,
    one_line_errors,
    policy_source,
    read_settings,
)
from .finding import Finding
from .host import enclave_host
from .machine import machine
from .stores import blob_store
from .tee import clock, devices, online

POLICY_WARNING_DAYS: Final = 14
ROLES: Final = ("worker", "client", "relay", "operator")
GCP_TOKEN: Final = "EPHEMERALML_GCP_ACCESS_TOKEN"  # noqa: S105 - a variable's name
REGION: Final = "us-east-1"  # a worker's default
_KMS: Final = "EPHEMERALML_WORKER_KMS_"


def doctor(
    policy: Annotated[Path | None, typer.Option("--policy", envvar="EPHEMERALML_POLICY")] = None,
    policy_root: PolicyRootOption = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Also look at this pool's queue, and verify its workers.")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", help="worker, client, relay or operator: has this caller its rights only?"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            help="KMS key that fleet keys are wrapped with; asked without a TEE.",
        ),
    ] = None,
    ask_hosts: Annotated[
        bool, typer.Option("--online", help="Also ask the hosts that collateral comes from, and their time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Check this machine, its settings and its deployment; exit 78 when something must be mended first.

    Nothing is sent to a queue or written into broker and blob store. These are those of EPHEMERALML_…
    variables, the KMS that of EPHEMERALML_WORKER_KMS_…; the name of a Cloud KMS key begins with projects/.
    Run it once per role, with that role's credentials:

      ephemeralml doctor --pool small --role worker --key alias/fleet
    """
    with one_line_errors():
        if role is not None and (role not in ROLES or pool is None):
            raise ConfigurationError("UNKNOWN_ROLE", f"--role is one of {', '.join(ROLES)}, with --pool")
        findings = [*machine(), *devices(), *enclave_host(), *clock(time.time())]
        if ask_hosts:
            findings += online(time.time())
        settings = read_settings(broker, state_dir)
        trusted, said = _policy(policy, policy_root)
        findings += [said, *_deployment(settings, trusted, pool, role, key)]
    _show(findings, as_json)
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(CONFIGURATION)


def _show(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}))
        return
    colours = {"ok": "green", "warning": "yellow", "problem": "red"}
    for finding in findings:
        mark = f"[{colours[finding.verdict]}]{finding.verdict:<8}[/]"
        OUT.print(f"{mark} {finding.code:<26} {escape(finding.seen)}", soft_wrap=True)
        if finding.verdict != "ok":
            OUT.print(f"{'':<36}{escape(finding.cause)}", soft_wrap=True)
            OUT.print(f"{'':<36}-> {escape(finding.fix)}", soft_wrap=True)
    bad, odd = (sum(one.verdict == kind for one in findings) for kind in ("problem", "warning"))
    OUT.print(f"{len(findings)} findings: {bad} problem(s), {odd} warning(s)")


def _policy(path: Path | None, root: str | None) -> tuple[PolicySource | None, Finding]:
    if path is None:
        cause = "clients seal to nobody without one"
        return None, Finding(
            "POLICY", "warning", "no trust policy given", cause, "use --policy or EPHEMERALML_POLICY"
        )
    try:
        trusted = policy_source(path, root)
        return trusted, policy_in_force(trusted.in_force(time.time()))
    except Error as error:
        fix = "mend or replace the policy: ephemeralml policy show"
        return None, Finding("POLICY", "problem", str(error), "nobody is trusted by it", fix)


def policy_in_force(found: PolicyInForce) -> Finding:
    """Say how long a policy is still in force."""
    if found.expires is None:
        return Finding("POLICY", "ok", f"policy {found.label}, unsigned: it has no end")
    days = (found.expires - int(time.time())) // 86_400
    seen = f"policy {found.label}, signed, ends in {days} day(s)"
    if days < POLICY_WARNING_DAYS:
        cause = "then clients seal nothing and workers stop"
        fix = "sign and activate its successor: ephemeralml policy sign"
        return Finding("POLICY", "warning", seen, cause, fix)
    return Finding("POLICY", "ok", seen)


def _deployment(
    settings: BrokerSettings,
    trusted: PolicySource | None,
    pool: str | None,
    role: str | None,
    key: str | None,
) -> Iterator[Finding]:
    try:
        with broker_running(settings) as running:
            ping(running)
            yield Finding("BROKER", "ok", f"the {settings.profile} broker answers")
            yield from _broker(running, pool, role)
            yield from blob_store(running)
            if pool is not None and trusted is not None:
                yield _fleet(running, trusted, pool)
            if key is not None:
                yield from _key(running, key, pool)
    except Error as error:
        cause = "no job can be sent or taken without it"
        yield Finding("BROKER", "problem", str(error), cause, "start the broker, or mend its settings")


def _broker(settings: BrokerSettings, pool: str | None, role: str | None) -> Iterator[Finding]:
    if settings.profile == "sqs":
        from .on_sqs import sqs_broker as look
    elif settings.profile == "pubsub":
        from .on_pubsub import pubsub_broker as look
    else:
        from .on_redis import redis_broker as look
    yield from look(settings, pool, role)


def _fleet(settings: BrokerSettings, trusted: PolicySource, pool: str) -> Finding:
    try:
        found = make_client(settings, trusted).trust_pool(pool)
    except Error as error:
        fix = "start a worker, or see why the policy refuses it: ephemeralml verify evidence"
        return Finding("POOL", "problem", str(error), f"nobody can seal to pool {pool}", fix)
    return Finding("POOL", "ok", f"pool {pool}: {len(found.workers)} trusted, {len(found.refused)} refused")


def _key(settings: BrokerSettings, key: str, pool: str | None) -> Iterator[Finding]:
    try:
        if key.startswith("projects/"):
            yield from _cloud_kms(key)
            return
        from .key import aws_key, stored_key

        given = {
            name: os.environ.get(_KMS + name.upper())
            for name in ("endpoint", "region", "access_key_id", "secret_access_key", "session_token")
        }
        given |= {"endpoint_url": given.pop("endpoint"), "region": given["region"] or REGION}
        aws = AwsSettings(**given, sts_endpoint=os.environ.get(_KMS + "STS_ENDPOINT"))  # type: ignore[arg-type]
        yield from aws_key(aws, key, None if pool is None else stored_key(settings, pool))
    except Error as error:
        cause = "the key cannot be looked at with these settings"
        yield Finding("KEY", "problem", str(error), cause, f"mend the variables {_KMS}… (docs/kms.md)")


def _cloud_kms(key: str) -> Iterator[Finding]:
    from .key import gcp_key, gcp_token

    token = os.environ.get(GCP_TOKEN) or gcp_token()
    yield from gcp_key(key, token, endpoint=os.environ.get(_KMS + "ENDPOINT") or KMS_ENDPOINT)
