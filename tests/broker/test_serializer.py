from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from ephemeralml.broker_config.envelope import JOB_HEADERS, well_formed
from ephemeralml.broker_config.serializer import CONTENT_TYPE, NAME, load_body, register_cbor
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import MalformedError

EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@given(st.binary(max_size=512))
def test_bytes_pass_unharmed(data: bytes) -> None:
    register_cbor()
    for body, back in ((data, data), (((data,), {}, EMBED), [[data], {}, EMBED])):
        content_type, encoding, raw = dumps(body, serializer=NAME)
        assert (content_type, encoding) == (CONTENT_TYPE, "binary")
        assert loads(raw, content_type, encoding, accept={CONTENT_TYPE}) == back


@given(st.binary(max_size=64))
def test_only_malformed_errors_escape(data: bytes) -> None:
    try:
        load_body(data)
    except MalformedError:
        return


@pytest.mark.parametrize(
    "body",
    [
        [[b"x", b"y"], {}, EMBED],
        [["text"], {}, EMBED],
        [[b"x"], {"a": 1}, EMBED],
        [[b"x"], {}, EMBED | {"callbacks": [{"task": "ephemeralml.run_pack"}]}],
        [[b"x"], {}, EMBED | {"chain": [{"task": "celery.map"}]}],
        [[b"x"], {}, {}],
        [[b"x"], {}],
        {"task": "x"},
        "text",
        None,
    ],
)
def test_a_host_cannot_embed_calls(body: object) -> None:
    with pytest.raises(MalformedError, match="BAD_BODY"):
        load_body(encode(body))


def test_strings_are_tolerated_from_transports_that_give_them() -> None:
    assert load_body(encode(b"\xff\x00").decode("latin-1")) == b"\xff\x00"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def envelope() -> dict[str, Any]:
    """Return what Submitter writes to Redis."""
    return {
        "body": "QQ==",
        "content-encoding": "binary",
        "content-type": CONTENT_TYPE,
        "headers": {**JOB_HEADERS, "id": "0" * 32, "root_id": "0" * 32},
        "properties": {
            "correlation_id": "0" * 32,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "jobs.p"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "45f6824c-6a0a-4536-9496-c7c0075f20e2",
        },
    }


def test_our_own_envelope_is_well_formed() -> None:
    assert well_formed(envelope(), "jobs.p")
    assert not well_formed(envelope(), "reply." + "0" * 32)
    reply = {**envelope(), "headers": {}}
    assert well_formed(reply, "reply." + "0" * 32)
    assert not well_formed(reply, "jobs.p")


@given(JSON)
def test_no_other_json_is(value: object) -> None:
    assert not well_formed(value, "jobs.p")


@given(JSON, st.data())
def test_no_header_of_another_value_is(value: object, data: st.DataObject) -> None:
    message = envelope()
    name = data.draw(st.sampled_from(sorted(message["headers"])) | st.text(max_size=8))
    if name in JOB_HEADERS and message["headers"][name] == value:
        return
    message["headers"][name] = value
    assert not well_formed(message, "jobs.p")
