from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ephemeralml.broker_config import BrokerSettings, broker_settings
from ephemeralml.broker_config.app import make_app
from ephemeralml.broker_config.queues import check_reply_to, jobs_queue
from ephemeralml.wire.errors import ConfigurationError, MalformedError

SECRET = "hunter2secret"


def test_arguments_win_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        "[broker]\nvisibility_timeout_s = 7\nreply_ttl_s = 77\nbroker_url = 'redis://file/0'\n[other]\nx = 1"
    )
    monkeypatch.setenv("EPHEMERALML_CONFIG", str(file))
    monkeypatch.setenv("EPHEMERALML_REPLY_TTL_S", "88")
    monkeypatch.setenv("EPHEMERALML_SOMETHING_ELSE", "ignored")
    settings = broker_settings(broker_url="redis://argument/0")
    assert (settings.visibility_timeout_s, settings.reply_ttl_s) == (7, 88)
    assert (settings.profile, settings.url) == ("redis", "redis://argument/0")
    assert broker_settings().url == "redis://file/0"


def test_the_embedded_profile_is_the_default_and_has_no_address() -> None:
    settings = broker_settings()
    assert settings.profile == "embedded"
    with pytest.raises(ConfigurationError) as caught:
        _ = settings.url
    assert caught.value.code == "BROKER_NOT_RUNNING"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[broker", "BAD_SETTINGS"),
        ("broker = 3", "BAD_SETTINGS"),
        ("[broker]\nvisibility_timout_s = 7", "BAD_SETTINGS"),
        ("[broker]\nvisibility_timeout_s = 0", "BAD_SETTINGS"),
        ("[broker]\nprofile = 'kafka'", "BAD_SETTINGS"),
        ("[broker]\nprofile = 'redis'", "BAD_SETTINGS"),
        ("[broker]\nprofile = 'embedded'\nbroker_url = 'redis://h/0'", "BAD_SETTINGS"),
        ("[broker]\ntls_cert_file = 'x.pem'", "BAD_SETTINGS"),
        ("\xff", "BAD_SETTINGS"),
    ],
)
def test_a_bad_file_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, code: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(text.encode("latin-1"))
    monkeypatch.setenv("EPHEMERALML_CONFIG", str(file))
    with pytest.raises(ConfigurationError) as caught:
        broker_settings()
    assert caught.value.code == code
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPHEMERALML_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigurationError, match="BAD_SETTINGS"):
        broker_settings()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (f"amqp://user:{SECRET}@host//", "UNKNOWN_BROKER"),
        (f"redis:{SECRET}", "UNKNOWN_BROKER"),
        ("", "UNKNOWN_BROKER"),
        (f"redis://:{SECRET}@host:port/0", "BAD_BROKER_URL"),
        (f"redis://:{SECRET}@host:70000/0", "BAD_BROKER_URL"),
        (f"redis://:{SECRET}@host/zero", "BAD_BROKER_URL"),
        (f"redis://:{SECRET}@/0", "BAD_BROKER_URL"),
        (f"rediss://:{SECRET}@host/0?ssl_cert_reqs=none", "BAD_BROKER_URL"),
        (f"redis://:{SECRET}@host/0#fragment", "BAD_BROKER_URL"),
        (f"redis+socket://:{SECRET}@/run/redis.sock", "BAD_BROKER_URL"),
        ("redis+socket:///" + "x" * 120, "BAD_BROKER_URL"),
        ("redis+socket:///run/redis.sock?virtual_host=x", "BAD_BROKER_URL"),
        ("redis+socket://", "BAD_BROKER_URL"),
    ],
)
def test_a_bad_address_is_refused_without_showing_it(url: str, code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        broker_settings(broker_url=url)
    assert caught.value.code == code
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://u:p@[::1]:7/3", "rediss://h/0", "redis+socket:///r.sock"]
)
def test_good_addresses(url: str) -> None:
    assert broker_settings(broker_url=url).url == url


def test_no_secret_shows() -> None:
    settings = broker_settings(broker_url=f"redis://:{SECRET}@h/0")
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ValidationError) as caught:
        BrokerSettings(broker_url=f"redis://:{SECRET}@h/0", profile="embedded")
    assert SECRET not in str(caught.value)


def test_the_app_refuses_what_leaks_or_loses() -> None:
    app = make_app(broker_settings(broker_url="redis://h/0"), pool="minilm")
    conf = app.conf
    assert conf.accept_content == ["application/cbor"]
    assert conf.task_serializer == conf.event_serializer == conf.result_serializer == "cbor"
    assert conf.task_acks_late
    assert conf.task_ignore_result
    assert conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control
    assert not conf.worker_send_task_events
    assert [queue.name for queue in conf.task_queues] == ["jobs.minilm"]
    assert not list(app.tasks), "Celery's own tasks can be called by a host"


@pytest.mark.parametrize("pool", ["", "-a", "A", "a" * 64, "a.b", "a\n", "ä", "a/b"])
def test_pool_names_are_strict(pool: str) -> None:
    with pytest.raises(MalformedError, match="BAD_POOL"):
        jobs_queue(pool)


def test_an_app_has_no_queue_of_a_bad_name() -> None:
    with pytest.raises(MalformedError, match="BAD_POOL"):
        make_app(broker_settings(broker_url="redis://h/0"), pool="")


@given(st.text())
def test_only_reply_queues_are_reply_queues(name: str) -> None:
    with pytest.raises(MalformedError, match="BAD_REPLY_TO"):
        check_reply_to(name)
    with pytest.raises(MalformedError, match="BAD_REPLY_TO"):
        check_reply_to("reply." + "0" * 32 + name if name else "jobs.minilm")


def test_good_names() -> None:
    assert jobs_queue("a" * 63) == "jobs." + "a" * 63
    assert check_reply_to("reply." + "0a" * 16) == "reply." + "0a" * 16
