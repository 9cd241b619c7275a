"""SQS: whether a pool's queues are there, keep what they were given, and who may take from them.

Attributes: Amazon SQS API Reference, "GetQueueAttributes". SQS has no way to ask for rights, so one
call is made with a receipt handle that is none: who may take messages is told so, others are denied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ....broker_config.queues import jobs_queue
from ....broker_config.settings import BrokerSettings
from ....broker_config.sqs.calls import Calls, Denied, Lost, Missing, calls_of
from ....broker_config.sqs.names import dead_queue, queue_name
from ....broker_config.sqs.queues import MAX_RETENTION
from ....wire.errors import DeliveryError
from .finding import Finding

TAKERS: Final = ("worker",)
_REMAKE: Final = "ephemeralml queues create --pool {pool}, with an operator's rights"


def sqs_broker(settings: BrokerSettings, pool: str | None, role: str | None) -> Iterator[Finding]:
    """Yield what can be said of a pool's queues.

    :param role: whose rights this caller must have. Both None: nothing to look at.
    :raises DeliveryError: ``BROKER_UNREACHABLE``.
    """
    if pool is None:
        return
    calls, name = calls_of(settings), queue_name(settings, jobs_queue(pool))
    try:
        yield from _queues(calls, name, queue_name(settings, dead_queue(jobs_queue(pool))), pool)
        if role is not None:
            yield from _rights(calls, name, pool, role)
    except Missing:
        pass  # said above
    except Lost:
        raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None


def _queues(calls: Calls, jobs: str, dead: str, pool: str) -> Iterator[Finding]:
    remake = _REMAKE.format(pool=pool)
    for name in (jobs, dead):
        try:
            found = calls.attributes(name, ["All"])
        except Missing:
            cause = "jobs have nowhere to go" if name == jobs else "what SQS gives up is lost"
            yield Finding("QUEUE", "problem", f"there is no queue {name}", cause, remake)
            continue
        except Denied:
            if name == jobs:
                cause = "no role works without: it is how depth and drain are known"
                seen, fix = f"this caller may not look at {name}", "ephemeralml queues policy ROLE"
                yield Finding("QUEUE", "problem", seen, cause, fix)
            else:
                yield Finding("QUEUE", "ok", f"this caller may not look at {name}, as only operators may")
            continue
        yield from _attributes(name, found, remake, first=name == jobs)


def _attributes(name: str, found: dict[str, str], remake: str, *, first: bool) -> Iterator[Finding]:
    wrong = []
    if first and "RedrivePolicy" not in found:
        wrong.append(("no dead-letter queue", "a message that no worker can hold comes back for ever"))
    if int(found.get("MessageRetentionPeriod", 0)) < MAX_RETENTION:
        wrong.append(("messages are kept for less than 14 days", "jobs of a long outage are lost"))
    if found.get("SqsManagedSseEnabled") != "true" and not found.get("KmsMasterKeyId"):
        wrong.append(("no encryption at rest", "ciphertext and sizes lie open on SQS's disks"))
    if "aws:SecureTransport" not in found.get("Policy", ""):
        wrong.append(("calls without TLS are not refused", "credentials' signatures can be read on the way"))
    for seen, cause in wrong:
        yield Finding("QUEUE_SETTINGS", "problem", f"{name}: {seen}", cause, remake)
    if not wrong:
        yield Finding("QUEUE", "ok", f"{name} is there, with the settings it needs")


def _rights(calls: Calls, jobs: str, pool: str, role: str) -> Iterator[Finding]:
    ask = f"ephemeralml queues policy {role} --pool {pool} prints the IAM policy"
    try:
        calls.lease(jobs, ["doctor"], 0)
        may = True
    except Denied:
        may = False
    except DeliveryError as error:
        if error.code != "BROKER_REFUSED":
            raise
        may = True  # refused for the handle's sake: after the permission
    if role in TAKERS and not may:
        seen, cause = f"this caller may not take from {jobs}", f"a {role} does not work without it"
        yield Finding("BROKER_RIGHTS", "problem", seen, cause, ask)
    elif role not in TAKERS and may:
        seen = f"this caller may also take from {jobs}"
        cause = f"a {role} that is broken into can lose the jobs of others"
        yield Finding("BROKER_RIGHTS_WIDE", "warning", seen, cause, ask)
    else:
        yield Finding(
            "BROKER_RIGHTS", "ok", f"taking jobs is {'allowed' if may else 'denied'}, as for a {role}"
        )
