from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

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
