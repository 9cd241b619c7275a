"""The rights that ``queues policy`` prints for Redis: enough for each role, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis.exceptions import ResponseError

from ephemeralml.broker_config import BrokerSettings, make_blob_store
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.dead_letters import DeadLetters
from ephemeralml.broker_config.health import depth
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.wire.errors import ConfigurationError

from .brokers import Broker, environment, redis
from .site import right, site

JOBS, REPLY = f"jobs.{POOL}", "reply.0123"
ROLES = ("worker", "client", "relay", "operator")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Redis with one user per role."""
    with redis(tmp_path_factory.mktemp("redis")) as made:
        with redis_client(made.settings) as client:
            for role in ROLES:
                rule = carrier_of(made.settings).rights(made.settings, role).replace("POOL", POOL)
                client.execute_command("ACL", "SETUSER", *rule.split()[1:])
        yield made


def user(broker: Broker, role: str) -> BrokerSettings:
    """Return settings of a role's own user."""
    port = urlsplit(broker.settings.url).port
    url = f"redis://{role}:PASSWORD@127.0.0.1:{port}/0"
    return broker.settings.model_copy(update={"broker_url": SecretStr(url)})


def refused(broker: Broker) -> list[str]:
    """Return what Redis has refused until now."""
    with redis_client(broker.settings) as client:
        log: Any = client.acl_log()
    return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in log]


def test_every_role_does_its_work_with_its_rights(broker: Broker, small_lab: Lab, tmp_path: Path) -> None:
    worker, client, operator = (user(broker, role) for role in ("worker", "client", "operator"))
    with site(small_lab, Broker(worker, environment(worker)), tmp_path / "w") as there:
        there.worker(EPHEMERALML_WORKER_EVENTS="true").ready()
        here = site(small_lab, Broker(client, environment(client)), tmp_path / "c")
        with here as submitter:
            own = submitter.client()
            with submitter.plan(own, "rights", 40) as ticket:
                own.push(ticket)
                results = list(own.results(ticket, 60))
            assert all(right("rights", result) for result in results)
            assert len(results) == 40
    assert depth(operator, POOL).waiting == 0
    assert list(DeadLetters(make_blob_store(operator), POOL).list()) == []
    assert refused(broker) == []


@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("worker", ("LPUSH", "jobs.other", "x")),
        ("worker", ("RPOP", REPLY)),
        ("worker", ("RPOP", "jobs.other")),
        ("client", ("RPOP", JOBS)),
        ("client", ("DEL", JOBS)),
        ("client", ("LTRIM", JOBS, "0", "0")),
        ("client", ("HGET", f"unacked.{JOBS}", "x")),
        ("client", ("EXPIRE", JOBS, "1")),
        ("relay", ("RPOP", JOBS)),
        ("operator", ("RPOP", JOBS)),
        ("operator", ("RPOP", REPLY)),
        *(
            (role, command)
            for role in ROLES
            for command in (
                ("FLUSHALL",),
                ("CONFIG", "GET", "*"),
                ("KEYS", "*"),
                ("MONITOR",),
                ("SHUTDOWN",),
                ("CLIENT", "KILL", "TYPE", "normal"),
                ("REPLICAOF", "NO", "ONE"),
                ("ACL", "LIST"),
                ("GET", "another"),
                ("SUBSCRIBE", "channel"),
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:2]),
)
def test_no_role_does_anything_else(broker: Broker, role: str, command: tuple[str, ...]) -> None:
    with redis_client(broker.settings) as client:
        answer: Any = client.execute_command("ACL", "DRYRUN", role, *command)
    assert answer != b"OK"
    assert b"no permissions" in answer


def test_a_submitter_takes_no_job_by_a_script_either(broker: Broker) -> None:
    with redis_client(user(broker, "client")) as client, pytest.raises(ResponseError, match="can't access"):
        client.eval("return redis.call('RPOP', KEYS[1])", 2, JOBS, f"bell.{JOBS}")
    with redis_client(broker.settings) as admin:
        admin.acl_log_reset()


def test_an_unknown_role_has_no_rights(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="UNKNOWN_ROLE"):
        carrier_of(broker.settings).rights(broker.settings, "root")
